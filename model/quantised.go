package model

import (
	"fmt"
	"slices"

	"gopeft/bindings"
	"gopeft/model/hf"
)

// A frozen matrix may be held in 4 to 8 bits a weight. Its Param's T is then a placeholder, which has the shape and fails
// when it is computed with; what follows is all that computes with such a matrix.

// Quantised reports whether the weight is held in fewer than 16 bits.
func (p *Param) Quantised() bool { return p != nil && p.quant != nil }

// Device is where the weight is.
func (p *Param) Device() bindings.Device {
	if p.quant != nil {
		return p.quant.Codes.Device()
	}
	return p.T.Device()
}

// Bytes is the memory that the weight takes, or the part of its file.
func (p *Param) Bytes() int64 {
	if p.quant != nil {
		return p.quant.Bytes()
	}
	return p.T.Bytes()
}

// Stored is the weight as it is stored, in dtype d; one that is held so is not copied.
func (p *Param) Stored(s *bindings.Scope, d bindings.DType) bindings.Tensor {
	if p.quant != nil {
		return s.Dequantise(p.quant, d)
	}
	return s.To(s.Detach(p.T), d)
}

// Rows are the rows of a matrix that ids name, as Embedding gives them, in dtype d.
func (p *Param) Rows(s *bindings.Scope, ids bindings.Tensor, d bindings.DType) bindings.Tensor {
	if p.quant != nil {
		return s.QuantRows(p.quant, ids, d)
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor { return s.To(s.Embedding(p.Value(), ids), d) })
}

// CrossEntropy is the summed LMCrossEntropy of states h and the head p, without targets to be ignored.
func (p *Param) CrossEntropy(s *bindings.Scope, h, targets bindings.Tensor) bindings.Tensor {
	if p.quant != nil {
		return s.QuantLMCrossEntropy(h, p.quant, targets, bindings.AllTargets, false, 0)
	}
	return s.LMCrossEntropy(h, p.Value(), targets, bindings.AllTargets, false, 0)
}

// MeanRow is the mean of a matrix' rows [columns] in fp32. Where it takes a copy in fp32 that exists for some rows at a time.
func (p *Param) MeanRow(s *bindings.Scope) bindings.Tensor {
	if p.quant == nil && p.Value().DType() == bindings.Float {
		return s.MeanDim(p.Value(), 0, false)
	}
	const atOnce = 4096
	rows := p.T.Size(0)
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		sum := s.Zeros([]int64{p.T.Size(1)}, bindings.Float, p.Device())
		for from := int64(0); from < rows; from += atOnce {
			_ = s.Run(func(s *bindings.Scope) error {
				ids := s.Arange(from, min(from+atOnce, rows), bindings.Int64, p.Device())
				s.AddInPlace(sum, s.SumDim(p.Rows(s, ids, bindings.Float), 0, false), 1)
				return nil
			})
		}
		return s.MulScalar(sum, 1/float64(rows))
	})
}

// quantised is what a parameter is asked for in: the matrices of the blocks in o's bits, the tables as the file has them.
func (p *Param) quantised(o Options) hf.Quantisation {
	switch {
	case !p.matrix:
		return hf.Plain
	case o.Quantise == hf.Plain || p.linear:
		return o.Quantise
	}
	return hf.Keep
}

// Untrainable says why a weight that is held quantised cannot be trained.
func (p *Param) Untrainable() error {
	return fmt.Errorf("%s is quantised (%s), and a quantised weight cannot be trained: --quantize none holds it in full", p.Name, p.quant.Kind)
}

// Quantised reports whether any weight of m is held quantised.
func Quantised(m Model) bool {
	return slices.ContainsFunc(m.Params().All(), (*Param).Quantised)
}
