package bindings

import (
	"math"

	lib "github.com/sugarme/gotch/libtch"

	"gopeft/bindings/csrc"
	"gopeft/bindings/csrc/nvrtc"
)

// SetFused chooses between the fused kernels, where tensors and CPU allow them (the default), and the same
// operations composed of libtorch's own, which they are tested against. It holds for all scopes until it is set
// again, and returns what it was.
func (s *Scope) SetFused(on bool) (was bool) {
	was, s.buf.composed = !s.buf.composed, !on
	return was
}

// fused reports whether a fused kernel serves these tensors.
func (s *Scope) fused(a, b, c, d Tensor) bool {
	return !s.buf.composed && csrc.Fusable(a.p, b.p, c.p, d.p)
}

// onGPU reports whether t is on a GPU, where operations are written for few kernels: launching each takes time.
func (s *Scope) onGPU(t Tensor) bool { return !s.buf.composed && t.Device().IsCUDA() }

// Linear is x·wᵀ + b for w [out, in] and b [out] or none, in x's dtype or autocast's. w may be held in another dtype:
// it is then read as it lies, or where no kernel does that, cast for the product.
func (s *Scope) Linear(x, w, b Tensor) Tensor {
	if s.fused(x, w, b, Tensor{}) {
		return s.made("linear", csrc.Linear(s.slot(), x.p, w.p, b.p), x, w, b)
	}
	if d := x.DType(); w.DType() != d {
		if _, on := s.AutocastDType(x.Device()); !on { // which casts by itself
			return s.In(func(s *Scope) Tensor {
				if b.Defined() {
					b = s.To(b, d)
				}
				return s.linear(x, s.To(w, d), b)
			})
		}
	}
	return s.linear(x, w, b)
}

// linear is libtorch's own.
func (s *Scope) linear(x, w, b Tensor) Tensor {
	lib.AtgLinear(s.prep(), lib.Ctensor(x.p), lib.Ctensor(w.p), lib.Ctensor(b.p))
	return s.take("linear", x, w, b)
}

// LinearLowRank is x·wᵀ + b + scale·((x·aᵀ)·upᵀ) for w [out, in], b [out] or none, a [rank, in] and up [out, rank]: a
// linear map with a low-rank update, which is computed in a's and up's dtype (or autocast's) and returned in the map's.
func (s *Scope) LinearLowRank(x, w, b, a, up Tensor, scale float64) Tensor {
	if s.fused(x, w, b, a) && s.fused(up, Tensor{}, Tensor{}, Tensor{}) {
		message := csrc.LinearLowRank(s.slot(), x.p, w.p, b.p, a.p, up.p, scale)
		if message != "" || s.buf.out[0] != nil {
			return s.made("linear_low_rank", message, x, w, b, a, up)
		}
	}
	return s.In(func(s *Scope) Tensor {
		h := s.Linear(s.To(x, a.DType()), a, Tensor{})
		return s.AddLowRank(s.Linear(x, w, b), h, up, scale)
	})
}

// The largest rank that a compiled kernel adds: beyond it, libtorch's product, on units for products alone, is expected
// to be worth the memory that the update takes. This was computed, not measured.
const compiledRank = 64

// AddLowRank is y + scale·(h·upᵀ) in y's dtype for y [..., out], h [..., rank] and up [out, rank].
func (s *Scope) AddLowRank(y, h, up Tensor, scale float64) Tensor {
	if up.Size(-1) <= compiledRank && s.compiled(nvrtc.Training, y) {
		return s.made("add_low_rank", csrc.CompiledAddLowRank(s.slot(), y.p, h.p, up.p, scale), y, h, up)
	}
	return s.In(func(s *Scope) Tensor {
		return s.To(s.Add(y, s.MulScalar(s.Linear(h, up, Tensor{}), scale)), y.DType())
	})
}

// Embedding gathers rows of w [n, d] by int64 ids of any shape; an id outside [0, n) is an error.
func (s *Scope) Embedding(w, ids Tensor) Tensor {
	lib.AtgEmbedding(s.prep(), lib.Ctensor(w.p), lib.Ctensor(ids.p), -1, 0, 0)
	return s.take("embedding", w, ids)
}

// LayerNorm normalises the last dimension: (x-mean)/√(var+eps)·w + b.
func (s *Scope) LayerNorm(x, w, b Tensor, eps float64) Tensor {
	if s.fused(x, w, b, Tensor{}) {
		return s.made("layer_norm", csrc.AddLayerNorm(s.slot(), x.p, nil, w.p, b.p, eps, 0), x, w, b)
	}
	d := s.dims([]int64{x.Size(-1)})
	lib.AtgLayerNorm(s.prep(), lib.Ctensor(x.p), d, len(d), lib.Ctensor(w.p), lib.Ctensor(b.p), eps, 0)
	return s.take("layer_norm", x, w, b)
}

// AddLayerNorm is LayerNorm(dropout(x) + residual), the joint of a post-norm sublayer.
func (s *Scope) AddLayerNorm(x, residual, w, b Tensor, eps, dropout float64) Tensor {
	if dropout < 1 && s.fused(x, residual, w, b) {
		return s.made("add_layer_norm", csrc.AddLayerNorm(s.slot(), x.p, residual.p, w.p, b.p, eps, dropout), x, residual, w, b)
	}
	return s.In(func(s *Scope) Tensor {
		return s.LayerNorm(s.Add(s.Dropout(x, dropout), residual), w, b, eps)
	})
}

// RMSNorm is x/√(mean(x²)+eps)·w over the last dimension, normalised in fp32 and returned in x's dtype
// (Zhang & Sennrich 2019, as in LLaMA).
func (s *Scope) RMSNorm(x, w Tensor, eps float64) Tensor {
	if s.fused(x, w, Tensor{}, Tensor{}) {
		return s.made("rms_norm", csrc.RMSNorm(s.slot(), x.p, w.p, eps), x, w)
	}
	if s.compiled(nvrtc.Training, x, w) {
		return s.made("rms_norm", csrc.CompiledRMSNorm(s.slot(), x.p, w.p, eps), x, w)
	}
	if x.DType() == w.DType() && s.onGPU(x) && csrc.HasScaledRMS() {
		return s.made("rms_norm", csrc.ScaledRMS(s.slot(), x.p, w.p, eps), x, w)
	}
	return s.In(func(s *Scope) Tensor {
		d := x.DType()
		h := s.To(x, Float)
		inv := s.Rsqrt(s.AddScalar(s.MeanDim(s.Mul(h, h), -1, true), eps))
		return s.Mul(s.To(s.Mul(h, inv), d), w)
	})
}

// GELU is x·Φ(x), exact.
func (s *Scope) GELU(x Tensor) Tensor { return s.gelu(x, false) }

// GELUOver is GELU of an x that nobody reads again: the result may be written over it, unless autograd needs x.
func (s *Scope) GELUOver(x Tensor) Tensor { return s.gelu(x, true) }

func (s *Scope) gelu(x Tensor, reuse bool) Tensor {
	if s.fused(x, Tensor{}, Tensor{}, Tensor{}) {
		return s.made("gelu", csrc.GELU(s.slot(), x.p, reuse), x)
	}
	lib.AtgGelu(s.prep(), lib.Ctensor(x.p), "none")
	return s.take("gelu", x)
}

// GELUTanh is GELU by its tanh approximation.
func (s *Scope) GELUTanh(x Tensor) Tensor {
	lib.AtgGelu(s.prep(), lib.Ctensor(x.p), "tanh")
	return s.take("gelu", x)
}

// SwiGLU is silu(gate)·up (Shazeer 2020).
func (s *Scope) SwiGLU(gate, up Tensor) Tensor { return s.swiglu(gate, up, false) }

// SwiGLUOver is SwiGLU of a gate that nobody reads again: the result may be written over it, unless autograd needs
// gate.
func (s *Scope) SwiGLUOver(gate, up Tensor) Tensor { return s.swiglu(gate, up, true) }

func (s *Scope) swiglu(gate, up Tensor, reuse bool) Tensor {
	if s.fused(gate, up, Tensor{}, Tensor{}) {
		return s.made("swiglu", csrc.SwiGLU(s.slot(), gate.p, up.p, reuse), gate, up)
	}
	if s.compiled(nvrtc.Training, gate, up) {
		return s.made("swiglu", csrc.CompiledSwiGLU(s.slot(), gate.p, up.p, reuse), gate, up)
	}
	return s.In(func(s *Scope) Tensor { return s.Mul(s.SiLU(gate), up) })
}

// GELULinear is Linear(GELU(x), w, b) of an x that nobody reads again. Our own kernels do not keep the activation for
// the backward pass but compute it again there.
func (s *Scope) GELULinear(x, w, b Tensor) Tensor {
	if s.fused(x, w, b, Tensor{}) {
		return s.made("gelu_linear", csrc.ActivatedLinear(s.slot(), x.p, nil, w.p, b.p), x, w, b)
	}
	return s.In(func(s *Scope) Tensor { return s.Linear(s.GELUOver(x), w, b) })
}

// SwiGLULinear is Linear(SwiGLU(gate, up), w, b) of a gate that nobody reads again; it keeps as little as GELULinear.
func (s *Scope) SwiGLULinear(gate, up, w, b Tensor) Tensor {
	if s.fused(gate, up, w, b) {
		return s.made("swiglu_linear", csrc.ActivatedLinear(s.slot(), gate.p, up.p, w.p, b.p), gate, up, w, b)
	}
	return s.In(func(s *Scope) Tensor { return s.Linear(s.SwiGLUOver(gate, up), w, b) })
}

// Dropout zeroes each element with probability p and scales the rest by 1/(1-p); p 0 returns x itself.
func (s *Scope) Dropout(x Tensor, p float64) Tensor {
	if p == 0 {
		return x
	}
	if p < 1 && s.fused(x, Tensor{}, Tensor{}, Tensor{}) {
		return s.made("dropout", csrc.Dropout(s.slot(), x.p, p), x)
	}
	lib.AtgDropout(s.prep(), lib.Ctensor(x.p), p, 1)
	return s.take("dropout", x)
}

// Rotate applies rotary position embeddings in HuggingFace's half-split layout: x·cos + rotateHalf(x)·sin
// for x [B, H, S, D] and cos, sin broadcastable to it (Su et al. 2021).
func (s *Scope) Rotate(x, cos, sin Tensor) Tensor {
	if !cos.RequiresGrad() && !sin.RequiresGrad() {
		oneHead := rotatesOneHead(x, cos, sin)
		switch {
		case oneHead && s.fused(x, cos, sin, Tensor{}):
			return s.made("rotate", csrc.Rotate(s.slot(), x.p, cos.p, sin.p), x, cos, sin)
		case oneHead && s.compiled(nvrtc.Training, x, cos, sin):
			y, _ := s.rotateCompiled(x, Tensor{}, cos, sin)
			return y
		case s.onGPU(x):
			return s.made("rotate", csrc.Turn(s.slot(), x.p, cos.p, sin.p), x, cos, sin)
		}
	}
	return s.In(func(s *Scope) Tensor {
		half := x.Size(-1) / 2
		turned := s.Cat(-1, s.Neg(s.From(x, -1, half)), s.Narrow(x, -1, 0, half))
		return s.Add(s.Mul(x, cos), s.Mul(turned, sin))
	})
}

// Attention is softmax(q·kᵀ·scale + bias)·v for q [B, H, Sq, D] and k, v [B, Hkv, Sk, D], where H is a
// multiple of Hkv (grouped-query attention: K and V are not copied). bias, or none, broadcasts to
// [B, H, Sq, Sk]; scale 0 stands for 1/√D. The result is [B, H, Sq, D].
func (s *Scope) Attention(q, k, v, bias Tensor, scale, dropout float64) Tensor {
	if scale == 0 {
		scale = 1 / math.Sqrt(float64(q.Size(-1)))
	}
	if s.fusedAttention(q, k, v, bias, dropout) {
		return s.made("attention", csrc.FusedAttention(s.slot(), q.p, k.p, v.p, bias.p, false, nil, 0, scale, dropout), q, k, v, bias)
	}
	if s.nativeAttention(q, k, v, bias, dropout) {
		grouped := q.Size(1) != k.Size(1)
		if grouped && bias.Defined() && q.Device().IsCUDA() { // with a bias its GPU kernels want as many heads of k as of q
			return s.In(func(s *Scope) Tensor {
				return s.Attention(q, s.repeatHeads(k, q.Size(1)), s.repeatHeads(v, q.Size(1)), bias, scale, dropout)
			})
		}
		msg := csrc.Attention(s.slot(), q.p, k.p, v.p, bias.p, dropout, false, scale, grouped)
		return s.made("attention", msg, q, k, v, bias)
	}
	return s.In(func(s *Scope) Tensor { return s.attentionComposed(q, k, v, bias, scale, dropout) })
}

// repeatHeads gives every head of x [B, Hkv, S, D] n/Hkv times in a row: [B, n, S, D].
func (s *Scope) repeatHeads(x Tensor, n int64) Tensor {
	b, h, l, d := x.Size(0), x.Size(1), x.Size(2), x.Size(3)
	return s.Reshape(s.Expand(s.Unsqueeze(x, 2), b, h, n/h, l, d), b, n, l, d)
}

// fusedAttention reports whether our own kernel serves.
func (s *Scope) fusedAttention(q, k, v, bias Tensor, dropout float64) bool {
	plain := !bias.Defined() || bias.Dim() == 4 && !bias.RequiresGrad()
	return plain && dropout < 1 && s.fused(q, k, v, bias)
}

// attentionComposed is Attention from its parts; libtorch's kernel is slower than it in bf16 and with dropout on the
// CPU.
func (s *Scope) attentionComposed(q, k, v, bias Tensor, scale, dropout float64) Tensor {
	b, h, sq, d := q.Size(0), q.Size(1), q.Size(2), q.Size(3)
	hkv, sk := k.Size(1), k.Size(2)
	// Query heads that share a K/V head become rows of one product.
	rows := s.Reshape(s.MulScalar(q, scale), b, hkv, h/hkv*sq, d)
	scores := s.Reshape(s.MatMul(rows, s.Transpose(k, 2, 3)), b, h, sq, sk)
	if bias.Defined() {
		scores = s.Add(scores, bias)
	}
	p := s.Dropout(s.To(s.SoftmaxFloat(scores, -1), v.DType()), dropout)
	out := s.MatMul(s.Reshape(p, b, hkv, h/hkv*sq, sk), v)
	return s.Reshape(out, b, h, sq, d)
}

// CrossEntropy is the mean (or sum) over rows of -log softmax(logits)[target], in fp32, for logits [N, C]
// and int64 targets [N]; targets equal to ignore are left out of both the sum and the count.
func (s *Scope) CrossEntropy(logits, targets Tensor, ignore int64, mean bool) Tensor {
	reduction := int64(reduceSum)
	if mean {
		reduction = reduceMean
	}
	return s.crossEntropy(logits, targets, Tensor{}, reduction, ignore, 0)
}

// SmoothCrossEntropy is the sum of CrossEntropy, each row of which counts as much as weights [C] fp32 has for its target
// (an undefined tensor: all 1), and a share smoothing of it is spread over all classes: torch's
// cross_entropy(weight=, label_smoothing=, reduction="sum").
func (s *Scope) SmoothCrossEntropy(logits, targets, weights Tensor, ignore int64, smoothing float64) Tensor {
	return s.crossEntropy(logits, targets, weights, reduceSum, ignore, smoothing)
}

// SquaredError is the sum of (x - y)², in fp32, for x and y of one shape.
func (s *Scope) SquaredError(x, y Tensor) Tensor {
	return s.In(func(s *Scope) Tensor {
		x := s.To(x, Float)
		lib.AtgMseLoss(s.prep(), lib.Ctensor(x.p), lib.Ctensor(y.p), reduceSum)
		return s.take("mse_loss", x, y)
	})
}

// BinaryCrossEntropy is the sum of -y·log σ(x) - (1-y)·log(1-σ(x)), in fp32, for logits x and targets y of one shape.
func (s *Scope) BinaryCrossEntropy(x, y Tensor) Tensor {
	return s.In(func(s *Scope) Tensor {
		x := s.To(x, Float)
		lib.AtgBinaryCrossEntropyWithLogits(s.prep(), lib.Ctensor(x.p), lib.Ctensor(y.p), nil, nil, reduceSum)
		return s.take("binary_cross_entropy_with_logits", x, y)
	})
}

// Reductions of libtorch's losses.
const (
	reduceMean = 1
	reduceSum  = 2
)

func (s *Scope) crossEntropy(logits, targets, weights Tensor, reduction, ignore int64, smoothing float64) Tensor {
	return s.In(func(s *Scope) Tensor {
		wide := s.To(logits, Float) // before prep, as it uses the output slot too
		lib.AtgCrossEntropyLoss(s.prep(), lib.Ctensor(wide.p), lib.Ctensor(targets.p), lib.Ctensor(weights.p), reduction, ignore, smoothing)
		return s.take("cross_entropy", logits, targets)
	})
}
