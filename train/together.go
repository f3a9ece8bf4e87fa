package train

import (
	"context"
	"encoding/json"
	"math"

	"gopeft/bindings"
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
		if t.sums, err = t.Group.Gradients(s, tensorsOf(t)); err != nil {
			return err
		}
	}
	s.Seed(stepSeed(t.Seed, t.At.Step, t.Group.Rank()))
	return t.sums.Begin()
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

// takeParts gives every process its part of the optimizer's state in the first one's file.
func (t *Trainer) takeParts(s *bindings.Scope) error {
	if !t.Scattered() {
		return nil
	}
	for n, x := range t.Opt.state() {
		err := s.Run(func(s *bindings.Scope) error {
			p := t.Params[t.Opt.param(n)].T
			whole := s.Empty(p.Shape(), p.DType(), p.Device())
			if t.Group.First() {
				if err := loadTensors(s, t.resumed, []hf.Named{{Name: x.Name, Tensor: whole}}); err != nil {
					return err
				}
			}
			if err := t.Group.Broadcast(0, whole); err != nil {
				return err
			}
			t.Opt.take(s, n, whole)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
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
		x.Make = func(s *bindings.Scope) (bindings.Tensor, error) {
			if _, err := t.Group.SumInts(s, int64(n)); err != nil {
				return bindings.Tensor{}, err
			}
			return t.Opt.whole(s, n)
		}
		out = append(out, x)
	}
	return out
}

// written is what the first process tells those that Follow in the place of a tensor's number.
const written = -1

// Follow takes part in the first process's SaveState until that Releases those that follow.
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
			_, err := t.Opt.whole(s, int(next[0]))
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

// TakeFirstWeights gives every process the first one's trained weights.
func (t *Trainer) TakeFirstWeights() error { return t.Group.Broadcast(0, tensorsOf(t)...) }

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

// Same sees that every process has the same weights.
func (t *Trainer) Same(s *bindings.Scope) error { return t.Group.Same(s, "weights", tensorsOf(t)) }

// Close frees what the trainer holds beside the model.
func (t *Trainer) Close() {
	t.noise.Close()
	t.sums.Close()
	t.Opt.Close()
	t.Scaler.Close()
}

func tensorsOf(t *Trainer) []bindings.Tensor {
	ts := make([]bindings.Tensor, len(t.Params))
	for i, p := range t.Params {
		ts[i] = p.T
	}
	return ts
}
