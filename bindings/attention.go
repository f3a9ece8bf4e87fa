package bindings

import (
	"math"

	"gopeft/bindings/csrc"
)

// CausalAttention is Attention where query i sees the keys 0 to i only, for as many keys as queries. A mask is made
// only where neither our own kernel nor libtorch's serves.
func (s *Scope) CausalAttention(q, k, v Tensor, scale, dropout float64) Tensor {
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(q.Size(-1)))
	}
	if s.fusedAttention(q, k, v, Tensor{}, dropout) {
		msg := csrc.FusedAttention(s.slot(), q.p, k.p, v.p, nil, true, scale, dropout)
		return s.made("attention", msg, q, k, v)
	}
	if s.nativeAttention(q, k, v, Tensor{}, dropout) {
		msg := csrc.Attention(s.slot(), q.p, k.p, v.p, nil, dropout, true, scale, q.Size(1) != k.Size(1))
		return s.made("attention", msg, q, k, v)
	}
	return s.In(func(s *Scope) Tensor {
		n := q.Size(2)
		later := s.Triu(s.Full([]int64{1, 1, n, n}, Masked(q.DType()), q.DType(), q.Device()), 1)
		return s.attentionComposed(q, k, v, later, scale, dropout)
	})
}

// Masked is what a bias in dtype d holds where a query must not see a key. It is low enough that the key's weight
// becomes 0. It is finite, so that a row of nothing else does not turn into NaN, and stays finite when a score is added
// or a kernel multiplies it by log₂e. transformers takes the dtype's lowest value, which gives the same weights.
func Masked(d DType) float64 {
	if d == Half {
		return -32768
	}
	return -1e38
}

// nativeAttention reports whether libtorch's own kernel is to be used. On a GPU it is, as it keeps no scores in memory,
// unless the bias has another dtype than q, which gave NaN. On the CPU it is where it is faster than attentionComposed.
func (s *Scope) nativeAttention(q, k, v, bias Tensor, dropout float64) bool {
	if q.Device().IsCUDA() {
		return s.onGPU(q) && (!bias.Defined() || bias.DType() == q.DType())
	}
	return dropout == 0 && q.DType() == Float && k.DType() == Float && v.DType() == Float
}
