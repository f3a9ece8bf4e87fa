package train

import (
	"context"
	"encoding/json"
	"math"
	"slices"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/train/data"
	"gopeft/train/dist"
)

// What a Trainer does together with the other processes of a run. Alone, with a nil Group, each of these is what it has
// to be for the run to be that of one process.

// share is this process's part of each batch: every N-th row, so that all get rows of about the same lengths. Where passes
// are made together a process that gets none has another's, of which nothing counts.
func (t *Trainer) share(batches [][]int) [][]int {
	rank, size := t.Group.Rank(), t.Group.Size()
	if size == 1 {
		return batches
	}
	mine := make([][]int, len(batches))
	for i, b := range batches {
		for k := rank; k < len(b); k += size {
			mine[i] = append(mine[i], b[k])
		}
		if t.Shard && t.idle(b) {
			mine[i] = b[rank%len(b):][:1]
		}
	}
	return mine
}

// idle reports whether this process has no rows of a batch.
func (t *Trainer) idle(batch []int) bool { return t.Group.Rank() >= len(batch) }

// agree is what the losses of a step are averaged over, on all processes, which also take over what the first one's clock
// asks for. It is an error where the context of any has ended.
func (t *Trainer) agree(ctx context.Context, s *bindings.Scope, group []data.Batch) (weight float64, err error) {
	for _, b := range group {
		if !b.Idle {
			weight += t.Task.Weight(b)
		}
	}
	t.timed = t.Group.First() && t.Due != nil && t.Due()
	if t.Group == nil {
		return weight, ctx.Err()
	}
	sums, err := t.Group.SumFloats(s, weight, float64(dist.Vote(ctx.Err() != nil)), float64(dist.Vote(t.timed)))
	if err != nil {
		return 0, err
	}
	if sums[1] > 0 {
		return 0, context.Canceled
	}
	t.timed = sums[2] > 0
	return sums[0], nil
}

// beginShared readies the gradients and what is random in a step. A process's dropout is drawn from the run's seed, the
// step and its rank alone, so that a run goes on to the same bits with nothing to be remembered.
func (t *Trainer) beginShared(s *bindings.Scope) error {
	if t.Group == nil {
		return nil
	}
	if t.sums == nil {
		var err error
		if t.sums, err = t.gradients(s); err != nil {
			return err
		}
	}
	s.Seed(stepSeed(t.Seed, t.At.Step, t.Group.Rank()))
	return t.sums.Begin()
}

// gradients are those of the parameters, whole or, where some parameters are not, in the parts that the optimizer has.
func (t *Trainer) gradients(s *bindings.Scope) (*dist.Gradients, error) {
	params := make([]bindings.Tensor, len(t.Params))
	for i, p := range t.Params {
		params[i] = p.T
	}
	if !sharesAny(t.Params) {
		return t.Group.Gradients(s, params)
	}
	own, from := make([]bindings.Tensor, len(params)), make([]int64, len(params))
	for i, p := range params {
		x := t.Opt.span(s, i, t.Group.Rank())
		own[i], from[i] = t.Opt.scope.Zeros([]int64{x.n}, p.DType(), p.Device()), x.from
	}
	return t.Group.GradientParts(s, params, own, from)
}

// sharesAny reports whether processes hold any of some parameters together.
func sharesAny(params []*model.Param) bool { return slices.ContainsFunc(params, (*model.Param).Shared) }

// norm is that of all gradients, of which grads may be this process's parts.
func (t *Trainer) norm(s *bindings.Scope, grads []bindings.Tensor) (float64, error) {
	norm := s.Norm(grads)
	if t.Opt.owned == nil {
		return norm, nil
	}
	sums, err := t.Group.SumFloats(s, norm*norm)
	if err != nil {
		return 0, err
	}
	return math.Sqrt(sums[0]), nil
}

// firstNonFinite is the index of the first of some tensors that is not finite, -1 if there is none; where they are this
// process's parts, the first of any process's.
func (t *Trainer) firstNonFinite(s *bindings.Scope, ts []bindings.Tensor, parts bool) (int, error) {
	first := s.FirstNonFinite(ts)
	if !parts {
		return first, nil
	}
	all, err := t.Group.Gather(s, int64(first))
	for _, of := range all {
		if i := int(of[0]); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	return first, err
}

// firstGradients are the gradients by parameter; of those in parts, what tells whether they are zero or not finite.
func (t *Trainer) firstGradients(s *bindings.Scope, grads []bindings.Tensor, names []string) (map[string]bindings.Tensor, error) {
	if t.Opt.owned != nil {
		norms := make([]float64, len(grads))
		for i := range grads {
			norms[i] = s.Norm(grads[i : i+1])
		}
		norms, err := t.Group.SumFloats(s, norms...)
		if err != nil {
			return nil, err
		}
		grads = slices.Clone(grads)
		for i, n := range norms {
			grads[i] = s.Scalar(n, bindings.Float, bindings.CPU)
		}
	}
	of := map[string]bindings.Tensor{}
	for i, n := range names {
		of[n] = grads[i]
	}
	return of, nil
}

// stepSeed mixes its arguments as splitmix64 does.
func stepSeed(seed uint64, step, rank int) uint64 {
	x := seed + uint64(step)*0x9e3779b97f4a7c15 + uint64(rank+1)*0xd1342543de82ef95
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func hasRows(b data.Batch) bool { return b.Rows > 0 }

// stepSum is what a step adds to the run's figures.
type stepSum struct {
	loss                           float64
	correct, rows, samples, tokens int
}

// total adds up what all processes measured in a step.
func (t *Trainer) total(s *bindings.Scope, group []data.Batch, measures []Measure) (sum stepSum, err error) {
	var own error
	for i, m := range measures {
		if group[i].Rows == 0 || group[i].Idle {
			continue
		}
		loss := m.Loss.Item()
		if own == nil && (math.IsNaN(loss) || math.IsInf(loss, 0)) {
			own = &NonFiniteError{Step: t.At.Step + 1, Tensor: t.firstBad(s, group[i])}
		}
		sum.loss += loss
		if m.Correct.Defined() {
			sum.correct += int(m.Correct.Item())
			sum.rows += m.Rows
		}
		sum.samples += group[i].Rows
		sum.tokens += group[i].Tokens
	}
	if t.Group == nil || own != nil {
		return sum, own
	}
	all, err := t.Group.SumFloats(s, sum.loss, float64(sum.correct), float64(sum.rows), float64(sum.samples), float64(sum.tokens))
	if err != nil {
		return sum, err
	}
	return stepSum{all[0], int(all[1]), int(all[2]), int(all[3]), int(all[4])}, nil
}

// TakeFirst gives every process the first one's state: its weights, its optimizer's, its scaler's, and p.
func (t *Trainer) TakeFirst(ctx context.Context, s *bindings.Scope, p Progress) (Progress, error) {
	if t.Group == nil {
		return p, nil
	}
	p.Position, p.Counts, p.SGDBegun, p.Checked = t.At, t.Opt.count, !t.Opt.fresh, t.checked
	raw, err := json.Marshal(p)
	if err != nil {
		return p, err
	}
	if raw, err = t.Group.Share(ctx, "progress", raw); err != nil {
		return p, err
	}
	p = Progress{}
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, err
	}
	t.take(s, p)
	var ts []bindings.Tensor
	for _, n := range t.state() {
		ts = append(ts, n.Tensor)
	}
	if err := t.Group.Broadcast(0, ts...); err != nil {
		return p, err
	}
	if p.Step > 0 {
		if err := t.takeParts(s); err != nil {
			return p, err
		}
	}
	return p, t.TakeFirstWeights()
}

// Scattered reports whether the optimizer's state is saved by all processes together or not at all.
func (t *Trainer) Scattered() bool { return t.Opt.cfg.Group != nil }

// takeParts gives every process its part of the optimizer's state, and of the weights that they share, in the first one's file.
func (t *Trainer) takeParts(s *bindings.Scope) error {
	if !t.Scattered() {
		return nil
	}
	for n, x := range t.Opt.state() {
		take := func(s *bindings.Scope, whole bindings.Tensor) { t.Opt.take(s, n, whole) }
		if err := t.takePart(s, t.resumed, x.Name, t.Params[t.Opt.param(n)].T, take); err != nil {
			return err
		}
	}
	return t.takeShared(s, t.resumed)
}

// takeShared gives every process its part of the trained weights that they share, in the first one's file.
func (t *Trainer) takeShared(s *bindings.Scope, path string) error {
	for _, p := range t.Params {
		if !p.Shared() {
			continue
		}
		take := func(s *bindings.Scope, whole bindings.Tensor) {
			if x := partOf(s, p, t.Group.Rank()); x.n > 0 {
				s.NoGrad(func() { s.Copy(x.of(s, p.T), x.of(s, whole)) })
			}
		}
		if err := t.takePart(s, path, paramPrefix+p.Name, p.T, take); err != nil {
			return err
		}
	}
	t.Model.Retake(s)
	return nil
}

// takePart has every process take its part of a tensor that is like another, in the first one's file.
func (t *Trainer) takePart(s *bindings.Scope, path, name string, like bindings.Tensor, take func(s *bindings.Scope, whole bindings.Tensor)) error {
	return s.Run(func(s *bindings.Scope) error {
		whole := s.Empty(like.Shape(), like.DType(), like.Device())
		if t.Group.First() {
			if err := loadTensors(s, path, []hf.Named{{Name: name, Tensor: whole}}); err != nil {
				return err
			}
		}
		if err := t.Group.Broadcast(0, whole); err != nil {
			return err
		}
		take(s, whole)
		return nil
	})
}

// scattered lists the state of which each process holds a part, for the first one's SaveState. Each tensor is gathered when
// it is written, so that no more than one is whole.
func (t *Trainer) scattered(s *bindings.Scope) (out []hf.Named) {
	if !t.Scattered() {
		return nil
	}
	for n, x := range t.Opt.state() {
		p := t.Params[t.Opt.param(n)].T
		x.Tensor = s.Placeholder(p.Shape(), p.DType())
		x.Make = func(s *bindings.Scope) (bindings.Tensor, error) { return t.gathering(s, n) }
		out = append(out, x)
	}
	return out
}

// gatherShared has the weights that processes share gathered when the first one saves them.
func (t *Trainer) gatherShared() {
	for i, p := range t.Model.Params().All() {
		if p.Shared() && !p.Quantised() {
			p.GatherBy(func(s *bindings.Scope) (bindings.Tensor, error) { return t.gathering(s, len(t.Opt.state())+i) })
		}
	}
}

// gathering tells those that Follow which tensor comes next, by its number, and gathers that.
func (t *Trainer) gathering(s *bindings.Scope, n int) (bindings.Tensor, error) {
	if _, err := t.Group.SumInts(s, int64(n)); err != nil {
		return bindings.Tensor{}, err
	}
	return t.whole(s, n)
}

// whole gathers a tensor: of the optimizer's state, whose numbers come first, or of the model's weights.
func (t *Trainer) whole(s *bindings.Scope, n int) (bindings.Tensor, error) {
	states := len(t.Opt.state())
	if n < states {
		return t.Opt.whole(s, n)
	}
	p := t.Model.Params().All()[n-states]
	own := partOf(s, p, t.Group.Rank())
	return gathered(s, t.Group, p.T, own.of(s, p.T), func(rank int) span { return partOf(s, p, rank) })
}

// written is what the first process tells those that Follow in the place of a tensor's number.
const written = -1

// Follow takes part in what the first process saves until that Releases those that follow.
func (t *Trainer) Follow(s *bindings.Scope) error {
	for t.Scattered() {
		next, err := t.Group.SumInts(s, 0)
		if err != nil {
			return err
		}
		if next[0] == written {
			break
		}
		err = s.Run(func(s *bindings.Scope) error {
			_, err := t.whole(s, int(next[0]))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Release lets the others go on, that Follow the first process, whether it has written all or failed.
func (t *Trainer) Release(s *bindings.Scope) error {
	if !t.Scattered() {
		return nil
	}
	_, err := t.Group.SumInts(s, written)
	return err
}

// TakeFirstWeights gives every process the first one's trained weights, as far as each has them whole.
func (t *Trainer) TakeFirstWeights() error { return t.Group.Broadcast(0, tensorsOf(t)...) }

// TakeBest gives every process the weights that the first one finds where SaveWeights has left them.
func (t *Trainer) TakeBest(s *bindings.Scope, path string) error {
	if t.Group.First() {
		if err := LoadWeights(s, path, slices.DeleteFunc(slices.Clone(t.Params), (*model.Param).Shared)); err != nil {
			return err
		}
	}
	if err := t.TakeFirstWeights(); err != nil || !sharesAny(t.Params) {
		return err
	}
	return t.takeShared(s, path)
}

// take makes p the place to go on from.
func (t *Trainer) take(s *bindings.Scope, p Progress) {
	t.At, t.checked = p.Position, p.Checked
	t.Opt.setCounts(s, p.Counts)
	t.Opt.fresh = !p.SGDBegun
}

// state lists the optimizer's and the scaler's tensors, as far as each process has them whole.
func (t *Trainer) state() (ts []hf.Named) {
	if !t.Scattered() {
		ts = t.Opt.state()
	}
	if t.Scaler != nil {
		ts = append(ts, hf.Named{Name: scalerScale, Tensor: t.Scaler.scale}, hf.Named{Name: scalerSteps, Tensor: t.Scaler.tracker})
	}
	return ts
}

// Same sees that every process has the same weights, as far as each has them whole.
func (t *Trainer) Same(s *bindings.Scope) error { return t.Group.Same(s, "weights", tensorsOf(t)) }

// Close frees what the trainer holds beside the model.
func (t *Trainer) Close() {
	t.noise.Close()
	t.sums.Close()
	t.Opt.Close()
	t.Scaler.Close()
}

// tensorsOf are the trained weights that every process has whole.
func tensorsOf(t *Trainer) (ts []bindings.Tensor) {
	for _, p := range t.Params {
		if !p.Shared() {
			ts = append(ts, p.T)
		}
	}
	return ts
}
