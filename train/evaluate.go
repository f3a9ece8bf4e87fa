package train

import (
	"context"
	"math"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train/data"
	"gopeft/train/metrics"
)

// Evaluation is a model's score on a part of the data.
type Evaluation struct {
	Loss    float64 // mean over rows, or over target tokens
	Acc     float64 // NaN for tasks without accuracy; of several labels the share of rows with all right
	Rows    int
	Weight  int // rows, or target tokens
	Tokens  int
	Logits  [][]float32      // one row per example in the data's order, when asked for
	RowLoss []float64        // of causal data, when asked for: one per example
	Figures []metrics.Figure // of a Scorer
}

// EvalOptions are how Evaluate runs.
type EvalOptions struct {
	Batch     int // rows of a batch
	MaxTokens int // most tokens of a batch, padding included; 0: no bound
	On        Machine
	Logits    bool
	Progress  func(done, total int)
}

// Evaluate scores the model on a part, without gradients and dropout. Examples of similar length share a
// batch; the result does not depend on it. Several processes compute every N-th batch each, and all get the whole result,
// the same to the bit as that of one.
func Evaluate(ctx context.Context, s *bindings.Scope, m model.Model, task Task, p *Part, o EvalOptions) (Evaluation, error) {
	batches, err := EvalOrder(p.Lengths, o.Batch, o.MaxTokens, o.On).Epoch(0)
	if err != nil {
		return Evaluation{}, err
	}
	e := Evaluation{Acc: math.NaN()}
	scorer, scores := task.(Scorer)
	var wanted [][]float32
	if scores {
		wanted = make([][]float32, len(p.Lengths))
	}
	if o.Logits || scores {
		e.Logits = make([][]float32, len(p.Lengths))
	}
	losses := make([]float64, len(batches))
	correct, counted := 0, 0
	err = o.On.EachBatch(ctx, s, p, batches, o.Progress, func(s *bindings.Scope, b data.Batch) func(i int) {
		var ms Measure
		s.Inference(func() {
			s.Autocast(o.On.Device, o.On.Precision.DType, func() { ms = task.Measure(s, m, b, Input(s, b, o.On.Device)) })
		})
		return func(i int) {
			losses[i] = ms.Loss.Item()
			if ms.Correct.Defined() {
				correct += int(ms.Correct.Item())
				counted += ms.Rows
			}
			if e.Logits != nil && ms.Logits.Defined() {
				values, n := ms.Logits.Float32s(), int(ms.Logits.Size(1))
				for k, example := range batches[i] {
					e.Logits[example] = values[k*n : (k+1)*n]
					if scores {
						wanted[example] = b.Values[k*n : (k+1)*n]
					}
				}
			}
			e.Weight += int(task.Weight(b))
			e.Rows += b.Rows
			e.Tokens += b.Tokens
		}
	})
	if err != nil {
		return e, err
	}
	group := o.On.Group
	if losses, err = group.SumFloats(s, losses...); err != nil { // one by one, so that they are added up in one order
		return e, err
	}
	sums, err := group.SumInts(s, int64(e.Weight), int64(e.Rows), int64(e.Tokens), int64(correct), int64(counted))
	if err != nil {
		return e, err
	}
	e.Weight, e.Rows, e.Tokens, correct, counted = int(sums[0]), int(sums[1]), int(sums[2]), int(sums[3]), int(sums[4])
	for _, rows := range [][][]float32{e.Logits, wanted} {
		if rows == nil {
			continue
		}
		if err := group.SumRows(s, rows); err != nil {
			return e, err
		}
	}
	for _, loss := range losses {
		e.Loss += loss
	}
	e.Loss /= math.Max(1, float64(e.Weight))
	if counted > 0 {
		e.Acc = float64(correct) / float64(counted)
	}
	if scores {
		e.Figures = scorer.Score(wanted, e.Logits)
		for _, f := range e.Figures {
			if f.Name == metrics.SubsetAccuracy {
				e.Acc = f.Value
			}
		}
	}
	return e, nil
}

// EachBatch calls fn with the batches that this process computes, each in a scope of its own, and progress with how many
// examples are done on all processes. What fn gives is called with the batch's number to keep what it computed. Where
// processes hold the weights together all make as many passes: what comes of one too many is not kept. It ends with ctx, of
// whichever process.
func (on Machine) EachBatch(ctx context.Context, s *bindings.Scope, p *Part, batches [][]int, progress func(done, total int), fn func(s *bindings.Scope, b data.Batch) (keep func(i int))) (err error) {
	if on.Shard {
		defer func() {
			if p := recover(); p != nil {
				err = on.Group.Rescue(p)
			}
		}()
	}
	turn, done, size := 0, 0, on.Group.Size()
	for b, err := range p.Batches(on.Group.Patient(ctx), on.turns(batches)) {
		if err != nil {
			return err
		}
		i := turn*size + on.Group.Rank()
		if b.Rows > 0 {
			_ = s.Run(func(s *bindings.Scope) error {
				if keep := fn(s, b); i < len(batches) {
					keep(i)
				}
				return nil
			})
		}
		for _, examples := range batches[turn*size : min((turn+1)*size, len(batches))] {
			done += len(examples)
		}
		turn++
		if progress != nil {
			progress(done, len(p.Lengths))
		}
		if stop, err := on.Group.Stopping(ctx, s); err != nil {
			return err
		} else if stop {
			return context.Canceled
		}
	}
	return nil
}

// turns are this process's batches, as many as every process has: where there are no more, one that is empty or, where
// passes are made together, an example that another process has too.
func (on Machine) turns(batches [][]int) [][]int {
	rank, size := on.Group.Rank(), on.Group.Size()
	if size == 1 {
		return batches
	}
	mine := make([][]int, (len(batches)+size-1)/size)
	for turn := range mine {
		switch i := turn*size + rank; {
		case i < len(batches):
			mine[turn] = batches[i]
		case on.Shard:
			mine[turn] = batches[turn*size][:1]
		}
	}
	return mine
}
