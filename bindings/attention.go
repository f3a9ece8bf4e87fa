package bindings

import (
	"math"

	"gopeft/bindings/csrc"
)

// CausalAttention is Attention where query i sees the keys 0 to i only, for as many keys as queries; no mask is
// made where libtorch's fused kernel serves.
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

// Masked is what a bias in dtype d holds where a key is not to be seen: low enough to vanish in softmax, finite so that
// a row without any open key does not turn into NaN, also where a kernel multiplies it by log₂e; in fp16 with room for
// the score it is added to. transformers takes the dtype's lowest value; every score vanishes beside either.
func Masked(d DType) float64 {
	if d == Half {
		return -32768
	}
	return -1e38
}

// nativeAttention reports whether libtorch's kernel serves: on a GPU, where it copies no scores and a bias of another
// dtype than q's gave NaN; on the CPU where it is faster than its parts.
func (s *Scope) nativeAttention(q, k, v, bias Tensor, dropout float64) bool {
	if q.Device().IsCUDA() {
		return s.onGPU(q) && (!bias.Defined() || bias.DType() == q.DType())
	}
	return dropout == 0 && q.DType() == Float && k.DType() == Float && v.DType() == Float
}
