// Package neftune puts noise on token embeddings while a model is trained (NEFTune, Jain et al. 2023), as transformers'
// neftune_noise_alpha and trl do: numbers drawn evenly from ±alpha/√(tokens·width), tokens being a batch's padded length.
// Vectors that a method puts before the tokens get none, and no evaluation does.
package neftune

import (
	"math"

	"gopeft/bindings"
	"gopeft/model"
)

// Noise is what a model's embeddings are given while it is on. A nil Noise gives nothing.
type Noise struct {
	hooks *model.Hooks
	own   model.Embedding // what was on the hook before, or nil
	alpha float64
	on    bool
}

// Attach makes noise for the token embeddings of a model. Close takes it off again.
func Attach(h *model.Hooks, alpha float64) *Noise {
	n := &Noise{hooks: h, own: h.Embed, alpha: alpha}
	h.Embed = n
	return n
}

// Close leaves the model as it was.
func (n *Noise) Close() {
	if n != nil {
		n.hooks.Embed = n.own
	}
}

// During calls pass with the noise on, if the pass is of training.
func (n *Noise) During(training bool, pass func()) {
	if n != nil {
		n.on = training
		defer func() { n.on = false }()
	}
	pass()
}

// Bound is the largest noise on embeddings [B, tokens, width], as it is computed in fp32.
func Bound(alpha float64, tokens, width int64) float64 {
	return float64(float32(alpha) / float32(math.Sqrt(float64(tokens*width))))
}

// Embed implements model.Embedding.
func (n *Noise) Embed(s *bindings.Scope, ids bindings.Tensor, own func(s *bindings.Scope, ids bindings.Tensor) bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		var x bindings.Tensor
		if n.own != nil {
			x = n.own.Embed(s, ids, own)
		} else {
			x = own(s, ids)
		}
		if !n.on {
			return x
		}
		bound := Bound(n.alpha, x.Size(1), x.Size(2))
		return s.Add(x, s.Uniform(x.Shape(), -bound, bound, x.DType(), x.Device()))
	})
}
