package model

import "gopeft/bindings"

// Dense is a linear map with its weights: x·Wᵀ + b for W [out, in] and b [out] or nil.
type Dense struct {
	W, B *Param
}

// Forward implements Linear.
func (d *Dense) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	if q := d.W.quant; q != nil {
		return s.QuantLinear(x, q, d.B.Value())
	}
	return d.with(s, x, func(s *bindings.Scope, w bindings.Tensor) bindings.Tensor { return s.Linear(x, w, d.B.Value()) })
}

// fewRows is up to how many rows a product reads a weight in its own dtype by another kernel, which rounds in another order.
const fewRows = 4

// with is fn of the weight as a product of x reads it. A frozen one that is streamed has no copy in autocast's dtype: where
// results depend on there being one, it is cast for this product alone.
func (d *Dense) with(s *bindings.Scope, x bindings.Tensor, fn func(s *bindings.Scope, w bindings.Tensor) bindings.Tensor) bindings.Tensor {
	w := d.W.Value()
	if !d.W.stays || d.W.Trainable {
		return fn(s, w)
	}
	to, on := s.AutocastDType(x.Device())
	if !on || w.DType() == to || w.DType() == bindings.Float && x.Numel() > fewRows*x.Size(-1) {
		return fn(s, w)
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor { return fn(s, s.To(w, to)) })
}

// ForwardLowRank is Forward with the update scale·up·a of the weight, for a [rank, in] and up [out, rank], which is
// computed in their dtype.
func (d *Dense) ForwardLowRank(s *bindings.Scope, x, a, up bindings.Tensor, scale float64) bindings.Tensor {
	if d.W.quant == nil {
		return d.with(s, x, func(s *bindings.Scope, w bindings.Tensor) bindings.Tensor {
			return s.LinearLowRank(x, w, d.B.Value(), a, up, scale)
		})
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		return s.AddLowRank(d.Forward(s, x), s.Linear(s.To(x, a.DType()), a, bindings.Tensor{}), up, scale)
	})
}

// ForwardGELU applies the map to gelu(x), which the backward pass computes again.
func (d *Dense) ForwardGELU(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	if q := d.W.quant; q != nil {
		return s.QuantGELULinear(x, q, d.B.Value())
	}
	return d.with(s, x, func(s *bindings.Scope, w bindings.Tensor) bindings.Tensor { return s.GELULinear(x, w, d.B.Value()) })
}

// ForwardSwiGLU applies the map to silu(gate)·up, which the backward pass computes again.
func (d *Dense) ForwardSwiGLU(s *bindings.Scope, gate, up bindings.Tensor) bindings.Tensor {
	if q := d.W.quant; q != nil {
		return s.QuantSwiGLULinear(gate, up, q, d.B.Value())
	}
	return d.with(s, gate, func(s *bindings.Scope, w bindings.Tensor) bindings.Tensor {
		return s.SwiGLULinear(gate, up, w, d.B.Value())
	})
}

// Out is the width of what the map gives.
func (d *Dense) Out() int64 { return d.W.T.Size(0) }

// gelu applies down, a block's own map or a wrapper on it, to gelu(x). It may write over x.
func gelu(s *bindings.Scope, down Linear, x bindings.Tensor) bindings.Tensor {
	if own, bare := down.(*Dense); bare {
		return own.ForwardGELU(s, x)
	}
	return down.Forward(s, s.GELUOver(x))
}

// swiGLU applies down, a block's own map or a wrapper on it, to silu(gate)·up. It may write over gate and frees up.
func swiGLU(s *bindings.Scope, down Linear, gate, up bindings.Tensor) bindings.Tensor {
	if own, bare := down.(*Dense); bare {
		return own.ForwardSwiGLU(s, gate, up)
	}
	x := s.SwiGLUOver(gate, up)
	s.Free(up)
	return down.Forward(s, x)
}

// geGLU applies down to gelu(gate)·up, gelu in its tanh form.
func geGLU(s *bindings.Scope, down Linear, gate, up bindings.Tensor) bindings.Tensor {
	return down.Forward(s, s.Mul(s.GELUTanh(gate), up))
}

// layerNorm is layer normalisation (Ba et al. 2016) over the last dimension.
type layerNorm struct {
	w, b *Param
	eps  float64
}

func (n layerNorm) forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.LayerNorm(x, n.w.Value(), n.b.Value(), n.eps)
}

// afterAdd normalises x plus h, which is dropped out at rate p first.
func (n layerNorm) afterAdd(s *bindings.Scope, h, x bindings.Tensor, p float64) bindings.Tensor {
	return s.AddLayerNorm(h, x, n.w.Value(), n.b.Value(), n.eps, p)
}

// rmsNorm is root mean square normalisation (Zhang and Sennrich 2019) over the last dimension; the zero value is none.
type rmsNorm struct {
	w      *Param
	eps    float64
	offset bool // it scales by 1 + w
}

func (n rmsNorm) forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	switch {
	case n.w == nil:
		return x
	case n.offset:
		return s.In(func(s *bindings.Scope) bindings.Tensor {
			return s.To(s.RMSNorm(x, s.AddScalar(s.To(n.w.Value(), bindings.Float), 1), n.eps), x.DType())
		})
	}
	return s.RMSNorm(x, n.w.Value(), n.eps)
}

// heads splits [B, S, n·D] into [B, n, S, D], normalised head by head, or all heads as one where the norm is as wide.
func (n rmsNorm) heads(s *bindings.Scope, x bindings.Tensor, count int) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		if n.w == nil || n.w.T.Size(0) == x.Size(-1) {
			return heads(s, n.forward(s, x), count)
		}
		b, l := x.Size(0), x.Size(1)
		return s.Transpose(n.forward(s, s.Reshape(x, b, l, int64(count), -1)), 1, 2)
	})
}

func dropout(s *bindings.Scope, x bindings.Tensor, p float64, train bool) bindings.Tensor {
	if !train {
		return x
	}
	return s.Dropout(x, p)
}

func rate(p float64, train bool) float64 {
	if train {
		return p
	}
	return 0
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

// through runs h through n blocks, whose weights are at hand then. What goes into each is kept where in asks for states,
// and freed where not.
func (b *base) through(s *bindings.Scope, in Input, h bindings.Tensor, n int, block func(i int, h bindings.Tensor) bindings.Tensor) bindings.Tensor {
	b.frozen.begin(s, in.HiddenOnly)
	for i := range n {
		keepState(in, h)
		b.frozen.reach(s, i, h)
		next := block(i, h)
		if in.States == nil {
			s.Free(h)
		}
		h = next
	}
	b.frozen.reach(s, n, h)
	return h
}

// keepState adds h to the states that in asks for, if any.
func keepState(in Input, h bindings.Tensor) {
	if in.States != nil {
		*in.States = append(*in.States, h)
	}
}

// lastState is the hidden state [B, hidden] that a decoder's classifier reads: of every row's last real token, whichever
// side is padded, unless pool says another. Without a mask that is the last position.
func lastState(s *bindings.Scope, pool Pool, mask bindings.Tensor, out Output) bindings.Tensor {
	h := out.Hidden
	if pool == FirstPosition {
		return s.Select(h, 1, 0)
	}
	if !mask.Defined() || pool == LastPosition {
		return s.Select(h, 1, h.Size(1)-1)
	}
	places := s.Arange(1, mask.Size(1)+1, bindings.Int64, h.Device())
	last := s.ArgMax(s.Mul(places, s.To(mask, bindings.Int64)), 1)
	index := s.To(s.AddScalar(s.Reshape(last, -1, 1, 1), float64(out.Virtual)), bindings.Int64)
	index = s.Expand(index, -1, 1, h.Size(2))
	return s.Squeeze(s.Gather(h, 1, index), 1)
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

// spread repeats keys or values [B, Hkv, S, D] that heads share for each of n heads: [B, n, S, D].
func spread(s *bindings.Scope, x bindings.Tensor, n int) bindings.Tensor {
	shape := x.Shape()
	group := int64(n) / shape[1]
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		copies := s.Expand(s.Unsqueeze(x, 2), -1, -1, group, -1, -1)
		return s.Reshape(copies, shape[0], int64(n), shape[2], shape[3])
	})
}
