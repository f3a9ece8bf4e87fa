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
	LeverBlocks    = "blocks"    // large blocks of memory are kept for the next tensor
	LeverCasts     = "casts"     // frozen weights are cast once, not at every step
	LeverPooling   = "pooling"   // a classifier's last block computes only the position that is read
	LeverPasses    = "passes"    // inference in passes of as many tokens as the cache is good for
	LeverOverlap   = "overlap"   // the next batches are made while one computes
	LeverChunks    = "chunks"    // a language model's logits exist for some tokens at a time, with their gradients
	LeverOptimizer = "optimizer" // Adam's step is one fused pass over each weight
	LeverMapping   = "mapping"   // weights are used where their file is mapped into memory, not copied
)

// Levers are the names of all of them.
func Levers() []string {
	return []string{LeverKernels, LeverBlocks, LeverCasts, LeverPooling, LeverPasses, LeverOverlap, LeverChunks, LeverOptimizer, LeverMapping}
}

// CheckLevers reports the first name that is no lever.
func CheckLevers(without []string) error {
	for _, name := range without {
		if !slices.Contains(Levers(), name) {
			return usage("--without %q is not known: one of %s", name, strings.Join(Levers(), ", "))
		}
	}
	return nil
}

// Has reports whether a lever is in use.
func (c Config) Has(lever string) bool { return !slices.Contains(c.Without, lever) }

// setLevers turns on or off those that hold for the whole process.
func (c Config) setLevers(s *bindings.Scope) {
	s.SetFused(c.Has(LeverKernels))
	s.KeepLargeBlocks(c.Has(LeverBlocks))
}

// CastFrozen is the function CastFrozen, unless the run does without.
func (c Config) CastFrozen(m model.Model, d bindings.DType, keep bool) {
	if c.Has(LeverCasts) {
		CastFrozen(m, d, keep)
	}
}

// passTokens is how many tokens a CPU computes at once without gradients: more take memory and, measured from 1,536 to
// 6,144 in DistilBERT-base, no less time each.
const passTokens = 2048

// gpuPassTokens bounds what a GPU computes at once without gradients where nothing else does, as memory has to.
const gpuPassTokens = 16384

// EvalOrder is how rows go through a model without gradients: rows of like length together, at most batch of them and
// maxTokens tokens with their padding (0: no bound), on a CPU fewer where they would not stay in its cache.
func EvalOrder(lengths []int, batch, maxTokens int, dev bindings.Device, whole bool) data.Sampler {
	switch {
	case dev.IsCUDA() && maxTokens == 0:
		maxTokens = gpuPassTokens
	case !dev.IsCUDA() && !whole && (maxTokens == 0 || maxTokens > passTokens):
		maxTokens = passTokens
	}
	return data.Sampler{Lengths: lengths, BatchSize: batch, MaxTokens: maxTokens, Bucket: true}
}
