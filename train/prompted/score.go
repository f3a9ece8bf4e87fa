package prompted

import (
	"context"
	"fmt"
	"math"
	"slices"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train"
	"gopeft/train/data"
)

// Scorer computes how likely a model finds texts. The tokens with which all of them begin are computed once: the others
// share their keys and values.
type Scorer struct {
	LM        model.CausalLM
	On        train.Machine
	Pad       int64
	Batch     int // rows of a pass
	MaxTokens int // most tokens of a pass, padding included; 0: no bound
	Progress  func(done, total int)
}

// Request is a prompt, of at least a token, and what may follow it, at least a token each.
type Request struct {
	Prompt  []int64
	Answers [][]int64
}

// Len is how many tokens the longest of the texts has.
func (r Request) Len() int {
	longest := 0
	for _, a := range r.Answers {
		longest = max(longest, len(a))
	}
	return len(r.Prompt) + longest
}

// Room is how many tokens a text may have.
func (sc Scorer) Room() int {
	return sc.LM.Info().MaxPositions - sc.LM.Hooks().PromptLen() - sc.LM.Hooks().MemoryLen()
}

// check refuses a model that gives no likelihoods, and machines on which passes are made together.
func (sc Scorer) check() error {
	if sc.LM.LMHead() == nil && sc.LM.Hooks().Unembed == nil {
		return fmt.Errorf("model %s has no language-model head: it does not say what follows a text", sc.LM.Path())
	}
	if sc.On.Shard {
		return train.Usage("--shard-frozen: prompts are scored by each process for itself, which takes whole weights: leave it out")
	}
	return nil
}

// Score gives the log-likelihood (natural logarithm) of each answer of each request, given its prompt: the sum over the answer's
// tokens. Processes of a group share the requests, and all get all scores.
func (sc Scorer) Score(ctx context.Context, s *bindings.Scope, rs []Request) ([][]float64, error) {
	if len(rs) == 0 {
		return nil, nil
	}
	if err := sc.check(); err != nil {
		return nil, err
	}
	prompts, ends := make([][]int64, len(rs)), make([]int, len(rs))
	full, answer, total := 0, 0, 0
	for i, r := range rs {
		prompts[i], ends[i] = r.Prompt, len(r.Prompt)-1 // whose last token's state tells what follows
		full, answer, total = max(full, r.Len()), max(answer, r.Len()-len(r.Prompt)), total+len(r.Answers)
	}
	p, err := sc.prefix(s, prompts, ends, full)
	if err != nil {
		return nil, err
	}
	defer p.close()
	texts := make([][]int64, len(rs))
	firsts := make([]int, len(rs)) // places of the requests' scores in flat
	at := 0
	for i, r := range rs {
		texts[i], firsts[i] = r.Prompt[p.len:], at
		at += len(r.Answers)
	}
	flat := make([]float64, total)
	part := train.ClassificationPart(texts, make([]int, len(texts)), sc.Pad)
	batches, err := train.EvalOrder(part.Lengths, sc.rows(full), sc.MaxTokens, sc.On).Epoch(0)
	if err != nil {
		return nil, err
	}
	err = sc.On.EachBatch(ctx, s, part, batches, sc.Progress, func(s *bindings.Scope, b data.Batch) func(i int) {
		return func(i int) { // only here it is known which requests these are
			sc.compute(s, func() {
				for k, scores := range sc.answers(s, p, b, pick(rs, batches[i]), answer) {
					copy(flat[firsts[batches[i][k]]:], scores)
				}
			})
		}
	})
	if err == nil {
		err = sc.LM.Unchanged()
	}
	if err != nil {
		return nil, err
	}
	if flat, err = sc.On.Group.SumFloats(s, flat...); err != nil { // zero but where a process computed
		return nil, err
	}
	scores := make([][]float64, len(rs))
	for i, r := range rs {
		scores[i] = flat[firsts[i] : firsts[i]+len(r.Answers)]
		for _, v := range scores[i] {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, fmt.Errorf("model %s gives likelihoods that are not finite: `gopeft inspect --load` looks for bad weights, --amp none avoids overflow", sc.LM.Path())
			}
		}
	}
	return scores, nil
}

// Losses gives, for each sequence, the negative log-likelihood of its targets and their number.
func (sc Scorer) Losses(ctx context.Context, s *bindings.Scope, seqs []data.Sequence) (losses []float64, targets []int64, err error) {
	losses, targets = make([]float64, len(seqs)), make([]int64, len(seqs))
	if len(seqs) == 0 {
		return losses, targets, nil
	}
	if err := sc.check(); err != nil {
		return nil, nil, err
	}
	ids, ends := make([][]int64, len(seqs)), make([]int, len(seqs))
	full := 0
	for i, seq := range seqs {
		ids[i], full = seq.IDs, max(full, len(seq.IDs))
		ends[i] = len(seq.IDs) - 1
		if first := slices.IndexFunc(seq.Targets, func(t int64) bool { return t != data.IgnoreTarget }); first >= 0 {
			ends[i] = first - 1
		}
	}
	p, err := sc.prefix(s, ids, ends, full)
	if err != nil {
		return nil, nil, err
	}
	defer p.close()
	rest := make([]data.Sequence, len(seqs))
	for i, seq := range seqs {
		rest[i] = data.Sequence{IDs: seq.IDs[p.len:], Targets: slices.Clone(seq.Targets[p.len:])}
		rest[i].Targets[0] = data.IgnoreTarget
	}
	part, err := train.CausalPart(rest, sc.Pad, 0)
	if err != nil {
		return nil, nil, err
	}
	batches, err := train.EvalOrder(part.Lengths, sc.rows(full), sc.MaxTokens, sc.On).Epoch(0)
	if err != nil {
		return nil, nil, err
	}
	err = sc.On.EachBatch(ctx, s, part, batches, sc.Progress, func(s *bindings.Scope, b data.Batch) func(i int) {
		return func(i int) {
			sc.compute(s, func() {
				in := train.Input(s, b, sc.On.Device)
				in.Cache, in.FullLength = p.fork(s, b.Rows, b.Width), full
				defer in.Cache.Close()
				out := sc.LM.Forward(s, in)
				for k, row := range batches[i] {
					if loss, n := (train.Causal{}).Loss(s, sc.LM, out, b, k, k+1); n > 0 {
						losses[row], targets[row] = loss.Item(), int64(n)
					}
				}
			})
		}
	})
	if err == nil {
		err = sc.LM.Unchanged()
	}
	if err != nil {
		return nil, nil, err
	}
	if losses, err = sc.On.Group.SumFloats(s, losses...); err != nil {
		return nil, nil, err
	}
	targets, err = sc.On.Group.SumInts(s, targets...)
	return losses, targets, err
}

// compute runs passes without gradients, in the precision asked for.
func (sc Scorer) compute(s *bindings.Scope, fn func()) {
	s.Inference(func() { s.Autocast(sc.On.Device, sc.On.Precision.DType, fn) })
}

// cacheBytes bounds the keys and values of one pass.
const cacheBytes = 512 << 20

// rows is how many rows a pass may have, of texts of up to so many tokens.
func (sc Scorer) rows(tokens int) int {
	i := sc.LM.Info()
	perRow := int64(i.Layers) * 2 * int64(i.KVHeads) * int64(i.HeadDim) * 4 * int64(tokens)
	return int(max(1, min(int64(max(sc.Batch, 1)), cacheBytes/max(perRow, 1))))
}

// answers scores the answers of the requests of a batch of texts; longest is the tokens of the longest of all.
func (sc Scorer) answers(s *bindings.Scope, p prefix, b data.Batch, rs []Request, longest int) [][]float64 {
	in := train.Input(s, b, sc.On.Device)
	in.Cache, in.FullLength = p.fork(s, b.Rows, b.Width), p.full
	defer in.Cache.Close()
	out := sc.LM.Forward(s, in)
	width := int64(b.Width + out.Virtual)
	lasts, firsts := make([]int64, len(rs)), make([][]int64, len(rs))
	lengths := make([]int, len(rs)) // of the texts
	for k, r := range rs {
		lengths[k] = len(r.Prompt) - p.len
		lasts[k] = int64(k)*width + int64(out.Virtual+lengths[k]-1)
		for _, a := range r.Answers {
			firsts[k] = append(firsts[k], a[0])
		}
	}
	flat := s.Reshape(out.Hidden, -1, out.Hidden.Size(-1))
	scores := sc.likelihoods(s, s.IndexSelect(flat, 0, s.Int64sOn(sc.On.Device, lasts, int64(len(lasts)))), firsts)
	// What follows an answer's first token: rows whose texts are of one length go on together, without padding before it.
	for _, length := range slices.Compact(slices.Sorted(slices.Values(lengths))) {
		var going []followed
		for k, r := range rs {
			for j, a := range r.Answers {
				if lengths[k] == length && len(a) > 1 {
					going = append(going, followed{k, j, a})
				}
			}
		}
		for some := range slices.Chunk(going, max(1, sc.rows(p.full))) {
			_ = s.Run(func(s *bindings.Scope) error {
				sc.follow(s, in.Cache, p.places()+out.Virtual+length, some, p.full, longest, scores)
				return nil
			})
		}
	}
	return scores
}

// followed is an answer of a row.
type followed struct {
	row, answer int
	ids         []int64
}

// follow adds to scores those of the answers' tokens behind the first. cache holds their prompts, of so many places.
func (sc Scorer) follow(s *bindings.Scope, cache *model.Cache, places int, some []followed, full, longest int, scores [][]float64) {
	rows, seqs := make([]int, len(some)), make([][]int64, len(some))
	for n, f := range some {
		rows[n], seqs[n] = f.row, f.ids[:len(f.ids)-1]
	}
	b, err := data.Collate(seqs, make([]int64, len(seqs)), data.CollateOptions{PadID: sc.Pad})
	if err != nil {
		panic(&bindings.OpError{Op: "score", Message: err.Error()}) // which cannot be: no row is empty
	}
	in := train.Input(s, b, sc.On.Device)
	in.Cache, in.FullLength = cache.Fork(s, rows, places, longest), full
	defer in.Cache.Close()
	h := sc.LM.Forward(s, in).Hidden
	var at []int64
	var wanted [][]int64
	var of []followed
	for n, f := range some {
		for t, id := range f.ids[1:] {
			at, wanted, of = append(at, int64(n*b.Width+t)), append(wanted, []int64{id}), append(of, f)
		}
	}
	flat := s.Reshape(h, -1, h.Size(-1))
	for n, v := range sc.likelihoods(s, s.IndexSelect(flat, 0, s.Int64sOn(sc.On.Device, at, int64(len(at)))), wanted) {
		scores[of[n].row][of[n].answer] += v[0]
	}
}

// logitBytes bounds the fp32 logits that exist at once.
const logitBytes = 64 << 20

// likelihoods is the log-likelihood of some tokens after each of the states h [n, hidden].
func (sc Scorer) likelihoods(s *bindings.Scope, h bindings.Tensor, wanted [][]int64) [][]float64 {
	most := 0
	for _, ids := range wanted {
		most = max(most, len(ids))
	}
	chunk := max(1, logitBytes/(4*sc.LM.Info().Vocab))
	out := make([][]float64, 0, len(wanted))
	for some := range slices.Chunk(wanted, chunk) {
		from, n := int64(len(out)), int64(len(some))
		index := make([]int64, 0, len(some)*most)
		for _, ids := range some {
			index = append(append(index, ids...), make([]int64, most-len(ids))...)
		}
		var values, norms []float64
		_ = s.Run(func(s *bindings.Scope) error {
			logits := s.To(sc.LM.Logits(s, s.Narrow(h, 0, from, n)), bindings.Float)
			top, _ := s.TopK(logits, 1, -1)
			logits = s.Sub(logits, top)
			norms = s.Log(s.SumDim(s.Exp(logits), 1, false)).Float64s()
			values = s.Gather(logits, 1, s.Int64sOn(sc.On.Device, index, n, int64(most))).Float64s()
			return nil
		})
		for k, ids := range some {
			row := make([]float64, len(ids))
			for j := range row {
				row[j] = values[k*most+j] - norms[k]
			}
			out = append(out, row)
		}
	}
	return out
}

func pick(rs []Request, indices []int) []Request {
	out := make([]Request, len(indices))
	for k, i := range indices {
		out[k] = rs[i]
	}
	return out
}
