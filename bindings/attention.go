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
	fused := s.onGPU(q) || !q.Device().IsCUDA() && dropout == 0 && q.DType() == Float && k.DType() == Float && v.DType() == Float
	if fused {
		msg := csrc.Attention(s.slot(), q.p, k.p, v.p, nil, dropout, true, scale, q.Size(1) != k.Size(1))
		return s.made("attention", msg, q, k, v)
	}
	return s.In(func(s *Scope) Tensor {
		n := q.Size(2)
		lowest := -1e38
		if q.DType() == Half {
			lowest = -32768 // room for the score it is added to
		}
		later := s.Triu(s.Full([]int64{1, 1, n, n}, lowest, q.DType(), q.Device()), 1)
		return s.attentionComposed(q, k, v, later, scale, dropout)
	})
}
