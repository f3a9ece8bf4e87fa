package peft

import (
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// bitfit trains biases alone (Ben Zaken et al. 2022): copies of the model's own and, on linear maps that have
// none, new ones that start at zero.
type bitfit struct {
	o Options
}

func (b *bitfit) specs(o *outline) ([]spec, error) {
	var out []spec
	for _, t := range b.without(o) {
		out = append(out, spec{t.name + ".bias", []int64{t.out}, constant(0)})
	}
	return out, nil
}

// without lists the linear maps that have no bias.
func (b *bitfit) without(o *outline) []target {
	all, _ := o.targets([]string{"all"})
	var out []target
	for _, t := range all {
		if t.module.Dense != nil && t.module.Dense.B == nil || t.module.Dense == nil && o.info.Family == "llama" {
			out = append(out, t)
		}
	}
	return out
}

func (b *bitfit) mount(x *mounting) error {
	for _, t := range b.without(x.outline) {
		t.block.SetWrap(t.module.Slot, &biased{t.module.Dense.W, x.params.Get(t.name + ".bias")})
	}
	return nil
}

func (b *bitfit) tunes(_ model.Model, name string) bool { return strings.HasSuffix(name, ".bias") }
func (b *bitfit) silent(name string) bool               { return silentBias(name) }
func (b *bitfit) lr() float64                           { return 2e-3 }
func (b *bitfit) describe() string {
	return "biases, from the checkpoint's values, zero where it has none"
}

// biased is a linear map with a bias of fp32 over weights of any dtype.
type biased struct {
	w, b *model.Param
}

// Forward implements model.Linear.
func (l *biased) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		y := s.Linear(x, l.w.Value(), bindings.Tensor{})
		return s.To(s.Add(y, l.b.T), y.DType())
	})
}
