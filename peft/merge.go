package peft

import (
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// Merge folds a method into the model's own weights, computed in fp32 and stored in the model's dtype (where they were
// quantised, in the dtype that they are dequantised to), and
// closes the method. The head and other parameters of the model that the method trained become the model's.
// For methods whose effect no weights can have, the error says why and nothing is changed.
func Merge(s *bindings.Scope, of Method, m model.Model) error {
	a, ok := of.(*method)
	if !ok || a.m != m || a.restore == nil {
		return fmt.Errorf("merge %s: the method is not attached to the model", of.Name())
	}
	fail := func(reason string) error { return fmt.Errorf("%s cannot be merged: %s", a.Name(), reason) }
	if a.ownHead() {
		return fail("its classification head is not the model's")
	}
	if a.definition.InPlace {
		a.Detach()
		return nil
	}
	if reason := a.definition.Unmergeable; reason != "" {
		return fail(reason)
	}
	merger, ok := a.tuner.(Merger)
	if !ok {
		return fail("its code does not say how")
	}
	return s.Run(func(s *bindings.Scope) error {
		merged, err := merger.Merge(s, a.attachment(m))
		if err == nil && addsBias(merged) {
			err = m.AddBiases()
		}
		if err != nil {
			return fail(err.Error())
		}
		a.Detach()
		for _, n := range merged {
			setWeight(s, m, n.Dense.W, n.Weight)
			if n.Bias.Defined() {
				setWeight(s, m, n.Dense.B, n.Bias)
			}
		}
		for _, w := range a.weights {
			setWeight(s, m, w.p, w.t)
		}
		if len(a.labels) > 0 {
			relabel(m, a.labels)
			model.SetProblem(m, a.problem)
		}
		a.Close()
		return nil
	})
}

// addsBias reports whether a map gets a bias that has none.
func addsBias(merged []Merged) bool {
	for _, n := range merged {
		if n.Bias.Defined() && n.Dense.B == nil {
			return true
		}
	}
	return false
}

// setWeight makes t, in the parameter's dtype, the parameter's value.
func setWeight(s *bindings.Scope, m model.Model, p *model.Param, t bindings.Tensor) {
	d := m.DType() // not of a matrix that is held in 16 bits
	switch {
	case p.Quantised():
		d = p.T.DType()
	case isHead(m, p.Name):
		d = t.DType() // a head may have another number of labels, and stays in fp32
	}
	p.Assign(m.Scope(), s.MoveTo(m.Scope(), s.Clone(s.Detach(s.ToDevice(t, d, p.Device())))))
}

// relabel records a head's label names in the model's config.
func relabel(m model.Model, labels []string) {
	id2label, label2id := map[string]any{}, map[string]any{}
	for i, l := range labels {
		id2label[fmt.Sprint(i)], label2id[l] = l, i
	}
	m.Config()["id2label"], m.Config()["label2id"] = id2label, label2id
}
