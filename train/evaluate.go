package train

import (
	"context"
	"math"

	"gopeft/bindings"
	"gopeft/model"
)

// Evaluation is a model's score on a part of the data.
type Evaluation struct {
	Loss    float64 // mean over rows, or over target tokens
	Acc     float64 // NaN for tasks without accuracy
	Rows    int
	Weight  int
	Tokens  int
	Logits  [][]float32 // one row per example in the data's order, when asked for
	RowLoss []float64   // of causal data, when asked for: one per example
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
// batch; the result does not depend on it.
func Evaluate(ctx context.Context, s *bindings.Scope, m model.Model, task Task, p *Part, o EvalOptions) (Evaluation, error) {
	batches, err := EvalOrder(p.Lengths, o.Batch, o.MaxTokens, o.On).Epoch(0)
	if err != nil {
		return Evaluation{}, err
	}
	e := Evaluation{Acc: math.NaN()}
	if o.Logits {
		e.Logits = make([][]float32, len(p.Lengths))
	}
	correct, counted, i := 0, 0, 0
	for b, err := range p.Batches(ctx, batches) {
		if err != nil {
			return e, err
		}
		err = s.Run(func(s *bindings.Scope) error {
			var ms Measure
			s.Inference(func() {
				s.Autocast(o.On.Device, o.On.Precision.DType, func() { ms = task.Measure(s, m, b, Input(s, b, o.On.Device)) })
				e.Loss += ms.Loss.Item()
				if ms.Correct.Defined() {
					correct += int(ms.Correct.Item())
					counted += ms.Rows
				}
				if o.Logits && ms.Logits.Defined() {
					values, n := ms.Logits.Float32s(), int(ms.Logits.Size(1))
					for k, example := range batches[i] {
						e.Logits[example] = values[k*n : (k+1)*n]
					}
				}
			})
			e.Weight += weightOf(b)
			return nil
		})
		if err != nil {
			return e, err
		}
		e.Rows += b.Rows
		e.Tokens += b.Tokens
		i++
		if o.Progress != nil {
			o.Progress(e.Rows, len(p.Lengths))
		}
	}
	if err := ctx.Err(); err != nil { // during the last batch
		return e, err
	}
	e.Loss /= math.Max(1, float64(e.Weight))
	if counted > 0 {
		e.Acc = float64(correct) / float64(counted)
	}
	return e, nil
}
