package train

import (
	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train/data"
)

// Causal is next-token prediction: cross-entropy over the tokens that have a target, without ever holding
// the logits of a whole batch unless it is told to.
type Causal struct {
	WholeLogits bool    // the logits of all targets exist at once
	Smoothing   float64 // the share of each target that all tokens get: of torch's label_smoothing, as of transformers' LabelSmoother
}

// Measure implements Task. The language model's head runs only where there is a target.
func (c Causal) Measure(s *bindings.Scope, m model.Model, b data.Batch, in model.Input) Measure {
	out := m.Forward(s, in)
	loss, _ := c.Loss(s, m.(model.CausalLM), out, b, 0, b.Rows)
	return Measure{Loss: loss}
}

// Loss is the sum over the targets of some rows of a batch, and their number.
func (c Causal) Loss(s *bindings.Scope, m model.CausalLM, out model.Output, b data.Batch, from, to int) (bindings.Tensor, int) {
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
		return c.logitsLoss(s, m, h, want), int(n)
	case m.Hooks().Unembed != nil || !m.BareLogits() || !sameProduct(s, h, m.LMHead()): // a method's map stands in for the head, or it is held in fewer bits
		return c.mappedLoss(s, m, h, want), int(n)
	}
	loss := m.LMHead().CrossEntropy(s, h, want)
	if c.Smoothing > 0 {
		loss = c.smoothed(s, m.LMHead(), h, want, loss)
	}
	return loss, int(n)
}

// smoothed is the loss of states h [n, hidden] and targets want [n] with a share of each target given to all tokens. That
// changes it by this share of how far the target's logit lies above the mean of all; and since logits are products with
// the head's rows, their mean is the product with its mean row: none of them has to exist.
func (c Causal) smoothed(s *bindings.Scope, head *model.Param, h, want, loss bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		rows := s.Sub(head.Rows(s, want, bindings.Float), head.MeanRow(s))
		return s.Add(loss, s.MulScalar(s.Sum(s.Mul(s.To(h, bindings.Float), rows)), c.Smoothing))
	})
}

// sameProduct reports whether states h and the head are multiplied in a dtype that the head has, or is cast to.
func sameProduct(s *bindings.Scope, h bindings.Tensor, head *model.Param) bool {
	_, autocast := s.AutocastDType(h.Device())
	return autocast || head.Quantised() || h.DType() == head.Value().DType()
}

// chunkBytes bounds the fp32 logits of mappedLoss that exist at once.
const chunkBytes = 64 << 20

// mappedLoss is the summed cross-entropy of states h [n, hidden] whose logits a method's map computes, for targets
// want [n]. Where the logits are many they exist for a chunk of tokens at a time: the backward pass computes each
// chunk's again.
func (c Causal) mappedLoss(s *bindings.Scope, m model.CausalLM, h, want bindings.Tensor) bindings.Tensor {
	n, chunk := h.Size(0), max(1, chunkBytes/(4*int64(m.Info().Vocab)))
	if n <= chunk {
		return c.logitsLoss(s, m, h, want)
	}
	loss := func(s *bindings.Scope, ts []bindings.Tensor) bindings.Tensor { return c.logitsLoss(s, m, ts[0], ts[1]) }
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
func (c Causal) logitsLoss(s *bindings.Scope, m model.CausalLM, h, want bindings.Tensor) bindings.Tensor {
	return s.SmoothCrossEntropy(m.Logits(s, h), want, bindings.Tensor{}, data.IgnoreTarget, c.Smoothing)
}

// Weight implements Task: the targets of a batch.
func (c Causal) Weight(b data.Batch) float64 { return float64(b.NumTargets) }

// CausalPart makes a part of token sequences; with packTo above 0 they are packed into rows of that width.
func CausalPart(seqs []data.Sequence, pad int64, packTo int) (*Part, error) {
	lengths := make([]int, len(seqs))
	for i, s := range seqs {
		lengths[i] = len(s.IDs)
	}
	return ReadCausal(lengths, nil, func(i int) (data.Sequence, error) { return seqs[i], nil }, pad, packTo)
}

// ReadCausal makes a part of sequences of these lengths that read gives when a batch of them is made; it must be safe for
// concurrent use. With packTo above 0 they are packed into rows of that width, each of one source where sources tells them.
func ReadCausal(lengths []int, sources []uint16, read func(i int) (data.Sequence, error), pad int64, packTo int) (*Part, error) {
	o := data.CollateOptions{PadID: pad}
	pick := func(indices []int) ([]data.Sequence, error) {
		out := make([]data.Sequence, len(indices))
		for k, i := range indices {
			var err error
			if out[k], err = read(i); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	if packTo == 0 {
		return &Part{Lengths: lengths, Sources: sources, Collate: func(examples []int) (data.Batch, error) {
			seqs, err := pick(examples)
			if err != nil {
				return data.Batch{}, err
			}
			return data.CollateCausal(seqs, o)
		}}, nil
	}
	rows, of, err := packBySource(lengths, sources, packTo)
	if err != nil {
		return nil, err
	}
	p := &Part{Lengths: make([]int, len(rows)), Sources: of}
	for i, row := range rows {
		for _, k := range row {
			p.Lengths[i] += lengths[k]
		}
	}
	p.Collate = func(examples []int) (data.Batch, error) {
		packed := make([][]data.Sequence, len(examples))
		for i, r := range examples {
			var err error
			if packed[i], err = pick(rows[r]); err != nil {
				return data.Batch{}, err
			}
		}
		return data.CollatePacked(packed, o)
	}
	return p, nil
}

// packBySource packs the examples of each source for themselves, and tells each row's. Without sources it packs all.
func packBySource(lengths []int, sources []uint16, width int) (rows [][]int, of []uint16, err error) {
	if sources == nil {
		rows, err = data.Pack(lengths, width)
		return rows, nil, err
	}
	var own [][]int // the examples of each source
	for i, s := range sources {
		for int(s) >= len(own) {
			own = append(own, nil)
		}
		own[s] = append(own[s], i)
	}
	for s, examples := range own {
		short := make([]int, len(examples))
		for k, i := range examples {
			short[k] = lengths[i]
		}
		packed, err := data.Pack(short, width)
		if err != nil {
			return nil, nil, err
		}
		for _, row := range packed {
			for j, k := range row {
				row[j] = examples[k]
			}
			rows, of = append(rows, row), append(of, uint16(s))
		}
	}
	return rows, of, nil
}
