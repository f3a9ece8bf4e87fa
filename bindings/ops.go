package bindings

import (
	lib "github.com/sugarme/gotch/libtch"

	"gopeft/bindings/csrc"
)

func (s *Scope) unary(op string, f func(*lib.Ctensor, lib.Ctensor), a Tensor) Tensor {
	f(s.prep(), lib.Ctensor(a.p))
	return s.take(op, a)
}

func (s *Scope) binary(op string, f func(*lib.Ctensor, lib.Ctensor, lib.Ctensor), a, b Tensor) Tensor {
	f(s.prep(), lib.Ctensor(a.p), lib.Ctensor(b.p))
	return s.take(op, a, b)
}

func cint(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// noDType tells gotch to keep an operation's natural dtype.
const noDType = -1

// Element-wise operations broadcast as in libtorch.

// Add is a + b.
func (s *Scope) Add(a, b Tensor) Tensor { return s.binary("add", lib.AtgAdd, a, b) }

// Sub is a - b.
func (s *Scope) Sub(a, b Tensor) Tensor { return s.binary("sub", lib.AtgSub, a, b) }

// Mul is a · b.
func (s *Scope) Mul(a, b Tensor) Tensor { return s.binary("mul", lib.AtgMul, a, b) }

// Div is a / b.
func (s *Scope) Div(a, b Tensor) Tensor { return s.binary("div", lib.AtgDiv, a, b) }

// Maximum is the larger of a and b.
func (s *Scope) Maximum(a, b Tensor) Tensor { return s.binary("maximum", lib.AtgMaximum, a, b) }

// And is the logical and of a and b.
func (s *Scope) And(a, b Tensor) Tensor { return s.binary("logical_and", lib.AtgLogicalAnd, a, b) }

// Not is the logical complement of a.
func (s *Scope) Not(a Tensor) Tensor { return s.unary("logical_not", lib.AtgLogicalNot, a) }

// Neg is -a.
func (s *Scope) Neg(a Tensor) Tensor { return s.unary("neg", lib.AtgNeg, a) }

// Exp is e^a.
func (s *Scope) Exp(a Tensor) Tensor { return s.unary("exp", lib.AtgExp, a) }

// Log is the natural logarithm.
func (s *Scope) Log(a Tensor) Tensor { return s.unary("log", lib.AtgLog, a) }

// Abs is |a|.
func (s *Scope) Abs(a Tensor) Tensor { return s.unary("abs", lib.AtgAbs, a) }

// Sqrt is the square root.
func (s *Scope) Sqrt(a Tensor) Tensor { return s.unary("sqrt", lib.AtgSqrt, a) }

// Rsqrt is 1/√a.
func (s *Scope) Rsqrt(a Tensor) Tensor { return s.unary("rsqrt", lib.AtgRsqrt, a) }

// Reciprocal is 1/a.
func (s *Scope) Reciprocal(a Tensor) Tensor { return s.unary("reciprocal", lib.AtgReciprocal, a) }

// Cos is the cosine.
func (s *Scope) Cos(a Tensor) Tensor { return s.unary("cos", lib.AtgCos, a) }

// Sin is the sine.
func (s *Scope) Sin(a Tensor) Tensor { return s.unary("sin", lib.AtgSin, a) }

// Tanh is the hyperbolic tangent.
func (s *Scope) Tanh(a Tensor) Tensor { return s.unary("tanh", lib.AtgTanh, a) }

// ReLU is max(a, 0).
func (s *Scope) ReLU(a Tensor) Tensor { return s.unary("relu", lib.AtgRelu, a) }

// SiLU is a·sigmoid(a), also called swish.
func (s *Scope) SiLU(a Tensor) Tensor { return s.unary("silu", lib.AtgSilu, a) }

// AddScalar is a + v.
func (s *Scope) AddScalar(a Tensor, v float64) Tensor {
	return s.made("add", csrc.AddScalar(s.slot(), a.p, v), a)
}

// MulScalar is a · v.
func (s *Scope) MulScalar(a Tensor, v float64) Tensor {
	return s.made("mul", csrc.MulScalar(s.slot(), a.p, v), a)
}

// MaskedFill is a with v where the boolean mask is true.
func (s *Scope) MaskedFill(a, mask Tensor, v float64) Tensor {
	return s.made("masked_fill", csrc.MaskedFill(s.slot(), a.p, mask.p, v), a, mask)
}

// Comparison names an element-wise comparison.
type Comparison int

// The comparisons.
const (
	Less Comparison = iota
	LessEqual
	Equal
	NotEqual
	GreaterEqual
	Greater
)

// Compare is the boolean result of comparing a with b.
func (s *Scope) Compare(a Tensor, op Comparison, b Tensor) Tensor {
	return s.made("compare", csrc.Compare(s.slot(), a.p, int(op), b.p), a, b)
}

// CompareScalar is the boolean result of comparing a with v.
func (s *Scope) CompareScalar(a Tensor, op Comparison, v float64) Tensor {
	return s.made("compare", csrc.CompareScalar(s.slot(), a.p, int(op), v), a)
}

// MatMul is the matrix product over the last two dimensions, with broadcast batch dimensions.
func (s *Scope) MatMul(a, b Tensor) Tensor { return s.binary("matmul", lib.AtgMatmul, a, b) }

// Sum adds all elements.
func (s *Scope) Sum(a Tensor) Tensor {
	lib.AtgSum(s.prep(), lib.Ctensor(a.p), noDType)
	return s.take("sum", a)
}

// SumDim adds over one dimension.
func (s *Scope) SumDim(a Tensor, dim int, keep bool) Tensor {
	d := s.dims([]int64{int64(dim)})
	lib.AtgSumDimIntlist(s.prep(), lib.Ctensor(a.p), d, len(d), cint(keep), noDType)
	return s.take("sum", a)
}

// Mean averages all elements.
func (s *Scope) Mean(a Tensor) Tensor {
	lib.AtgMean(s.prep(), lib.Ctensor(a.p), noDType)
	return s.take("mean", a)
}

// MeanDim averages over one dimension.
func (s *Scope) MeanDim(a Tensor, dim int, keep bool) Tensor {
	d := s.dims([]int64{int64(dim)})
	lib.AtgMeanDim(s.prep(), lib.Ctensor(a.p), d, len(d), cint(keep), noDType)
	return s.take("mean", a)
}

// MaxAll is the largest element.
func (s *Scope) MaxAll(a Tensor) Tensor { return s.unary("max", lib.AtgMax, a) }

// ArgMax is the index of the largest element along dim.
func (s *Scope) ArgMax(a Tensor, dim int) Tensor {
	lib.AtgArgmax(s.prep(), lib.Ctensor(a.p), int64(dim), 0, 0)
	return s.take("argmax", a)
}

// CumSum adds up along dim: each element and those before it, whole numbers as int64.
func (s *Scope) CumSum(a Tensor, dim int) Tensor {
	lib.AtgCumsum(s.prep(), lib.Ctensor(a.p), int64(dim), noDType)
	return s.take("cumsum", a)
}

// Softmax is e^a normalised along dim.
func (s *Scope) Softmax(a Tensor, dim int) Tensor {
	lib.AtgSoftmax(s.prep(), lib.Ctensor(a.p), int64(dim), noDType)
	return s.take("softmax", a)
}

// SoftmaxFloat is Softmax computed and returned in float32.
func (s *Scope) SoftmaxFloat(a Tensor, dim int) Tensor {
	lib.AtgSoftmax(s.prep(), lib.Ctensor(a.p), int64(dim), int32(Float))
	return s.take("softmax", a)
}

// Sort orders a along dim and returns values and indices.
func (s *Scope) Sort(a Tensor, dim int, descending bool) (values, indices Tensor) {
	s.buf.out[0], s.buf.out[1] = nil, nil
	lib.AtgSort(s.prep(), lib.Ctensor(a.p), int64(dim), cint(descending))
	second := s.buf.out[1]
	values = s.take("sort", a)
	return values, s.adopt(second)
}

// TopK is the k largest elements along dim, largest first, and their indices.
func (s *Scope) TopK(a Tensor, k, dim int) (values, indices Tensor) {
	s.buf.out[1] = nil
	lib.AtgTopk(s.prep(), lib.Ctensor(a.p), int64(k), int64(dim), 1, 1)
	second := s.buf.out[1]
	values = s.take("topk", a)
	return values, s.adopt(second)
}
