package peft

import (
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// ia3Method scales activations by learned vectors (Liu et al. 2022): the outputs of linear maps or, for maps of the
// feed-forward network's second layer, their inputs.
func ia3Method() Definition {
	return Definition{
		Name:     "ia3",
		Complete: func(o *Options) error { o.orTargets("k", "v", "down"); return nil },
		New:      func(o Options) Tuner { return &ia3{o: o} },
		Dialects: []Dialect{DialectPeft},
	}
}

type ia3 struct {
	Common
	o Options
	// inputs are the targets whose input is scaled; nil stands for the feed-forward network's down map.
	inputs []string
}

func (v *ia3) scalesInput(t Target) bool {
	if v.inputs == nil {
		return t.Slot == model.Down
	}
	return slices.ContainsFunc(v.inputs, func(p string) bool { return t.Name == p || strings.HasSuffix(t.Name, "."+p) })
}

func (v *ia3) Adds(x *Structure) ([]NewParam, error) {
	targets, err := v.o.targets(x)
	var out []NewParam
	for _, t := range targets {
		shape := []int64{int64(t.Out), 1}
		if v.scalesInput(t) {
			shape = []int64{1, int64(t.In)}
		}
		out = append(out, NewParam{Name: t.Name + ".ia3_l", Shape: shape, Init: Constant(1)})
	}
	return out, err
}

func (v *ia3) Attach(x *Attachment) error {
	targets, err := v.o.targets(x.Structure)
	for _, t := range targets {
		t.Block.SetWrap(t.Slot, &ia3Linear{t.Dense, x.Param(t.Name + ".ia3_l"), v.scalesInput(t)})
	}
	return err
}

func (v *ia3) Needs() Needs     { return Needs{KeptOutputs: 1} }
func (v *ia3) LR() float64      { return 1e-2 }
func (v *ia3) Describe() string { return "vectors of ones on " + v.o.where() }

// Merge implements Merger.
func (v *ia3) Merge(s *bindings.Scope, x *Attachment) ([]Merged, error) {
	targets, err := v.o.targets(x.Structure)
	var out []Merged
	for _, t := range targets {
		l := s.Detach(x.Param(t.Name + ".ia3_l").T)
		n := Merged{Target: t, Weight: s.Mul(t.Dense.W.Stored(s, bindings.Float), l)} // [out, 1] or [1, in]
		if b := t.Dense.B; b != nil && !v.scalesInput(t) {
			n.Bias = s.Mul(s.To(s.Detach(b.T), bindings.Float), s.Reshape(l, -1))
		}
		out = append(out, n)
	}
	return out, err
}

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
