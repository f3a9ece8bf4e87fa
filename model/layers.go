package model

import "gopeft/bindings"

// Dense is a linear map with its weights: x·Wᵀ + b for W [out, in] and b [out] or nil.
type Dense struct {
	W, B *Param
}

// Forward implements Linear.
func (d *Dense) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.Linear(x, d.W.Value(), d.B.Value())
}

// Out is the width of what the map gives.
func (d *Dense) Out() int64 { return d.W.T.Size(0) }

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

// transform applies a point's transforms in order; join is as in Transform.
func transform(s *bindings.Scope, ts []Transform, h bindings.Tensor, join func(*bindings.Scope, bindings.Tensor) bindings.Tensor) bindings.Tensor {
	for _, t := range ts {
		h = t.Apply(s, h, join)
	}
	return h
}

// withPrompt puts a prompt before the embeddings e [B, S, d].
func withPrompt(s *bindings.Scope, p Prompt, e bindings.Tensor) bindings.Tensor {
	if p == nil {
		return e
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		v := s.Expand(s.Unsqueeze(s.To(p.Vectors(s), e.DType()), 0), e.Size(0), -1, -1)
		return s.Cat(1, v, e)
	})
}

// extendMask puts n ones before a padding mask [B, S]; none stays none.
func extendMask(s *bindings.Scope, mask bindings.Tensor, n int) bindings.Tensor {
	if !mask.Defined() || n == 0 {
		return mask
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		ones := s.Full([]int64{mask.Size(0), int64(n)}, 1, mask.DType(), mask.Device())
		return s.Cat(1, ones, mask)
	})
}

// checkpointed is fn(inputs), computed again in the backward pass instead of kept when in asks for that. inputs
// are what fn reads that the forward pass's scopes own.
func checkpointed(s *bindings.Scope, in Input, inputs []bindings.Tensor, fn func(*bindings.Scope, []bindings.Tensor) bindings.Tensor) bindings.Tensor {
	if !in.CheckpointActivations || in.Cache != nil {
		return fn(s, inputs)
	}
	return s.Checkpoint(inputs, fn)
}

// computeDType is the dtype that matrix products of x come in: autocast's, else x's own.
func computeDType(s *bindings.Scope, x bindings.Tensor) bindings.DType {
	if d, on := s.AutocastDType(x.Device()); on {
		return d
	}
	return x.DType()
}
