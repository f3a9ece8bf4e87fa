package run

import (
	"fmt"
	"math"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/peft"
	"gopeft/train"
)

// Memory is an estimate of what a run on the CPU holds when it holds most, in MiB.
type Memory struct {
	Total       float64 `json:"total_mb"`
	Weights     float64 `json:"weights_mb"` // as loaded, with copies in the precision of --amp and of what a method trains
	Gradients   float64 `json:"gradients_mb"`
	Optimizer   float64 `json:"optimizer_mb"`
	Activations float64 `json:"activations_mb"` // kept for the backward pass, and being computed
	Runtime     float64 `json:"runtime_mb"`     // libtorch, the program and its data
	Phase       string  `json:"phase"`          // when it is so: backward, its end, or evaluation
}

// String says it in one line.
func (m Memory) String() string {
	return fmt.Sprintf("%.0f MiB (most in %s): weights %.0f, gradients %.0f, optimizer %.0f, activations %.0f, runtime %.0f",
		m.Total, m.Phase, m.Weights, m.Gradients, m.Optimizer, m.Activations, m.Runtime)
}

const (
	mib = 1 << 20
	// codeBytes is what training brings of the program and its libraries into memory at least, as measured, and
	// runtimeBytes what libtorch's tables, Go's heap and a tokenizer take besides.
	codeBytes, runtimeBytes = 110 * mib, 65 * mib
	// lossBytes is LMCrossEntropy's chunk of logits.
	lossBytes = 64 * mib
	// gradientRows is how many rows of the head's gradient LMCrossEntropy computes before it adds them.
	gradientRows = 16384
	// rowPages is what reading one row of a mapped table brings into memory: the kernel maps the pages around it too.
	rowPages = 64 << 10
)

// EstimateMemory predicts the most that training method on m as cfg says holds: batches of BatchSize rows of MaxLength
// tokens, products in precision p. The method is attached. Of several processes, at least 1, it is what each holds.
func EstimateMemory(cfg Config, p train.Precision, m model.Model, method peft.Method, processes int) Memory {
	e := estimator{cfg: cfg, model: m, method: method, info: m.Info(), word: 4, processes: float64(processes)}
	if p.DType != bindings.Float {
		e.word = 2
	}
	row := cfg.Data.MaxLength + m.Hooks().PromptLen()
	e.tokens, e.whole = float64((cfg.Loop.BatchSize+processes-1)/processes*row), float64(cfg.Loop.BatchSize*row)
	return e.estimate()
}

// estimator sums bytes.
type estimator struct {
	cfg    Config
	model  model.Model
	method peft.Method
	info   model.Info
	word   float64 // size of an element that a product gives
	tokens float64 // of a batch, or of the process's part of it
	whole  float64 // of a whole batch: processes evaluate whole ones
	// Of several processes the gradients lie in memory of their own all the time.
	processes float64
}

func (e *estimator) estimate() Memory {
	var trained, head, largest float64
	for _, p := range e.method.Trainable(e.model) {
		n := float64(p.T.Bytes())
		trained += n
		largest = max(largest, n)
		if e.isLMHead(p) {
			head = n
		}
	}
	base := Memory{Weights: e.weights(), Runtime: runtimeBytes + max(codeBytes, residentCode())}
	parts, bucket := trained, 0.0 // gradients that are there when all are, and what more of them travels at once
	if e.divides() {
		parts, bucket = trained/e.processes, e.bucket()
	}
	switch {
	case strings.HasPrefix(e.cfg.Loop.Optimizer, "adam"):
		base.Optimizer = 2 * trained
	case e.cfg.Loop.Momentum != 0:
		base.Optimizer = trained
	}
	divided := (e.cfg.Loop.ShardState || e.divides()) && e.processes > 1
	if divided {
		base.Optimizer /= e.processes
	}
	kept, one := e.activations()
	loss := e.loss()
	if head > 0 {
		loss += min(head, float64(gradientRows*e.info.Hidden*4))
	}

	begin := base // of the backward pass: every activation is kept, the first gradient computed
	begin.Phase, begin.Gradients, begin.Activations = "the loss", head, kept+max(loss, e.topmost())
	end := base // of the backward pass: every gradient is there, the lowest block's activations still are
	end.Phase, end.Gradients, end.Activations = "the end of the backward pass", parts+2*bucket, one
	if head > 0 && e.model.Hooks().Words.Trainable && e.isLMHead(e.model.Hooks().Words) {
		end.Activations += head // the embeddings' part of the gradient of a tied table
	}
	step := base
	step.Phase, step.Gradients = "the optimizer's step", parts
	if divided || e.cfg.Loop.Optimizer == "sgd" && e.cfg.Loop.WeightDecay != 0 {
		step.Activations = largest // divided: gathered for a checkpoint
	}
	score := base
	if e.cfg.evaluates() { // with up to twice the tokens of a training batch, as far as a pass takes them, of which nothing is kept
		whole := *e
		whole.tokens = e.whole
		score.Phase, score.Activations = "evaluation", min(2, max(1, train.PassTokens/e.whole))*e.whole*e.forwardPerToken()+whole.loss()
	}
	if e.processes > 1 {
		begin.Gradients, score.Gradients = parts, parts
	}
	if e.divides() { // the first gradient is put into its bucket
		begin.Gradients += head + bucket
	}
	most := begin
	for _, m := range []Memory{end, step, score} {
		if m.sum() > most.sum() {
			most = m
		}
	}
	return most.inMiB()
}

// evaluates reports whether a run scores anything.
func (c Config) evaluates() bool {
	return !c.Output.NoTrainEval || c.Data.Val != "" || c.Data.Test != "" || c.Data.Data != ""
}

func (m Memory) sum() float64 {
	return m.Weights + m.Gradients + m.Optimizer + m.Activations + m.Runtime
}

func (m Memory) inMiB() Memory {
	for _, v := range []*float64{&m.Weights, &m.Gradients, &m.Optimizer, &m.Activations, &m.Runtime} {
		*v /= mib
	}
	m.Total = m.sum()
	return m
}

// isLMHead reports whether a parameter is the map that the language model's loss runs through.
func (e *estimator) isLMHead(p *model.Param) bool {
	lm, ok := e.model.(model.CausalLM)
	return ok && len(e.model.Labels()) == 0 && p == lm.LMHead()
}

// weights are the model's and the method's parameters: the frozen maps of the blocks once more in a half precision, in
// whose place their pages go back to the file where they lie in one; and what trained copies replaced, where it does not.
func (e *estimator) weights() float64 {
	low := map[*model.Param]bool{}
	if e.word < 4 {
		for _, b := range e.model.Hooks().Blocks {
			for _, module := range b.Modules {
				for _, p := range []*model.Param{module.Dense.W, module.Dense.B} {
					if p != nil && !p.Trainable && !p.Quantised() && p.T.DType() == bindings.Float {
						low[p] = true
					}
				}
			}
		}
	}
	whole := e.method.Needs().WholeModel // its checkpoints read all of the model
	elsewhere := e.elsewhere()
	sum := atHand(elsewhere)
	if e.shards() { // whose own part is there all the time
		whole := 0.0
		for p := range elsewhere {
			whole += float64(p.Bytes())
		}
		sum += (whole - sum) / e.processes
	}
	for _, p := range e.model.Params().All() {
		n := float64(p.Bytes())
		if _, later := elsewhere[p]; later {
			continue
		}
		switch {
		case low[p] && p.Mapped():
			n /= 2
		case low[p]:
			n *= 1.5
		case p == e.model.Hooks().Words && p.Mapped() && !e.isLMHead(p) && !whole:
			n = min(n, e.looksUp()*rowPages)
		}
		sum += n + float64(p.Aside())
	}
	for _, p := range e.method.Params().All() {
		sum += float64(p.T.Bytes())
	}
	return sum
}

// looksUp is how many rows of the embeddings a run reads at most: none of their pages goes before it ends.
func (e *estimator) looksUp() float64 {
	if e.cfg.Loop.MaxSteps == 0 || e.cfg.evaluates() {
		return math.Inf(1)
	}
	return e.tokens * float64(max(1, e.cfg.Loop.GradAccum)*e.cfg.Loop.MaxSteps)
}

// shards reports whether processes hold frozen weights together.
func (e *estimator) shards() bool { return e.cfg.Machine.Shard && e.processes > 1 }

// divides reports whether they hold what is trained together too, with its gradients and the optimizer's state.
func (e *estimator) divides() bool { return e.shards() && e.method.Needs().WholeModel }

// bucket is the largest bucket that gradients of which processes keep parts travel in, as bindings.GradientParts lays them.
func (e *estimator) bucket() (largest float64) {
	bucket, params := 0.0, e.method.Trainable(e.model)
	for i := range params {
		n := float64(params[len(params)-1-i].T.Bytes())
		if bucket > 0 && bucket+n > bindings.BucketBytes {
			bucket = 0
		}
		bucket += n
		largest = max(largest, bucket)
	}
	return largest
}

// elsewhere are the weights that are whole only while they are computed with, and the number of their unit.
func (e *estimator) elsewhere() map[*model.Param]int {
	units := map[*model.Param]int{}
	if !e.cfg.Machine.Stream && !e.shards() {
		return units
	}
	for i, unit := range e.model.Units() {
		for _, w := range unit {
			if (w.Mapped() && !w.Trainable || w.Trainable && e.divides()) && !(e.shards() && w == e.model.Hooks().Words) {
				units[w] = i
			}
		}
	}
	return units
}

// atHand is the most that two units which follow one another take.
func atHand(units map[*model.Param]int) (most float64) {
	sums := map[int]float64{}
	for p, i := range units {
		sums[i] += float64(p.Bytes())
	}
	for i, n := range sums {
		most = max(most, n+sums[i+1])
	}
	return most
}

// activations is what all blocks keep for the backward pass, and what the lowest takes while it is in it.
func (e *estimator) activations() (kept, one float64) {
	h := e.model.Hooks()
	blocks := h.Blocks
	lowest := e.lowest()
	residual := e.tokens * float64(e.info.Hidden) * 4
	if lowest < len(blocks) {
		one = e.tokens*e.keptPerToken(blocks[lowest]) + e.tokens*e.backwardPerToken()
	}
	for _, b := range blocks[min(lowest, len(blocks)):] {
		if e.cfg.Loop.Recompute {
			kept += residual
		} else {
			kept += e.keptBy(b)
		}
	}
	if e.cfg.Loop.Recompute {
		one += kept
		if lowest < len(blocks) {
			kept = max(kept, one-residual*float64(len(blocks)-lowest)) // of the top block while it is recomputed
		}
	}
	return kept + residual, one + residual
}

// topmost is what is computed beside what is kept when the backward pass begins: the gradients of a block, or where
// no block has any or all is computed again, the block itself.
func (e *estimator) topmost() float64 {
	if e.cfg.Loop.Recompute || e.lowest() == len(e.model.Hooks().Blocks) {
		return e.tokens * e.forwardPerToken()
	}
	return e.tokens * e.backwardPerToken()
}

// keptBy is what a block keeps. Of the last one a classifier reads one position: the others give keys and values.
func (e *estimator) keptBy(b *model.Block) float64 {
	blocks := e.model.Hooks().Blocks
	if e.info.Decoder || e.cfg.Model.Task == train.TaskCausal || b != blocks[len(blocks)-1] {
		return e.tokens * e.keptPerToken(b)
	}
	_, kv, _ := e.widths()
	return e.tokens * (e.word*kv*e.stretch() + 4*float64(e.info.Hidden))
}

// lowest is the index of the first block that takes part in the backward pass, their number if none does.
func (e *estimator) lowest() int {
	h := e.model.Hooks()
	params := e.model.Params().All()
	if h.Prompt != nil {
		return 0
	}
	for _, p := range params { // of the embeddings, which come before the blocks
		if len(h.Blocks) > 0 && within(h.Blocks[0].Name, p.Name) {
			break
		}
		if p.Trainable {
			return 0
		}
	}
	for i, b := range h.Blocks {
		if len(b.Memory)+len(b.Branch)+len(b.AfterAttn)+len(b.AfterFFN)+len(b.Wrap) > 0 {
			return i
		}
		for _, p := range params {
			if p.Trainable && within(b.Name, p.Name) {
				return i
			}
		}
	}
	return len(h.Blocks)
}

func within(block, name string) bool { return strings.HasPrefix(name, block+".") }

// widths are the elements per token of a block's queries, of its keys and values together, and of its feed-forward.
func (e *estimator) widths() (q, kv, ffn float64) {
	return float64(e.info.Heads * e.info.HeadDim), float64(2 * e.info.KVHeads * e.info.HeadDim), float64(e.info.FFN)
}

// keptPerToken is what a block keeps of a token for the backward pass. Maps keep their input only where a weight that
// reads it is trained; the fused attention keeps no probabilities.
func (e *estimator) keptPerToken(b *model.Block) float64 {
	d := float64(e.info.Hidden)
	q, kv, ffn := e.widths()
	reads := func(slots ...model.Slot) float64 { // 1 if a trained weight reads what goes into these maps
		for _, slot := range slots {
			module, ok := b.Module(slot)
			if ok && (module.Dense.W.Trainable || b.Wrap[slot] != nil) {
				return 1
			}
		}
		return 0
	}
	sum := e.word * (2*q + kv*e.stretch()) // queries and the heads' output, keys and values
	into := 4 * d * (reads(model.Q, model.K, model.V) + reads(model.Up, model.Gate))
	behind := 0.0 // the activation: a map of the model's own computes it again
	if b.Wrap[model.Down] != nil || e.info.KeepsActivation {
		behind = 1
	}
	if e.info.HeadNorms {
		sum += e.word * (q + kv/2)
	}
	if e.info.PostNorms {
		sum += 2 * 4 * d
	}
	if e.info.KeepsScores { // in fp32, bent and as probabilities
		sum += (2*e.word + 4) * float64(e.info.Heads*e.cfg.Data.MaxLength)
	}
	if e.info.PreNorm {
		sum += 2*4*d + into // what the norms read, and what they give
	} else {
		sum += 2*e.word*d + into // the normalised sums, and what the norms give
	}
	sum += e.word * ffn * (e.intoFFN() + behind) // before the activation, and behind it
	sum += e.word * d * 2 * float64(len(b.AfterAttn)+len(b.AfterFFN))
	sum += e.word * q * 2 * float64(len(b.Branch))
	outputs := e.method.Needs().KeptOutputs
	for slot := range b.Wrap {
		if module, ok := b.Module(slot); ok {
			sum += e.word * outputs * float64(module.Dense.Out())
		}
	}
	return sum
}

// intoFFN is how many maps a feed-forward's activation reads: two where it is gated.
func (e *estimator) intoFFN() float64 {
	for _, m := range e.info.Maps() {
		if m.Slot == model.Gate {
			return 2
		}
	}
	return 1
}

// stretch is how much longer than a row its keys are, by a method's own.
func (e *estimator) stretch() float64 {
	length := e.cfg.Data.MaxLength + e.model.Hooks().PromptLen()
	return float64(length+e.model.Hooks().MemoryLen()) / float64(max(length, 1))
}

// forwardPerToken is what a block holds of a token while it is computed, beside what it keeps.
func (e *estimator) forwardPerToken() float64 {
	d := float64(e.info.Hidden)
	q, kv, ffn := e.widths()
	return 4*3*d + e.word*max(2*(q+kv)+q, (e.intoFFN()+1)*ffn+d)
}

// backwardPerToken is the gradients of a token that a block's backward pass holds at once, beside what it kept.
func (e *estimator) backwardPerToken() float64 {
	d := float64(e.info.Hidden)
	_, _, ffn := e.widths()
	residuals := 2.0
	if e.info.PreNorm {
		residuals = 3
	}
	return 4*residuals*d + e.word*e.intoFFN()*ffn
}

// loss is what a language model's loss holds beside the gradient of its head: a chunk of logits, the states that have a
// target, their gradient. A head that a method wraps makes all logits at once, and their gradient.
func (e *estimator) loss() float64 {
	lm, ok := e.model.(model.CausalLM)
	if !ok || len(e.model.Labels()) > 0 {
		return 0
	}
	states := 2 * e.tokens * float64(e.info.Hidden) * 4
	logits := e.tokens * float64(e.info.Vocab) * 4
	if e.model.Hooks().Unembed != nil || !lm.BareLogits() {
		return states + 3*logits
	}
	return states + min(logits, lossBytes)
}
