package train

import (
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train/data"
)

// The means of speed that --without leaves off, each for what it would otherwise do. Results are the same without them
// up to rounding; where dropout draws its masks differs.
const (
	LeverKernels   = "kernels"   // fused operations and matrix products of our own, on CPUs that have what they need; on GPUs, operations in few kernels
	LeverNVRTC     = "nvrtc"     // on GPUs, kernels of our own, which NVIDIA's run-time compiler makes
	LeverBlocks    = "blocks"    // large blocks of memory are kept for the next tensor
	LeverCasts     = "casts"     // frozen weights are cast once, not at every step
	LeverPooling   = "pooling"   // a classifier's last block computes only the position that is read
	LeverPasses    = "passes"    // inference in passes of as many tokens as the cache is good for
	LeverOverlap   = "overlap"   // the next batches are made while one computes
	LeverChunks    = "chunks"    // a language model's logits exist for some tokens at a time, with their gradients
	LeverOptimizer = "optimizer" // Adam's step is one fused pass over each weight
	LeverMapping   = "mapping"   // weights are used where their file is mapped into memory, not copied
)

// AllLevers are the names of all of them.
func AllLevers() []string {
	return []string{LeverKernels, LeverNVRTC, LeverBlocks, LeverCasts, LeverPooling, LeverPasses, LeverOverlap, LeverChunks, LeverOptimizer, LeverMapping}
}

// Levers are the means of speed that a run does without.
type Levers []string

// Check reports the first name that is no lever.
func (l Levers) Check() error {
	for _, name := range l {
		if !slices.Contains(AllLevers(), name) {
			return Usage("--without %q is not known: one of %s", name, strings.Join(AllLevers(), ", "))
		}
	}
	return nil
}

// Use reports whether a lever is in use: it is not among those to do without.
func (l Levers) Use(lever string) bool { return !slices.Contains(l, lever) }

// apply turns on or off those that hold for the whole process.
func (l Levers) apply(s *bindings.Scope) {
	s.SetFused(l.Use(LeverKernels))
	s.SetCompiled(l.Use(LeverNVRTC))
	s.KeepLargeBlocks(l.Use(LeverBlocks))
}

// castFrozen gives the frozen linear maps of the blocks a copy in d, made once in place of autocast's cast at every step,
// unless that is among the levers to do without. With d Float it does nothing. Without keep each stored weight goes as
// soon as its copy is there: for models that are never saved and have no file to lie in.
func (l Levers) castFrozen(m model.Model, d bindings.DType, keep bool) {
	if d == bindings.Float || !l.Use(LeverCasts) {
		return
	}
	cast := func(p *model.Param) {
		if p == nil {
			return
		}
		if p.Cast(m.Scope(), d); !keep {
			p.DropStored(m.Scope())
		}
	}
	for _, b := range m.Hooks().Blocks {
		for _, module := range b.Modules {
			cast(module.Dense.W)
			cast(module.Dense.B)
		}
	}
}

// PassTokens is how many tokens a CPU computes at once without gradients: more take memory and, measured from 1,536 to
// 6,144 in DistilBERT-base, no less time each.
const PassTokens = 2048

// gpuPassTokens bounds what a GPU computes at once without gradients where nothing else does, as memory has to.
const gpuPassTokens = 16384

// EvalOrder is how rows go through a model without gradients: rows of like length together, at most batch of them and
// maxTokens tokens with their padding (0: no bound), on a CPU fewer where they would not stay in its cache.
func EvalOrder(lengths []int, batch, maxTokens int, on Machine) data.Sampler {
	switch {
	case on.Device.IsCUDA() && maxTokens == 0:
		maxTokens = gpuPassTokens
	case !on.Device.IsCUDA() && on.Without.Use(LeverPasses) && (maxTokens == 0 || maxTokens > PassTokens):
		maxTokens = PassTokens
	}
	return data.Sampler{Lengths: lengths, BatchSize: batch, MaxTokens: maxTokens, Bucket: true}
}
