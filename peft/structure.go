package peft

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// NewParam is a parameter that a method adds to a model.
type NewParam struct {
	Name  string // unique; by convention the name of what it changes, and a word more
	Shape []int64
	Init  Init
	// ZeroGrad says that the first gradient may be zero by construction, e.g. that of LoRA's A behind a B of zeros.
	// The first step checks that all others get one.
	ZeroGrad bool
	// Frozen says that it is kept with the method as it began, and not trained.
	Frozen bool
}

// Init makes a parameter's first value, owned by s, in fp32 on the model's device.
type Init func(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error)

// Constant fills with v.
func Constant(v float64) Init {
	return func(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error) {
		return s.Full(shape, v, bindings.Float, device(m)), nil
	}
}

// Gaussian draws from N(0, std²).
func Gaussian(std float64) Init {
	return func(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error) {
		return s.Normal(shape, 0, std, bindings.Float, device(m)), nil
	}
}

// KaimingUniform draws from U(-1/√in, 1/√in), as PyTorch does (Kaiming with a = √5) for the weights and the bias of a
// linear map with so many inputs.
func KaimingUniform(in int) Init {
	return func(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error) {
		bound := 1 / math.Sqrt(float64(in))
		return s.Uniform(shape, -bound, bound, bindings.Float, device(m)), nil
	}
}

func device(m model.Model) bindings.Device { return m.Params().All()[0].Device() }

// Structure is what can be said of a model without its weights: enough to list the parameters a method adds.
type Structure struct {
	Info      model.Info
	Blocks    []*model.Block // their maps have no weights where only a config is known
	HasLMHead bool           // a language-model head is in use
	Tied      bool           // which is the token embeddings
}

func structureOf(m model.Model) *Structure {
	c, causal := m.(model.CausalLM)
	head := causal && c.LMHead() != nil
	return &Structure{m.Info(), m.Hooks().Blocks, head, head && c.LMHead() == m.Hooks().Words}
}

// Target is a linear map of a block that a method changes.
type Target struct {
	Block *model.Block
	model.Module
	Name string // the module's full name
}

// Targets finds the maps that patterns name: by slot ("q"), by the end of their name ("proj", "attention.proj"), or
// all of them ("all", "all-linear"). One that names nothing is an error.
func (x *Structure) Targets(patterns ...string) ([]Target, error) {
	hit := make([]bool, len(patterns))
	var out []Target
	for _, b := range x.Blocks {
		for _, m := range b.Modules {
			name := b.Name + "." + m.Name
			wanted := false
			for i, p := range patterns {
				if p == "all" || p == "all-linear" || p == string(m.Slot) || name == p || strings.HasSuffix(name, "."+p) {
					wanted, hit[i] = true, true
				}
			}
			if wanted {
				out = append(out, Target{b, m, name})
			}
		}
	}
	if i := slices.Index(hit, false); i >= 0 {
		return nil, fmt.Errorf("target %q names no linear map of the model's blocks (%s)", patterns[i], strings.Join(x.moduleNames(), ", "))
	}
	return out, nil
}

// AllTargets are all linear maps of the blocks.
func (x *Structure) AllTargets() []Target {
	var out []Target
	for _, b := range x.Blocks {
		for _, m := range b.Modules {
			out = append(out, Target{b, m, b.Name + "." + m.Name})
		}
	}
	return out
}

// attention is the name of a block's attention module.
func (x *Structure) attention(b *model.Block) string { return b.Name + "." + x.Info.Attention }

// moduleNames are what Targets knows each of the maps by in every block.
func (x *Structure) moduleNames() []string {
	var names []string
	for _, m := range x.Info.Maps() {
		names = append(names, x.moduleName(m))
	}
	return names
}

// moduleName is the last part of a map's name or, where others of a block have the same, its slot.
func (x *Structure) moduleName(m model.Map) string {
	same := 0
	for _, other := range x.Info.Maps() {
		if lastPart(other.Name) == lastPart(m.Name) {
			same++
		}
	}
	if same > 1 {
		return string(m.Slot)
	}
	return lastPart(m.Name)
}

func lastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }
