package train

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/generate"
	"gopeft/model/tokenizer"
	"gopeft/train/data"
)

// Causal is next-token prediction: cross-entropy over the tokens that have a target, without ever holding
// the logits of a whole batch unless it is told to.
type Causal struct {
	WholeLogits bool // the logits of all targets exist at once
}

// Measure implements Task. The language model's head runs only where there is a target.
func (c Causal) Measure(s *bindings.Scope, m model.Model, b data.Batch, in model.Input) Measure {
	out := m.Forward(s, in)
	loss, _ := c.loss(s, m.(model.CausalLM), out, b, 0, b.Rows)
	return Measure{Loss: loss}
}

// loss is the sum over the targets of some rows of a batch, and their number.
func (c Causal) loss(s *bindings.Scope, m model.CausalLM, out model.Output, b data.Batch, from, to int) (bindings.Tensor, int) {
	width := b.Width + out.Virtual
	var rows, targets []int64
	for i := from * b.Width; i < to*b.Width; i++ {
		if t := b.Targets[i]; t != data.IgnoreTarget {
			// Token i of its row is predicted by the state before it; a prompt's virtual tokens come first.
			rows = append(rows, int64(i/b.Width*width+out.Virtual+i%b.Width-1))
			targets = append(targets, t)
		}
	}
	n := int64(len(rows))
	if n == 0 { // cut-off prompts alone: a zero loss that still reaches every weight
		return s.MulScalar(s.Sum(s.Narrow(out.Hidden, 1, 0, 1)), 0), 0
	}
	dev := out.Hidden.Device()
	flat := s.Reshape(out.Hidden, -1, out.Hidden.Size(-1))
	h := s.IndexSelect(flat, 0, s.Int64sOn(dev, rows, n))
	want := s.Int64sOn(dev, targets, n)
	switch {
	case c.WholeLogits:
		return logitsLoss(s, m, h, want), int(n)
	case m.Hooks().Unembed != nil: // a method's map stands in for the head
		return mappedLoss(s, m, h, want), int(n)
	}
	return s.LMCrossEntropy(h, m.LMWeight(), want, data.IgnoreTarget, false, 0), int(n)
}

// chunkBytes bounds the fp32 logits of mappedLoss that exist at once.
const chunkBytes = 64 << 20

// mappedLoss is the summed cross-entropy of states h [n, hidden] whose logits a method's map computes, for targets
// want [n]. Where the logits are many they exist for a chunk of tokens at a time: the backward pass computes each
// chunk's again.
func mappedLoss(s *bindings.Scope, m model.CausalLM, h, want bindings.Tensor) bindings.Tensor {
	n, chunk := h.Size(0), max(1, chunkBytes/(4*int64(m.Info().Vocab)))
	if n <= chunk {
		return logitsLoss(s, m, h, want)
	}
	loss := func(s *bindings.Scope, ts []bindings.Tensor) bindings.Tensor { return logitsLoss(s, m, ts[0], ts[1]) }
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		var sum bindings.Tensor
		for from := int64(0); from < n; from += chunk {
			k := min(chunk, n-from)
			part := s.Checkpoint([]bindings.Tensor{s.Narrow(h, 0, from, k), s.Narrow(want, 0, from, k)}, loss)
			if sum.Defined() {
				part = s.Add(sum, part)
			}
			sum = part
		}
		return sum
	})
}

// logitsLoss is mappedLoss of the logits as a whole.
func logitsLoss(s *bindings.Scope, m model.CausalLM, h, want bindings.Tensor) bindings.Tensor {
	return s.CrossEntropy(s.To(m.Logits(s, h), bindings.Float), want, data.IgnoreTarget, false)
}

// CausalEncoder turns examples into token sequences.
type CausalEncoder struct {
	Tokenizer   *tokenizer.Tokenizer
	Missing     error   // why there is no Tokenizer
	EOS         []int64 // the model's end tokens: the first ends answers where the tokenizer names none
	Vocab       int     // token ids the model knows; 0: not checked
	MaxLength   int
	TrainPrompt bool // learn the prompt too
	// Chat renders a chat up to and including message n; with open the assistant's turn is begun.
	Chat func(messages []data.Message, n int, open bool) (string, error)
}

// Encode tokenizes one example: the prompt and its answer as one text, an end token behind it, targets on the
// answer alone. Ids that the model does not know are an error.
func (e CausalEncoder) Encode(x data.CausalExample) (data.Sequence, error) {
	seq, err := e.encode(x)
	if err != nil {
		return seq, err
	}
	if err := data.CheckVocab("input_ids", seq.IDs, e.Vocab); err != nil {
		return seq, err
	}
	return seq, data.CheckVocab("labels", seq.Targets, e.Vocab)
}

func (e CausalEncoder) encode(x data.CausalExample) (data.Sequence, error) {
	switch {
	case x.IDs != nil:
		targets := x.Targets
		if targets == nil {
			targets = x.IDs
		}
		return cut(data.Sequence{IDs: x.IDs, Targets: firstIgnored(targets)}, e.MaxLength), nil
	case e.Tokenizer == nil:
		return data.Sequence{}, e.Missing
	case x.Messages != nil:
		return e.chat(x.Messages)
	}
	ids, err := e.ids(x.Prompt + x.Answer)
	if err != nil {
		return data.Sequence{}, err
	}
	shared := 0
	if x.Prompt != "" {
		prompt, err := e.ids(x.Prompt)
		if err != nil {
			return data.Sequence{}, err
		}
		shared = commonPrefix(ids, prompt)
	}
	if eos, ok := e.end(); ok && (len(ids) == 0 || ids[len(ids)-1] != eos) {
		ids = append(ids, eos)
	}
	return data.NewSequence(ids[:shared], ids[shared:], e.MaxLength, e.TrainPrompt), nil
}

// chat learns what the assistant says: its turns, with the tokens that end them.
func (e CausalEncoder) chat(messages []data.Message) (data.Sequence, error) {
	if e.Chat == nil {
		return data.Sequence{}, errors.New("chat messages need a model with a chat template: its tokenizer_config.json has none")
	}
	var seq data.Sequence
	for n := range messages {
		if messages[n].Role != "assistant" {
			continue
		}
		before, err := e.Chat(messages, n, true)
		if err != nil {
			return seq, err
		}
		after, err := e.Chat(messages, n+1, false)
		if err != nil {
			return seq, err
		}
		prompt, err := e.plainIDs(before)
		if err != nil {
			return seq, err
		}
		full, err := e.plainIDs(after)
		if err != nil {
			return seq, err
		}
		shared := commonPrefix(full, prompt)
		targets := make([]int64, len(full))
		for i, id := range full {
			targets[i] = id
			if i < shared && !e.TrainPrompt {
				targets[i] = data.IgnoreTarget
				if i < len(seq.Targets) && i < len(seq.IDs) && seq.IDs[i] == id {
					targets[i] = seq.Targets[i] // an earlier turn of the assistant
				}
			}
		}
		seq = data.Sequence{IDs: full, Targets: firstIgnored(targets)}
	}
	if seq.IDs == nil {
		return seq, errors.New("the chat has no message of the assistant to learn from")
	}
	return cut(seq, e.MaxLength), nil
}

// ids tokenizes with the tokenizer's begin token. What its template puts behind a text, an end token, is taken off; one
// that the text itself ends with stays.
func (e CausalEncoder) ids(text string) ([]int64, error) {
	ids, err := e.Tokenizer.EncodeIDs(nil, text, tokenizer.Options{AddSpecial: true})
	if err != nil {
		return nil, err
	}
	_, behind := e.Tokenizer.Around()
	return ids[:len(ids)-len(behind)], nil
}

// end is the token that ends an answer.
func (e CausalEncoder) end() (int64, bool) {
	if id, ok := e.Tokenizer.EOSID(); ok || len(e.EOS) == 0 {
		return id, ok
	}
	return e.EOS[0], true
}

// plainIDs tokenizes a rendered chat, which holds its special tokens as text.
func (e CausalEncoder) plainIDs(text string) ([]int64, error) {
	return e.Tokenizer.EncodeIDs(nil, text, tokenizer.Options{})
}

func commonPrefix(a, b []int64) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func firstIgnored(targets []int64) []int64 {
	out := append([]int64(nil), targets...)
	if len(out) > 0 {
		out[0] = data.IgnoreTarget
	}
	return out
}

func cut(s data.Sequence, n int) data.Sequence {
	if n > 0 && len(s.IDs) > n {
		s.IDs, s.Targets = s.IDs[:n], s.Targets[:n]
	}
	return s
}

// CausalPart makes a part of token sequences; with packTo above 0 they are packed into rows of that width.
func CausalPart(seqs []data.Sequence, pad int64, packTo int) (*Part, error) {
	lengths := make([]int, len(seqs))
	for i, s := range seqs {
		lengths[i] = len(s.IDs)
	}
	o := data.CollateOptions{PadID: pad}
	if packTo == 0 {
		return &Part{Lengths: lengths, Collate: func(examples []int) (data.Batch, error) {
			return data.CollateCausal(pick(seqs, examples), o)
		}}, nil
	}
	rows, err := data.Pack(lengths, packTo)
	if err != nil {
		return nil, err
	}
	p := &Part{Lengths: make([]int, len(rows))}
	for i, row := range rows {
		for _, k := range row {
			p.Lengths[i] += lengths[k]
		}
	}
	p.Collate = func(examples []int) (data.Batch, error) {
		packed := make([][]data.Sequence, len(examples))
		for i, r := range examples {
			packed[i] = pick(seqs, rows[r])
		}
		return data.CollatePacked(packed, o)
	}
	return p, nil
}

func pick(seqs []data.Sequence, indices []int) []data.Sequence {
	out := make([]data.Sequence, len(indices))
	for k, i := range indices {
		out[k] = seqs[i]
	}
	return out
}

// loadCausal reads instruction data and starts tokenizing it on the other cores.
func (r *run) loadCausal(ctx context.Context) error {
	cfg := r.cfg
	splits, err := cfg.causalSplits(ctx)
	if err != nil {
		return err
	}
	for _, note := range splits.Notes() {
		r.ui.Note("%s", note)
	}
	length, err := r.maxLength()
	if err != nil {
		return err
	}
	facts, err := model.ReadFacts(cfg.folder())
	if err != nil {
		return err
	}
	enc := CausalEncoder{Tokenizer: r.tok, Missing: r.noTok, Vocab: facts.Vocab, MaxLength: length, TrainPrompt: !cfg.MaskPrompt, Chat: chatRenderer(r.tok)}
	if err := r.endToken(&enc); err != nil {
		return err
	}
	pad, err := r.padID()
	if err != nil {
		return err
	}
	d := &runData{task: Causal{WholeLogits: !cfg.Has(LeverChunks)}, ready: make(chan error, 1)}
	r.data = d
	go func() {
		d.ready <- func() error {
			for _, p := range []struct {
				set  *data.CausalSet
				part **Part
				pack bool
			}{{splits.Train, &d.train, cfg.Pack}, {splits.Val, &d.val, false}, {splits.Test, &d.test, false}} {
				if p.set == nil || len(p.set.Examples) == 0 {
					continue
				}
				d.hash += p.set.Hash()
				seqs, err := encodeCausal(ctx, enc, p.set, threads(cfg.Threads))
				if err != nil {
					return err
				}
				width := 0
				if p.pack {
					width = packWidth(seqs, cfg.MaxLength, length)
				}
				if *p.part, err = CausalPart(seqs, pad, width); err != nil {
					return err
				}
				(*p.part).InTurn = !cfg.Has(LeverOverlap)
				if p.pack {
					d.notes = append(d.notes, fmt.Sprintf("%s examples packed into %s rows of up to %s tokens",
						Commas(int64(len(seqs))), Commas(int64(len((*p.part).Lengths))), Commas(int64(width))))
				}
			}
			return nil
		}()
	}()
	return nil
}

// endToken tells an encoder of texts whose tokenizer names no end token which the model ends its texts with.
func (r *run) endToken(e *CausalEncoder) error {
	if r.tok == nil {
		return nil
	}
	if _, ok := r.tok.EOSID(); ok {
		return nil
	}
	o, err := generate.Defaults(r.cfg.folder())
	if err != nil && !errors.Is(err, generate.ErrSampling) {
		return err
	}
	if e.EOS = o.EOS; len(e.EOS) == 0 {
		r.ui.Note("neither the tokenizer nor the model names an end token: answers are learned without one, so the model will not learn to stop")
	}
	return nil
}

// packedRow is how wide packed rows are unless --max-length says or an example is longer: attention's mask grows
// with the square of it.
const packedRow = 2048

// packWidth is how many tokens a packed row holds: what was asked for, else what the model reads, but no more than
// the longest example or packedRow.
func packWidth(seqs []data.Sequence, asked, room int) int {
	if asked > 0 {
		return room
	}
	longest := 0
	for _, s := range seqs {
		longest = max(longest, len(s.IDs))
	}
	return min(room, max(longest, packedRow))
}

// encodeCausal tokenizes a set on several goroutines. An example whose answer was cut off whole teaches
// nothing; a set of only such is an error.
func encodeCausal(ctx context.Context, enc CausalEncoder, set *data.CausalSet, workers int) ([]data.Sequence, error) {
	seqs := make([]data.Sequence, len(set.Examples))
	var targets atomic.Int64
	err := data.ForEach(ctx, len(seqs), workers, func(i int) error {
		x := set.Examples[i]
		seq, err := enc.Encode(x)
		if err != nil {
			return &data.RowError{File: x.File, Line: x.Line, Row: x.Row, Err: err}
		}
		seqs[i] = seq
		targets.Add(int64(seq.NumTargets()))
		return nil
	})
	if err != nil {
		return nil, err
	}
	if targets.Load() == 0 {
		return nil, fmt.Errorf("%s: nothing to learn: every answer is cut off by --max-length %d", set.File, enc.MaxLength)
	}
	return seqs, nil
}
