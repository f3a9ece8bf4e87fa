package bindings

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
//	NF4, FP4   Codes uint8 [Rows*Cols/2], high nibble first; Scales fp32 [Rows*Cols/Block], or where Nested is set
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

const unbuilt = "quantised weights are not built yet"

// Bytes is the memory that the matrix takes.
func (q *Quantised) Bytes() (n int64) {
	for _, t := range q.tensors() {
		n += t.Bytes()
	}
	return n
}

func (q *Quantised) tensors() (ts []Tensor) {
	for _, t := range []Tensor{q.Codes, q.Scales, q.Zeros, q.NestedScales, q.NestedMap} {
		if t.Defined() {
			ts = append(ts, t)
		}
	}
	return ts
}

// Placeholder has a shape and a dtype and no elements: computing with it fails.
func (s *Scope) Placeholder(shape []int64, d DType) Tensor { panic(unbuilt) }

// CheckQuantised refuses a matrix whose parts do not fit each other, or whose scales are not finite.
func (s *Scope) CheckQuantised(q *Quantised) error { panic(unbuilt) }

// Quantise rounds a matrix w as bitsandbytes does, to NF4, FP4 (blocks of 64) or Int8Rows; with double NF4's and FP4's
// scales are quantised too. NF4 and FP4 want a width that is a multiple of 64.
func (s *Scope) Quantise(w Tensor, kind QuantKind, double bool) *Quantised { panic(unbuilt) }

// Dequantise is the matrix in dtype d, each weight rounded once from fp32.
func (s *Scope) Dequantise(q *Quantised, d DType) Tensor { panic(unbuilt) }

// QuantLinear is x·wᵀ + b for b [Rows] or none, in x's dtype or autocast's; w gets no gradient.
func (s *Scope) QuantLinear(x Tensor, q *Quantised, b Tensor) Tensor { panic(unbuilt) }

// QuantRows gives the rows of q that ids name, as Embedding does, in dtype d.
func (s *Scope) QuantRows(q *Quantised, ids Tensor, d DType) Tensor { panic(unbuilt) }

// QuantLMCrossEntropy is LMCrossEntropy for a quantised head.
func (s *Scope) QuantLMCrossEntropy(hidden Tensor, q *Quantised, targets Tensor, ignore int64, mean bool, chunkBytes int64) Tensor {
	panic(unbuilt)
}

// QuantisedTo is the matrix on a device: q itself where it is there.
func (s *Scope) QuantisedTo(q *Quantised, d Device) *Quantised { panic(unbuilt) }

// MoveQuantised hands q's tensors to dst, as MoveTo does.
func (s *Scope) MoveQuantised(dst *Scope, q *Quantised) *Quantised {
	for _, t := range q.tensors() {
		s.MoveTo(dst, t)
	}
	return q
}

// FreeQuantised frees q's tensors that s owns.
func (s *Scope) FreeQuantised(q *Quantised) {
	for _, t := range q.tensors() {
		s.Free(t)
	}
}
