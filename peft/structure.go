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
}

func structureOf(m model.Model) *Structure {
	c, causal := m.(model.CausalLM)
	return &Structure{m.Info(), m.Hooks().Blocks, causal && c.LMHead() != nil}
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

// moduleNames are short names of the maps' modules, as checkpoints hold them: the last parts, or more where others end so.
func (x *Structure) moduleNames() []string {
	stored := x.inBlock(model.Map.Stored)
	var names []string
	for _, module := range stored {
		name, _ := shortEnd(module, func(end string) bool {
			return slices.ContainsFunc(stored, func(other string) bool { return other != module && endsIn(other, end) })
		})
		names = append(names, name)
	}
	return names
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

// shorten gives the full names of modules as names that mean the same in every block, in the order of a block's, if they do.
func (x *Structure) shorten(full []string) []string {
	count := map[string]int{}
	for _, name := range full {
		for _, b := range x.Blocks {
			if rest, ok := strings.CutPrefix(name, b.Name+"."); ok {
				count[rest]++
			}
		}
	}
	var out, seen []string
	found := 0
	own := func(m model.Map) string { return m.Name }
	for _, module := range append(x.inBlock(model.Map.Stored), x.inBlock(own)...) {
		name, alone := shortEnd(module, func(end string) bool {
			return slices.ContainsFunc(x.Info.Maps(), func(m model.Map) bool {
				return endsIn(m.Name, end) && count[m.Name] == 0 && count[m.Stored()] == 0 || endsIn(m.Stored(), end) && count[m.Stored()] == 0
			})
		})
		switch {
		case count[module] == 0:
			continue
		case count[module] != len(x.Blocks) || !alone:
			return full
		case !slices.Contains(out, name):
			out = append(out, name)
		}
		if !slices.Contains(seen, module) {
			seen, found = append(seen, module), found+count[module]
		}
	}
	if found != len(full) {
		return full
	}
	return out
}

// shortEnd is the shortest end of a name that means nothing else; with alone false even the name itself does.
func shortEnd(name string, ambiguous func(end string) bool) (end string, alone bool) {
	end = lastPart(name)
	for end != name && ambiguous(end) {
		end = longer(name, end)
	}
	return end, !ambiguous(end)
}

// endsIn reports whether a dotted name is end, or ends in it.
func endsIn(name, end string) bool { return name == end || strings.HasSuffix(name, "."+end) }

// longer is the end of a dotted name that has one part more.
func longer(name, end string) string {
	rest := strings.TrimSuffix(name, end)
	return lastPart(strings.TrimSuffix(rest, ".")) + "." + end
}

func lastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }
