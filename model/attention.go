package model

import (
	"math"
	"slices"

	"gopeft/bindings"
)

// attention is what one block's attention reads besides its queries, keys and values.
type attention struct {
	sight
	memory  []bindings.Tensor // keys and values of the block's memories in turn
	cache   *Cache            // earlier tokens, nil: none
	index   int               // the block's, in the cache
	dropout float64
	keyNorm rmsNorm // that keys went through; none where its w is nil
	scale   float64 // of the scores; 0: 1/√head width
	cap     float64 // that scores are bent to below; 0: none
}

// step runs a decoder's block b, of a window, on what it reads of the forward pass: fn is given those tensors as they are
// at hand then, and a with what it sees and remembers. Activations are kept or, when in asks so, recomputed in the
// backward pass.
func (a attention) step(s *bindings.Scope, in Input, b *Block, l *layout, window int, reads []bindings.Tensor,
	fn func(s *bindings.Scope, reads []bindings.Tensor, a attention) bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		var memory []bindings.Tensor
		if in.Cache == nil || in.Cache.tokens == 0 {
			memory = memories(s, b.Memory)
		}
		a.cache = in.Cache
		a.sight = l.sees(in.Cache.extra(a.index, memory), window, a.cap > 0)
		n := len(reads)
		kept := append(slices.Clone(reads), a.bias, a.by.Starts, a.by.Ends)
		return checkpointed(s, in, append(kept, memory...), func(s *bindings.Scope, ts []bindings.Tensor) bindings.Tensor {
			a := a
			a.bias, a.by.Starts, a.by.Ends, a.memory = ts[n], ts[n+1], ts[n+2], ts[n+3:]
			return fn(s, ts[:n], a)
		})
	})
}

// apply attends from queries [B, H, S, D] to keys and values [B, Hkv, S, D] with b's memories and branches, and applies
// b's output map to the heads.
func (a attention) apply(s *bindings.Scope, b *Block, q, k, v bindings.Tensor) bindings.Tensor {
	n := int(k.Size(1))
	if a.cache != nil {
		k, v = a.cache.add(s, a.index, a.memory, k, v)
	} else {
		k, v = remember(s, a.memory, k, v)
	}
	var o bindings.Tensor
	switch {
	case a.cap > 0:
		o = a.capped(s, q, k, v)
	case a.causal:
		o = s.CausalAttention(q, k, v, a.by, a.scale, a.dropout)
	case q.Size(2) == 1 && q.Size(1) != k.Size(1):
		// One query per row: the heads that share a K/V head become its rows, and K and V stay as they are.
		rows := s.Reshape(q, q.Size(0), int64(n), -1, q.Size(3))
		o = s.Reshape(s.Attention(rows, k, v, biasFor(s, a.bias, q), a.scale, a.dropout), q.Shape()...)
	default:
		o = s.Attention(q, k, v, biasFor(s, a.bias, q), a.scale, a.dropout)
	}
	for i, branch := range b.Branch {
		project := func(p bindings.Tensor) (bindings.Tensor, bindings.Tensor) {
			return a.keyNorm.heads(s, own(s, b, K, p), n), heads(s, own(s, b, V, p), n)
		}
		if a.cache != nil {
			project = a.cache.projected(s, a.index, i, project)
		}
		o = s.Add(o, branch.Attend(s, q, project))
	}
	return b.Linear(O).Forward(s, joinHeads(s, o))
}

// capped is attention with scores that are bent to below a limit before the mask is added (Gemma 2).
func (a attention) capped(s *bindings.Scope, q, k, v bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		n := int(q.Size(1))
		k, v = spread(s, k, n), spread(s, v, n)
		scale := a.scale
		if scale == 0 {
			scale = 1 / math.Sqrt(float64(q.Size(-1)))
		}
		scores := softCap(s, s.MulScalar(s.MatMul(q, s.Transpose(k, 2, 3)), scale), a.cap)
		if a.bias.Defined() {
			scores = s.Add(scores, biasFor(s, a.bias, q))
		}
		p := s.To(s.Softmax(s.To(scores, bindings.Float), -1), q.DType())
		return s.MatMul(s.Dropout(p, a.dropout), v)
	})
}

// own applies the block's own map of a slot, unwrapped.
func own(s *bindings.Scope, b *Block, slot Slot, x bindings.Tensor) bindings.Tensor {
	m, _ := b.Module(slot)
	return m.Dense.Forward(s, x)
}

// mappedHeads applies what a slot computes now to x [B, S, in] and splits heads: [B, n, S, D].
func mappedHeads(s *bindings.Scope, b *Block, slot Slot, x bindings.Tensor, n int) bindings.Tensor {
	return heads(s, b.Linear(slot).Forward(s, x), n)
}

// heads splits [B, S, n·D] into [B, n, S, D].
func heads(s *bindings.Scope, x bindings.Tensor, n int) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		b, l := x.Size(0), x.Size(1)
		return s.Transpose(s.Reshape(x, b, l, int64(n), -1), 1, 2)
	})
}

// joinHeads is the inverse of heads.
func joinHeads(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		b, l := x.Size(0), x.Size(2)
		return s.Reshape(s.Transpose(x, 1, 2), b, l, -1)
	})
}

// memories asks a block's memories for their keys and values: k, v, k, v, …
func memories(s *bindings.Scope, ms []Memory) []bindings.Tensor {
	var kv []bindings.Tensor
	for _, m := range ms {
		k, v := m.KV(s)
		kv = append(kv, k, v)
	}
	return kv
}

// memoryLen is the number of positions that memories returned.
func memoryLen(kv []bindings.Tensor) int64 {
	n := int64(0)
	for i := 0; i < len(kv); i += 2 {
		n += kv[i].Size(2)
	}
	return n
}

// remember puts a block's memories before its own keys and values.
func remember(s *bindings.Scope, kv []bindings.Tensor, k, v bindings.Tensor) (bindings.Tensor, bindings.Tensor) {
	for i := 0; i < len(kv); i += 2 {
		k = s.Cat(2, batchOf(s, kv[i], k), k)
		v = s.Cat(2, batchOf(s, kv[i+1], v), v)
	}
	return k, v
}

// batchOf repeats p [1, …] over like's batch, in like's dtype.
func batchOf(s *bindings.Scope, p, like bindings.Tensor) bindings.Tensor {
	p = s.To(p, like.DType())
	if p.Size(0) == like.Size(0) {
		return p
	}
	return s.Expand(p, like.Size(0), -1, -1, -1)
}

// padding turns a batch's padding mask into additive attention biases, each made once per forward pass.
type padding struct {
	scope *bindings.Scope // of the forward pass
	mask  bindings.Tensor // [B, S], or none
	made  []madeBias
}

type madeBias struct {
	extra int64
	dtype bindings.DType
	bias  bindings.Tensor
}

// bias is [B, 1, 1, extra+S] in dtype d: 0 where a key may be attended to, masked elsewhere; the extra keys
// in front always may. It is none when nothing is padded.
func (p *padding) bias(extra int64, d bindings.DType) bindings.Tensor {
	if !p.mask.Defined() {
		return bindings.Tensor{}
	}
	for _, m := range p.made {
		if m.extra == extra && m.dtype == d {
			return m.bias
		}
	}
	b := p.scope.In(func(s *bindings.Scope) bindings.Tensor {
		mask := extendMask(s, p.mask, int(extra))
		shape := []int64{mask.Size(0), 1, 1, mask.Size(1)}
		forbidden := s.CompareScalar(s.Reshape(mask, shape...), bindings.Equal, 0)
		return s.MaskedFill(s.Zeros(shape, d, mask.Device()), forbidden, bindings.Masked(d))
	})
	p.made = append(p.made, madeBias{extra, d, b})
	return b
}

// biasFor is bias in q's dtype, none if it is none.
func biasFor(s *bindings.Scope, bias, q bindings.Tensor) bindings.Tensor {
	if !bias.Defined() {
		return bias
	}
	return s.To(bias, q.DType())
}
