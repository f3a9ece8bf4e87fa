package bindings

import (
	"unsafe"

	"gopeft/bindings/csrc"
	"gopeft/bindings/csrc/nvrtc"
)

// QuantKind is how the weights of a Quantised lie in its codes.
type QuantKind int

// The kinds: bitsandbytes' three, GGUF's blocks as llama.cpp writes them, and whole numbers with a scale and a zero point
// per group of a row (GPTQ, AWQ, compressed-tensors).
const (
	NF4 QuantKind = iota
	FP4
	Int8Rows
	Q4_0
	Q4_1
	Q5_0
	Q5_1
	Q8_0
	Q4_K
	Q5_K
	Q6_K
	Int4
)

// Quantised is a frozen matrix [Rows, Cols] that is held in 4 to 8 bits a weight and computed with as it lies.
//
//	NF4, FP4   Codes uint8 [(Rows*Cols+1)/2], high nibble first; Scales fp32 [Rows*Cols/Block], or where Nested is set
//	           uint8 that NestedMap fp32 [256] and NestedScales fp32 [one per NestedBlock] and Offset make scales of
//	Int8Rows   Codes int8 [Rows, Cols]; Scales fp32 [Rows]: w = q·scale/127
//	Q4_0…Q6_K  Codes uint8 [Rows, bytes of a row]; nothing else
//	Int4       Codes uint8 [Rows, Cols/2], low nibble first; Scales fp32 and Zeros fp32 [Rows, Cols/Block]: w = (q - zero)·scale
type Quantised struct {
	Kind        QuantKind
	Rows, Cols  int64
	Block       int64 // weights to a scale of NF4, FP4 and Int4
	NestedBlock int64 // scales to a nested scale; 0: scales are fp32
	Offset      float32

	Codes, Scales, Zeros, NestedScales, NestedMap Tensor
}

// Bytes is the memory that the matrix takes.
func (q *Quantised) Bytes() (n int64) {
	for _, t := range q.Tensors() {
		n += t.Bytes()
	}
	return n
}

// Tensors are those that the matrix lies in.
func (q *Quantised) Tensors() (ts []Tensor) {
	for _, t := range []Tensor{q.Codes, q.Scales, q.Zeros, q.NestedScales, q.NestedMap} {
		if t.Defined() {
			ts = append(ts, t)
		}
	}
	return ts
}

// quantArgs is a matrix as csrc's functions take it, in C memory: it is valid until the next call.
func (s *Scope) quantArgs(q *Quantised) (parts []unsafe.Pointer, facts []int64, offset float64) {
	parts = s.pointers([]Tensor{q.Codes, q.Scales, q.Zeros, q.NestedScales, q.NestedMap})
	facts = s.dims([]int64{int64(q.Kind), q.Rows, q.Cols, q.Block, q.NestedBlock})
	return parts, facts, float64(q.Offset)
}

// The ways to make weights, numbered as in csrc's quantised.h.
const (
	quantComposed = iota
	quantPortable
	quantFastest
	quantCompiled
)

// quantWay is the way for a product, or weights, in dtype d.
func (s *Scope) quantWay(q *Quantised, d DType) int {
	switch {
	case s.buf.composed:
		return quantComposed
	case s.compiledOn(q.Codes.Device(), d, nvrtc.Quantised):
		return quantCompiled
	}
	return quantFastest
}

// quantDType is the dtype of x's product with q.
func (s *Scope) quantDType(x Tensor) DType {
	if d, on := s.AutocastDType(x.Device()); on {
		return d
	}
	return x.DType()
}

// Placeholder has a shape and a dtype and no elements: computing with it fails.
func (s *Scope) Placeholder(shape []int64, d DType) Tensor { return s.Empty(shape, d, Nowhere) }

// Quantise rounds a matrix w as bitsandbytes does on the CPU, to NF4, FP4 (blocks of 64) or Int8Rows; with double NF4's
// and FP4's scales are quantised too. NF4 and FP4 want a width that is a multiple of 64. Elements that are not finite
// are an error.
func (s *Scope) Quantise(w Tensor, kind QuantKind, double bool) *Quantised {
	q := &Quantised{Kind: kind, Rows: w.Size(0), Cols: w.Size(1)}
	if kind != Int8Rows {
		q.Block = 64
		if double {
			q.NestedBlock = 256
		}
	}
	var offset float64
	s.check("quantise", csrc.Quantise(s.slot(), &offset, w.p, int(kind), double && kind != Int8Rows), w)
	q.Offset = float32(offset)
	for i, t := range []*Tensor{&q.Codes, &q.Scales, &q.NestedScales, &q.NestedMap} {
		if p := s.buf.out[i]; p != nil {
			*t = s.adopt(p)
		}
	}
	return q
}

// Dequantise is the matrix in dtype d, each weight rounded once from fp32.
func (s *Scope) Dequantise(q *Quantised, d DType) Tensor { return s.dequantise(q, d, s.quantWay(q, d)) }

func (s *Scope) dequantise(q *Quantised, d DType, way int) Tensor {
	parts, facts, offset := s.quantArgs(q)
	return s.made("dequantise", csrc.Dequantise(s.slot(), parts, facts, offset, int(d), way), q.Codes)
}

// QuantLinear is x·wᵀ + b for b [Rows] or none, in x's dtype or autocast's; w gets no gradient, and nothing is kept for
// the backward pass but q. Where our own kernels serve, it equals Linear, to the last bit, with the matrix dequantised to
// the dtype of the product, save for up to four rows of x on CPUs with AVX-512: outside of autograd those are multiplied as
// integers, which errs by 4e-5 of the result's size.
func (s *Scope) QuantLinear(x Tensor, q *Quantised, b Tensor) Tensor {
	fused, way := s.fusedQuant(x, q, b), s.quantWay(q, s.quantDType(x))
	parts, facts, offset := s.quantArgs(q)
	message := csrc.QuantLinear(s.slot(), x.p, parts, facts, offset, b.p, fused, way)
	return s.made("quant_linear", message, x, q.Codes, b)
}

func (s *Scope) fusedQuant(x Tensor, q *Quantised, b Tensor) bool {
	return q.Codes.Device() == CPU && s.fused(x, b, Tensor{}, Tensor{})
}

// QuantGELULinear is GELULinear for a quantised matrix. The activation is not kept for the backward pass, as the matrix
// gets no gradient.
func (s *Scope) QuantGELULinear(x Tensor, q *Quantised, b Tensor) Tensor {
	return s.In(func(s *Scope) Tensor { return s.QuantLinear(s.GELUOver(x), q, b) })
}

// QuantSwiGLULinear is SwiGLULinear for a quantised matrix; it keeps as little as QuantGELULinear.
func (s *Scope) QuantSwiGLULinear(gate, up Tensor, q *Quantised, b Tensor) Tensor {
	return s.In(func(s *Scope) Tensor { return s.QuantLinear(s.SwiGLUOver(gate, up), q, b) })
}

// QuantRows gives the rows of q that ids name, as Embedding does, in dtype d.
func (s *Scope) QuantRows(q *Quantised, ids Tensor, d DType) Tensor {
	return s.quantRows(q, ids, d, s.quantWay(q, d))
}

func (s *Scope) quantRows(q *Quantised, ids Tensor, d DType, way int) Tensor {
	parts, facts, offset := s.quantArgs(q)
	return s.made("quant_rows", csrc.QuantRows(s.slot(), parts, facts, offset, ids.p, int(d), way), q.Codes, ids)
}

// QuantLMCrossEntropy is LMCrossEntropy for a quantised head. The products run in autocast's dtype, else in hidden's.
func (s *Scope) QuantLMCrossEntropy(hidden Tensor, q *Quantised, targets Tensor, ignore int64, mean bool, chunkBytes int64) Tensor {
	return s.lmLoss(hidden, targets, func(s *Scope, h, t Tensor, own bool) Tensor {
		way := s.quantWay(q, s.quantDType(h))
		parts, facts, offset := s.quantArgs(q)
		message := csrc.QuantLMCrossEntropy(s.slot(), h.p, parts, facts, offset, t.p, ignore, mean, lossChunk(chunkBytes), own, way)
		return s.made("quant_lm_cross_entropy", message, h, q.Codes, t)
	})
}

// QuantisedTo is the matrix on a device: q itself where it is there.
func (s *Scope) QuantisedTo(q *Quantised, d Device) *Quantised {
	if q.Codes.Device() == d {
		return q
	}
	moved := *q
	for _, t := range []*Tensor{&moved.Codes, &moved.Scales, &moved.Zeros, &moved.NestedScales, &moved.NestedMap} {
		if t.Defined() {
			*t = s.ToDevice(*t, t.DType(), d)
		}
	}
	return &moved
}

// MoveQuantised hands q's tensors to dst, as MoveTo does.
func (s *Scope) MoveQuantised(dst *Scope, q *Quantised) *Quantised {
	for _, t := range q.Tensors() {
		s.MoveTo(dst, t)
	}
	return q
}

// FreeQuantised frees q's tensors that s owns.
func (s *Scope) FreeQuantised(q *Quantised) {
	for _, t := range q.Tensors() {
		s.Free(t)
	}
}
