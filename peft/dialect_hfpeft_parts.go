package peft

import (
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

// Some checkpoints hold several maps as one module, which is all that peft knows: queries, keys and values as c_attn. A
// method that changes such maps each for itself is written as one that changes the module and computes the same.

// partsAsOne are the modules that are written so.
type partsAsOne []partsOf

// partsOf is a module some of whose parts a method changes.
type partsOf struct {
	name  string   // the module's
	all   []Target // its maps
	parts []Target // those that are changed
}

// partsAsOne finds the modules; none where the method changes no parts, or whole modules.
func (a *method) partsAsOne(m model.Model) (out partsAsOne) {
	if !slices.Contains([]string{"lora", "dora", "ia3"}, a.Name()) {
		return nil
	}
	plan := structureOf(m)
	targets, _ := a.o.targets(plan) // Attach has found them
	for _, t := range targets {
		joint := t.Whole && a.Name() != "ia3" // which has a vector for each part in any case
		if t.Part.Of == "" || joint {
			continue
		}
		if n := len(out); n == 0 || out[n-1].name != t.Stored() {
			out = append(out, partsOf{name: t.Stored()})
		}
		last := &out[len(out)-1]
		last.parts = append(last.parts, t)
	}
	for i := range out {
		for _, t := range plan.AllTargets() {
			if t.Stored() == out[i].name {
				out[i].all = append(out[i].all, t)
			}
		}
	}
	return out
}

// has reports whether a parameter is of a part.
func (ps partsAsOne) has(param string) bool {
	return slices.ContainsFunc(ps, func(p partsOf) bool {
		return slices.ContainsFunc(p.parts, func(t Target) bool { return strings.HasPrefix(param, t.Name+".") })
	})
}

// targets are the targets with modules in the place of their parts.
func (ps partsAsOne) targets(m model.Model, targets []string) []string {
	plan := structureOf(m)
	found, _ := plan.Targets(targets...)
	var full []string
	for _, t := range found {
		if name := t.Stored(); !slices.Contains(full, name) {
			full = append(full, name)
		}
	}
	if names, layers := plan.shorten(full); layers == nil {
		return names
	}
	return full
}

// joined are the parameters on the modules, named as the method would name them.
func (ps partsAsOne) joined(s *bindings.Scope, a *method) (ts []hf.Named) {
	own := func(t Target, part string) bindings.Tensor { return a.joined(s, a.params.Get(t.Name+part)) }
	for _, p := range ps {
		add := func(part string, t bindings.Tensor) { ts = append(ts, hf.Named{Name: p.name + part, Tensor: t}) }
		if a.Name() == "ia3" {
			add(".ia3_l", p.rows(s, func(t Target, changed bool) bindings.Tensor {
				if changed {
					return own(t, ".ia3_l")
				}
				return s.Full([]int64{int64(t.Out), 1}, 1, bindings.Float, t.Dense.W.Device())
			}))
			continue
		}
		var as, bs []bindings.Tensor
		for i, t := range p.parts {
			as = append(as, own(t, loraA))
			// Its columns of B, which are zero but for its rows.
			bs = append(bs, p.rows(s, func(other Target, _ bool) bindings.Tensor {
				b := own(t, loraB)
				if other.Name == p.parts[i].Name {
					return b
				}
				return s.Zeros([]int64{int64(other.Out), b.Size(1)}, bindings.Float, b.Device())
			}))
		}
		add(loraA, s.Cat(0, as...))
		add(loraB, s.Cat(1, bs...))
		if a.o.DoRA {
			add(loraM, p.rows(s, func(t Target, changed bool) bindings.Tensor {
				if changed {
					return own(t, loraM)
				}
				return norms(s, t.Dense.W.Stored(s, bindings.Float))
			}))
		}
	}
	return ts
}

// rows puts together what of gives for each of the module's maps.
func (p partsOf) rows(s *bindings.Scope, of func(t Target, changed bool) bindings.Tensor) bindings.Tensor {
	var ts []bindings.Tensor
	for _, t := range p.all {
		changed := slices.ContainsFunc(p.parts, func(c Target) bool { return c.Name == t.Name })
		ts = append(ts, of(t, changed))
	}
	return s.Cat(0, ts...)
}

// transposed reports whether the model's checkpoints hold the blocks' maps as [in, out], which peft calls fan_in_fan_out.
func transposed(m model.Model) bool {
	return slices.ContainsFunc(m.Info().Maps(), func(x model.Map) bool { return x.Transposed })
}

// wholeWants asks for the parameters of parts, by their names, as the rows of what peft has on their modules.
func wholeWants(m model.Model, added []NewParam) map[string]model.Part {
	out := map[string]model.Part{}
	for _, t := range structureOf(m).AllTargets() {
		name := t.Name + ".ia3_l"
		if t.Part.Of != "" && hasSpec(added, name) {
			part := t.Part
			part.Of = t.Stored() + ".ia3_l"
			out[name] = part
		}
	}
	return out
}
