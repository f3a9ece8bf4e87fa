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

// share is this process's part of each batch: every N-th row, so that all get rows of about the same lengths.
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
	}
	return mine
}

// agree is what the losses of a step are averaged over, on all processes, which also take over what the first one's clock
// asks for. It is an error where the context of any has ended.
func (t *Trainer) agree(ctx context.Context, s *bindings.Scope, group []data.Batch) (weight int, err error) {
	for _, b := range group {
		weight += weightOf(b)
	}
	t.timed = t.Group.First() && t.Due != nil && t.Due()
	if t.Group == nil {
		return weight, ctx.Err()
	}
	sums, err := t.Group.SumInts(s, int64(weight), dist.Vote(ctx.Err() != nil), dist.Vote(t.timed))
	if err != nil {
		return 0, err
	}
	if sums[1] > 0 {
		return 0, context.Canceled
	}
	t.timed = sums[2] > 0
	return int(sums[0]), nil
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
		if group[i].Rows == 0 {
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
	if err := t.Group.Broadcast(ts); err != nil {
		return p, err
	}
	return p, t.TakeFirstWeights()
}

// TakeFirstWeights gives every process the first one's trained weights.
func (t *Trainer) TakeFirstWeights() error { return t.Group.Broadcast(tensorsOf(t)) }

// take makes p the place to go on from.
func (t *Trainer) take(s *bindings.Scope, p Progress) {
	t.At, t.checked = p.Position, p.Checked
	t.Opt.setCounts(s, p.Counts)
	t.Opt.fresh = !p.SGDBegun
}

// state lists the optimizer's and the scaler's tensors.
func (t *Trainer) state() []hf.Named {
	ts := t.Opt.state()
	if t.Scaler != nil {
		ts = append(ts, hf.Named{Name: scalerScale, Tensor: t.Scaler.scale}, hf.Named{Name: scalerSteps, Tensor: t.Scaler.tracker})
	}
	return ts
}

// Same sees that every process has the same weights.
func (t *Trainer) Same(s *bindings.Scope) error { return t.Group.Same(s, "weights", tensorsOf(t)) }

// Close frees what the trainer holds beside the model.
func (t *Trainer) Close() {
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
