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
	// Whole says that it was named by the module that checkpoints hold it in, with all that this one holds.
	Whole bool
}

// Stored is the full name of the module that checkpoints hold the map in, as other libraries know it.
func (t Target) Stored() string { return t.Block.Name + "." + t.Module.Stored() }

// span is where a target's rows lie in those of the module that is changed as one: all of it, or the target alone.
func (t Target) span() (module string, first, out int) {
	if t.Whole {
		return t.Stored(), t.Part.First, t.Part.Out
	}
	return t.Name, 0, t.Out
}

// Targets finds the maps that patterns name: by slot ("q"), by the end of their name ("proj", "attention.proj") or of that
// of the module that checkpoints hold them in, or all of them ("all", "all-linear"). One that names nothing is an error.
func (x *Structure) Targets(patterns ...string) ([]Target, error) {
	hit := make([]bool, len(patterns))
	var out []Target
	for _, b := range x.Blocks {
		for _, m := range b.Modules {
			t := Target{b, m, b.Name + "." + m.Name, false}
			wanted := false
			for i, p := range patterns {
				whole := m.Part.Of != "" && endsIn(t.Stored(), p)
				if p == "all" || p == "all-linear" || p == string(m.Slot) || endsIn(t.Name, p) || whole {
					wanted, hit[i] = true, true
					t.Whole = t.Whole || whole
				}
			}
			if wanted {
				out = append(out, t)
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
			out = append(out, Target{b, m, b.Name + "." + m.Name, false})
		}
	}
	return out
}

// attention is the name of a block's attention module.
func (x *Structure) attention(b *model.Block) string { return b.Name + "." + x.Info.Attention }

// moduleNames are what Targets knows each of the maps' modules, as checkpoints hold them, by in every block.
func (x *Structure) moduleNames() []string {
	var names []string
	for _, module := range x.inBlock(model.Map.Stored) {
		names = append(names, x.moduleName(module))
	}
	return names
}

// moduleName is the last part of the name of a module within a block or, where others of a block have the same, the slot of
// its map.
func (x *Structure) moduleName(module string) string {
	last := lastPart(module)
	var slot model.Slot
	for _, m := range x.Info.Maps() {
		for _, name := range []string{m.Name, m.Stored()} {
			if name == module {
				slot = m.Slot
			}
		}
	}
	for _, other := range x.modules() {
		if other != module && lastPart(other) == last {
			return string(slot)
		}
	}
	return last
}

// modules are the modules of a block that hold its maps, and those of them that are parts of such.
func (x *Structure) modules() []string {
	all := x.inBlock(model.Map.Stored)
	for _, own := range x.inBlock(func(m model.Map) string { return m.Name }) {
		if !slices.Contains(all, own) {
			all = append(all, own)
		}
	}
	return all
}

// inBlock are names of a block's maps, each once.
func (x *Structure) inBlock(name func(model.Map) string) (names []string) {
	for _, m := range x.Info.Maps() {
		if n := name(m); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// shorten gives the full names of modules, block by block, as names that mean the same in every block, in the order of a
// block's, and the numbers of the blocks where these are not all; the full names where blocks differ.
func (x *Structure) shorten(full []string) (names []string, layers []int) {
	in := map[string][]int{} // numbers of blocks, by the name within one
	for _, name := range full {
		for i, b := range x.Blocks {
			if rest, ok := strings.CutPrefix(name, b.Name+"."); ok {
				in[rest] = append(in[rest], i)
			}
		}
	}
	for _, module := range x.modules() {
		these := in[module]
		switch {
		case these == nil:
			continue
		case layers == nil:
			layers = these
		case !slices.Equal(layers, these):
			return full, nil
		}
		names = append(names, x.moduleName(module))
	}
	if len(names)*len(layers) != len(full) {
		return full, nil
	}
	if len(layers) == len(x.Blocks) {
		layers = nil
	}
	return names, layers
}

// endsIn reports whether a dotted name is end, or ends in it.
func endsIn(name, end string) bool { return name == end || strings.HasSuffix(name, "."+end) }

// longer is the end of a dotted name that has one part more.
func longer(name, end string) string {
	rest := strings.TrimSuffix(name, end)
	return lastPart(strings.TrimSuffix(rest, ".")) + "." + end
}

func lastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }
