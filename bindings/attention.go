package bindings

import (
	"math"

	"gopeft/bindings/csrc"
)

// Sight narrows what queries see in causal attention, beyond which no query sees a key after its own place. The zero
// value narrows nothing.
type Sight struct {
	// Starts [1 or B, Sq] int64, or none, is per query the first key it sees, itself at the latest. The first Lead keys
	// are always seen.
	Starts Tensor
	Lead   int64
	// Ends [texts+1] int32 is, in place of Starts, where texts end that lie one after another in the B·Sq tokens of a
	// batch, beginning with 0: none sees another. Longest has the most tokens.
	Ends    Tensor
	Longest int64
}

// A SightKind is what a kernel takes of a Sight.
type SightKind int

const (
	NoSight   SightKind = iota // a mask is needed
	ByStarts                   // Starts and Lead, and more keys than queries
	ByLengths                  // Ends
)

// Sees says what serves causal attention of the queries, keys and values that are made from hidden states like h in
// dtype d without a mask.
func (s *Scope) Sees(h Tensor, d DType, headDim int) SightKind {
	switch {
	case s.fused(h, Tensor{}, Tensor{}, Tensor{}):
		return ByStarts
	case s.onGPU(h) && (d == Half || d == BFloat16) && headDim%8 == 0 && headDim <= 256:
		if major, _, err := CUDACapability(h.Device()); err == nil && major >= 8 {
			return ByLengths
		}
	}
	return NoSight
}

// CausalAttention is Attention where a query sees the keys up to its own place only, the last query every key, and of
// those what sight leaves. A mask is made only where no kernel serves; Sees tells beforehand.
func (s *Scope) CausalAttention(q, k, v Tensor, sight Sight, scale, dropout float64) Tensor {
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(q.Size(-1)))
	}
	if sight.Ends.Defined() {
		msg := csrc.PackedAttention(s.slot(), q.p, k.p, v.p, sight.Ends.p, sight.Longest, dropout, scale)
		return s.made("attention", msg, q, k, v, sight.Ends)
	}
	if s.fusedAttention(q, k, v, Tensor{}, dropout) {
		msg := csrc.FusedAttention(s.slot(), q.p, k.p, v.p, nil, true, sight.Starts.p, sight.Lead, scale, dropout)
		return s.made("attention", msg, q, k, v, sight.Starts)
	}
	square := q.Size(2) == k.Size(2)
	if square && !sight.Starts.Defined() && s.nativeAttention(q, k, v, Tensor{}, dropout) {
		msg := csrc.Attention(s.slot(), q.p, k.p, v.p, nil, dropout, true, scale, q.Size(1) != k.Size(1))
		return s.made("attention", msg, q, k, v)
	}
	return s.In(func(s *Scope) Tensor {
		return s.attentionComposed(q, k, v, s.sightMask(q, k.Size(2), sight), scale, dropout)
	})
}

// sightMask is the bias [1 or B, 1, Sq, Sk] that hides what a causal query does not see.
func (s *Scope) sightMask(q Tensor, keys int64, sight Sight) Tensor {
	n, dev := q.Size(2), q.Device()
	later := s.Triu(s.Full([]int64{1, 1, n, keys}, Masked(q.DType()), q.DType(), dev), int(1+keys-n))
	if !sight.Starts.Defined() {
		return later
	}
	key := s.Reshape(s.Arange(0, keys, Int64, dev), 1, 1, 1, keys)
	before := s.And(s.Compare(key, Less, s.Reshape(sight.Starts, -1, 1, n, 1)), s.CompareScalar(key, GreaterEqual, float64(sight.Lead)))
	return s.MaskedFill(s.Expand(later, before.Size(0), 1, n, keys), before, Masked(q.DType()))
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
