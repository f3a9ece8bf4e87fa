package train

import (
	"context"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train/data"
	"gopeft/train/metrics"
)

// Part is one part of the data, ready to batch.
type Part struct {
	Lengths []int                                    // tokens of each example
	Collate func(examples []int) (data.Batch, error) // lays examples out; safe for concurrent use
	InTurn  bool                                     // batches are made when they are asked for, not ahead
	Sources []uint16                                 // of each example, the file it is from, where files are weighed; else nil
}

// Measure is what a task makes of one batch. Loss is a sum, to be divided by the weights of all batches that
// it is averaged over.
type Measure struct {
	Loss    bindings.Tensor // scalar
	Correct bindings.Tensor // right predictions, an int64 scalar; none when the task has no accuracy
	Rows    int             // predictions made
	Logits  bindings.Tensor // [rows, labels]; none for a causal language model
}

// Task computes the loss of a batch.
type Task interface {
	Measure(s *bindings.Scope, m model.Model, b data.Batch, in model.Input) Measure
	// Weight is what a batch's loss is the sum over: its rows, its targets, or the weights of its rows' classes.
	Weight(b data.Batch) float64
}

// Input copies a batch to a device.
func Input(s *bindings.Scope, b data.Batch, dev bindings.Device) model.Input {
	rows, width := int64(b.Rows), int64(b.Width)
	put := func(v []int64) bindings.Tensor {
		if v == nil {
			return bindings.Tensor{}
		}
		return s.Int64sOn(dev, v, rows, width)
	}
	in := model.Input{IDs: put(b.IDs), Positions: put(b.Positions), Segments: put(b.Segments)}
	in.Host = model.Host{Positions: b.Positions, Segments: b.Segments}
	if b.Tokens < b.Rows*b.Width {
		in.Mask, in.Host.Mask = put(b.Mask), b.Mask
	}
	return in
}

// Classification is single-label sequence classification by cross-entropy: torch's cross_entropy with weight and
// label_smoothing, whose mean is over the weights of the rows' classes.
type Classification struct {
	EveryPosition bool      // the last block computes every position, not only the one that is read
	Weights       []float32 // of the classes; nil: all 1
	Smoothing     float64   // the share of each target that all classes get
}

// Weight implements Task: the weights of the rows' classes.
func (c Classification) Weight(b data.Batch) float64 {
	if c.Weights == nil {
		return float64(b.Rows)
	}
	sum := 0.0
	for _, label := range b.Labels {
		sum += float64(c.Weights[label])
	}
	return sum
}

// Measure implements Task.
func (c Classification) Measure(s *bindings.Scope, m model.Model, b data.Batch, in model.Input) Measure {
	in.Pooled = !c.EveryPosition
	logits := s.To(m.Classify(s, in, m.Forward(s, in)), bindings.Float)
	labels, weights := s.Int64sOn(logits.Device(), b.Labels, int64(b.Rows)), bindings.Tensor{}
	if c.Weights != nil {
		weights = s.Float32sOn(logits.Device(), c.Weights, int64(len(c.Weights)))
	}
	return Measure{
		Loss:    s.SmoothCrossEntropy(logits, labels, weights, data.IgnoreTarget, c.Smoothing),
		Correct: s.Sum(s.Compare(s.ArgMax(logits, 1), bindings.Equal, labels)),
		Rows:    b.Rows, Logits: logits,
	}
}

// Targets gives each of a head's scores a target of its own, as transformers does by problem_type: numbers, whose squared error
// is the loss, or 1 for a label that is given and 0 for one that is not, by binary cross-entropy. The mean is over rows and
// targets.
type Targets struct {
	Problem       model.Problem // Regression or AnyLabels
	EveryPosition bool          // as in Classification
}

// Measure implements Task.
func (c Targets) Measure(s *bindings.Scope, m model.Model, b data.Batch, in model.Input) Measure {
	in.Pooled = !c.EveryPosition
	logits := s.To(m.Classify(s, in, m.Forward(s, in)), bindings.Float)
	want := s.Float32sOn(logits.Device(), b.Values, int64(b.Rows), int64(len(b.Values)/b.Rows))
	loss := s.SquaredError
	if c.Problem == model.AnyLabels {
		loss = s.BinaryCrossEntropy
	}
	return Measure{Loss: loss(logits, want), Rows: b.Rows, Logits: logits}
}

// Weight implements Task: the targets of a batch.
func (c Targets) Weight(b data.Batch) float64 { return float64(len(b.Values)) }

// Score implements Scorer.
func (c Targets) Score(want, logits [][]float32) []metrics.Figure {
	if c.Problem != model.AnyLabels {
		return metrics.Regression(want, logits)
	}
	labels, chosen := make([][]bool, len(want)), make([][]bool, len(want))
	for i := range want {
		for k, v := range want[i] {
			labels[i] = append(labels[i], v > 0.5)
			chosen[i] = append(chosen[i], logits[i][k] > 0) // a probability above one half
		}
	}
	return metrics.MultiLabel(labels, chosen)
}

// Scorer is a task with scores beside its loss.
type Scorer interface {
	// Score compares the targets of rows with the logits of a head, both [rows][targets].
	Score(want, logits [][]float32) []metrics.Figure
}

// TargetsPart makes a part of tokenized examples with the targets of each.
func TargetsPart(ids [][]int64, values [][]float32, pad int64) *Part {
	lengths := make([]int, len(ids))
	for i, seq := range ids {
		lengths[i] = len(seq)
	}
	return &Part{Lengths: lengths, Collate: func(examples []int) (data.Batch, error) {
		seqs := make([][]int64, len(examples))
		var wanted []float32
		for k, i := range examples {
			seqs[k], wanted = ids[i], append(wanted, values[i]...)
		}
		b, err := data.Collate(seqs, nil, data.CollateOptions{PadID: pad})
		b.Values = wanted
		return b, err
	}}
}

// ClassificationPart makes a part of tokenized examples.
func ClassificationPart(ids [][]int64, labels []int, pad int64) *Part {
	lengths := make([]int, len(ids))
	for i, seq := range ids {
		lengths[i] = len(seq)
	}
	return ReadClassification(lengths, func(i int) ([]int64, int, error) { return ids[i], labels[i], nil }, pad)
}

// ReadClassification makes a part of examples of these lengths that read gives when a batch of them is made; it must be
// safe for concurrent use.
func ReadClassification(lengths []int, read func(i int) (ids []int64, label int, err error), pad int64) *Part {
	return &Part{Lengths: lengths, Collate: func(examples []int) (data.Batch, error) {
		seqs, ys := make([][]int64, len(examples)), make([]int64, len(examples))
		for k, i := range examples {
			ids, label, err := read(i)
			if err != nil {
				return data.Batch{}, err
			}
			seqs[k], ys[k] = ids, int64(label)
		}
		return data.Collate(seqs, ys, data.CollateOptions{PadID: pad})
	}}
}

// Batches collates batches ahead of the training thread, or with InTurn each when it is asked for. One without examples
// is a Batch without rows.
func (p *Part) Batches(ctx context.Context, batches [][]int) func(yield func(data.Batch, error) bool) {
	collate := func(examples []int) (data.Batch, error) {
		if len(examples) == 0 {
			return data.Batch{}, nil
		}
		return p.Collate(examples)
	}
	if p.InTurn {
		return func(yield func(data.Batch, error) bool) {
			for _, examples := range batches {
				b, err := collate(examples)
				if err == nil {
					err = ctx.Err()
				}
				if !yield(b, err) || err != nil {
					return
				}
			}
		}
	}
	return data.Prefetch(ctx, len(batches), 4, 1, func(_ context.Context, i int) (data.Batch, error) {
		return collate(batches[i])
	})
}
