package peft

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// spec is a parameter that a technique adds to a model.
type spec struct {
	name  string
	shape []int64
	init  initialiser
}

// initialiser makes a parameter's first value, owned by s.
type initialiser func(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error)

func constant(v float64) initialiser {
	return func(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error) {
		return s.Full(shape, v, bindings.Float, device(m)), nil
	}
}

func gaussian(std float64) initialiser {
	return func(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error) {
		return s.Normal(shape, 0, std, bindings.Float, device(m)), nil
	}
}

// kaiming draws from U(-1/√in, 1/√in), which PyTorch gives a linear map's weights (Kaiming with a = √5) and,
// for the in of its weights, its bias.
func kaiming(in int64) initialiser {
	return func(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error) {
		bound := 1 / math.Sqrt(float64(in))
		return s.Uniform(shape, -bound, bound, bindings.Float, device(m)), nil
	}
}

func device(m model.Model) bindings.Device { return m.Params().All()[0].T.Device() }

// outline is the shape of a model: enough to say which parameters a technique adds.
type outline struct {
	info   model.Info
	blocks []*model.Block
	causal bool // has a language-model head in use
}

func outlineOf(m model.Model) *outline {
	c, causal := m.(model.CausalLM)
	return &outline{m.Info(), m.Hooks().Blocks, causal && c.LMWeight().Defined()}
}

// slots are a family's linear maps.
func slots(family string) []model.Slot {
	if family == "distilbert" {
		return []model.Slot{model.Q, model.K, model.V, model.O, model.Up, model.Down}
	}
	return []model.Slot{model.Q, model.K, model.V, model.O, model.Gate, model.Up, model.Down}
}

// dims are the widths of a slot's map.
func (o *outline) dims(slot model.Slot) (in, out int64) {
	i := o.info
	hidden, q, kv, ffn := int64(i.Hidden), int64(i.Heads*i.HeadDim), int64(i.KVHeads*i.HeadDim), int64(i.FFN)
	switch slot {
	case model.Q:
		return hidden, q
	case model.K, model.V:
		return hidden, kv
	case model.O:
		return q, hidden
	case model.Down:
		return ffn, hidden
	}
	return hidden, ffn
}

// Count is the number of parameters a method adds to a model of that shape: those of its own, without the
// head or other parameters of the model that it also trains.
func Count(name string, o Options, info model.Info) (int64, error) {
	a, err := newAdapter(name, o)
	if err != nil {
		return 0, err
	}
	plan := &outline{info: info, causal: info.Family == "llama"}
	for i := range info.Layers {
		b := &model.Block{Name: fmt.Sprintf("layer.%d", i)}
		for _, slot := range slots(info.Family) {
			b.Modules = append(b.Modules, model.Module{Map: model.Map{Slot: slot, Name: "linear." + string(slot)}})
		}
		plan.blocks = append(plan.blocks, b)
	}
	specs, err := a.specs(plan)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	var n int64
	for _, sp := range specs {
		k := int64(1)
		for _, d := range sp.shape {
			k *= d
		}
		n += k
	}
	return n, nil
}

// target is a linear map that a technique changes.
type target struct {
	block   *model.Block
	module  model.Module
	name    string // full name of the module
	in, out int64
}

// targets finds the maps that patterns name: by slot ("q"), by the end of their name ("q_proj",
// "self_attn.q_proj"), or all of them ("all", "all-linear"). One that names nothing is an error.
func (o *outline) targets(patterns []string) ([]target, error) {
	hit := make([]bool, len(patterns))
	var out []target
	for _, b := range o.blocks {
		for _, m := range b.Modules {
			name := b.Name + "." + m.Name
			wanted := false
			for i, p := range patterns {
				if p == "all" || p == "all-linear" || p == string(m.Slot) || name == p || strings.HasSuffix(name, "."+p) {
					wanted, hit[i] = true, true
				}
			}
			if wanted {
				in, width := o.dims(m.Slot)
				out = append(out, target{b, m, name, in, width})
			}
		}
	}
	if i := slices.Index(hit, false); i >= 0 {
		return nil, fmt.Errorf("target %q names no linear map of the model's blocks (%s)", patterns[i], strings.Join(o.moduleNames(), ", "))
	}
	return out, nil
}

// moduleNames are the last parts of the maps' names.
func (o *outline) moduleNames() []string {
	var names []string
	if len(o.blocks) > 0 {
		for _, m := range o.blocks[0].Modules {
			names = append(names, m.Name[strings.LastIndex(m.Name, ".")+1:])
		}
	}
	return names
}
