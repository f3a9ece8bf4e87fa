package bindings

import (
	"math"

	"gopeft/bindings/csrc"
	"gopeft/bindings/csrc/nvrtc"
)

// AllTargets in place of a target to be ignored says that there is none to look for.
const AllTargets int64 = math.MinInt64 // GP_ALL_TARGETS of lmloss.h

const lossChunkBytes = 64 << 20 // of logits, where a caller does not say

// LMCrossEntropy is the mean (or sum) over tokens of -log softmax(hidden·weightᵀ)[target], in fp32, for hidden
// [..., d], weight [V, d] and int64 targets of hidden's leading shape; targets equal to ignore are left out of
// the sum and the count, and it is 0 when all are. It equals CrossEntropy of the logits, which never exist
// whole: they are made for some tokens at a time, with their gradients, in at most chunkBytes of fp32 (0: 64
// MiB, or a token's). The products run in autocast's dtype, else in weight's.
func (s *Scope) LMCrossEntropy(hidden, weight, targets Tensor, ignore int64, mean bool, chunkBytes int64) Tensor {
	if !weight.Defined() {
		fail("lm_cross_entropy", "the model has no language-model head", hidden)
	}
	return s.lmLoss(hidden, targets, func(s *Scope, h, t Tensor, own bool) Tensor {
		return s.made("lm_cross_entropy", csrc.LMCrossEntropy(s.slot(), h.p, weight.p, t.p, ignore, mean, lossChunk(chunkBytes), own), h, weight, t)
	})
}

// lmLoss calls loss with rows of states and their targets, and whether our own kernels serve.
func (s *Scope) lmLoss(hidden, targets Tensor, loss func(s *Scope, h, t Tensor, own bool) Tensor) Tensor {
	own := !s.buf.composed
	if d := hidden.Device(); d.IsCUDA() {
		own = s.compiledOn(d, Float, nvrtc.Training) // logits are in fp32 whatever they are computed in
	}
	return s.In(func(s *Scope) Tensor {
		return loss(s, s.Reshape(hidden, -1, hidden.Size(-1)), s.Reshape(targets, -1), own)
	})
}

func lossChunk(bytes int64) int64 {
	if bytes <= 0 {
		return lossChunkBytes
	}
	return bytes
}
