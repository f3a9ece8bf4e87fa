package peft

import (
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// ia3 scales activations by learned vectors (Liu et al. 2022): the outputs of linear maps or, for maps of the
// feed-forward network's second layer, their inputs.
type ia3 struct {
	plain
	o Options
	// inputs are the targets whose input is scaled; nil stands for the feed-forward network's down map.
	inputs []string
}

func (v *ia3) scalesInput(t target) bool {
	if v.inputs == nil {
		return t.module.Slot == model.Down
	}
	return slices.ContainsFunc(v.inputs, func(p string) bool { return t.name == p || strings.HasSuffix(t.name, "."+p) })
}

func (v *ia3) specs(o *outline) ([]spec, error) {
	targets, err := o.targets(v.o.Targets)
	var out []spec
	for _, t := range targets {
		shape := []int64{t.out, 1}
		if v.scalesInput(t) {
			shape = []int64{1, t.in}
		}
		out = append(out, spec{t.name + ".ia3_l", shape, constant(1)})
	}
	return out, err
}

func (v *ia3) mount(x *mounting) error {
	targets, err := x.targets(v.o.Targets)
	for _, t := range targets {
		t.block.SetWrap(t.module.Slot, &ia3Linear{t.module.Dense, x.params.Get(t.name + ".ia3_l"), v.scalesInput(t)})
	}
	return err
}

func (v *ia3) lr() float64      { return 1e-2 }
func (v *ia3) describe() string { return "vectors of ones on " + strings.Join(v.o.Targets, " ") }

type ia3Linear struct {
	dense *model.Dense
	l     *model.Param
	input bool
}

// Forward implements model.Linear.
func (v *ia3Linear) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		l := s.Reshape(v.l.T, -1)
		if v.input {
			return v.dense.Forward(s, s.To(s.Mul(x, l), x.DType()))
		}
		y := v.dense.Forward(s, x)
		return s.To(s.Mul(y, l), y.DType())
	})
}
