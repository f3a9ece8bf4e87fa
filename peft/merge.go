package peft

import (
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// merger is a technique that can be folded into the model's weights.
type merger interface {
	// merged computes the new weights in fp32, owned by s.
	merged(s *bindings.Scope, x *mounting) ([]folded, error)
}

// folded is a map's new weight and, where it changes, its new bias.
type folded struct {
	module       target
	weight, bias bindings.Tensor
}

// unmergeable says why the other techniques cannot be folded.
var unmergeable = map[string]string{
	"prompt":        "virtual tokens are input, not weights",
	"prefix":        "its keys and values belong to no token, so no weight can produce them",
	"houlsby":       "a nonlinearity lies between its two maps",
	"pfeiffer":      "a nonlinearity lies between its two maps",
	"llama-adapter": "its prompts have a softmax of their own",
}

// Merge folds a method into the model's own weights, computed in fp32 and stored in the model's dtypes, and
// closes the method. The head and other parameters of the model that the method trained become the model's.
// For methods whose effect no weights can have, the error says why and nothing is changed.
func Merge(s *bindings.Scope, method Method, m model.Model) error {
	a, ok := method.(*adapter)
	if !ok || a.m != m || a.restore == nil {
		return fmt.Errorf("merge %s: the method is not attached to the model", method.Name())
	}
	fail := func(reason string) error { return fmt.Errorf("%s cannot be merged: %s", a.name, reason) }
	if _, flexible := a.technique.(*withHead); flexible {
		return fail("its classification head is not the model's")
	}
	return s.Run(func(s *bindings.Scope) error {
		var news []folded
		switch t := core(a.technique).(type) {
		case *full:
			a.Detach()
			return nil
		case merger:
			var err error
			if news, err = t.merged(s, a.mounting(m)); err != nil {
				return fail(err.Error())
			}
		default:
			if reason, ok := unmergeable[a.name]; ok {
				return fail(reason)
			}
		}
		a.Detach()
		for _, n := range news {
			d := n.module.module.Dense
			settle(s, m, d.W, n.weight)
			if !n.bias.Defined() {
				continue
			}
			if d.B == nil {
				d.B = &model.Param{Name: n.module.name + ".bias", T: m.Scope().Zeros([]int64{n.module.out}, d.W.T.DType(), d.W.T.Device())}
				m.Params().Add(d.B)
			}
			settle(s, m, d.B, n.bias)
		}
		for _, t := range a.tuned {
			settle(s, m, t.p, t.t)
		}
		if len(a.labels) > 0 {
			relabel(m, a.labels)
		}
		a.Close()
		return nil
	})
}

// settle makes t, in the parameter's dtype, the parameter's value.
func settle(s *bindings.Scope, m model.Model, p *model.Param, t bindings.Tensor) {
	d := p.T.DType()
	if isHead(m, p.Name) {
		d = t.DType() // a head may have another number of labels, and stays in fp32
	}
	former := p.T
	p.Assign(s.MoveTo(m.Scope(), s.Clone(s.Detach(s.ToDevice(t, d, former.Device())))))
	m.Scope().Free(former)
}

// relabel records a head's label names in the model's config.
func relabel(m model.Model, labels []string) {
	id2label, label2id := map[string]any{}, map[string]any{}
	for i, l := range labels {
		id2label[fmt.Sprint(i)], label2id[l] = l, i
	}
	m.Config()["id2label"], m.Config()["label2id"] = id2label, label2id
}

func (l *lora) merged(s *bindings.Scope, x *mounting) ([]folded, error) {
	targets, err := x.targets(l.o.Targets)
	var out []folded
	for _, t := range targets {
		u, ok := t.block.Linear(t.module.Slot).(*loraLinear)
		if !ok {
			return nil, fmt.Errorf("%s is not as it was attached", t.name)
		}
		var w bindings.Tensor
		s.NoGrad(func() {
			w = u.weight(s)
			if u.m != nil {
				w = s.Mul(s.Unsqueeze(s.Div(u.m.T, norms(s, w)), 1), w)
			}
		})
		out = append(out, folded{module: t, weight: w})
	}
	return out, err
}

func (v *ia3) merged(s *bindings.Scope, x *mounting) ([]folded, error) {
	targets, err := x.targets(v.o.Targets)
	var out []folded
	for _, t := range targets {
		l := s.Detach(x.params.Get(t.name + ".ia3_l").T)
		n := folded{module: t, weight: s.Mul(s.To(s.Detach(t.module.Dense.W.T), bindings.Float), l)} // [out, 1] or [1, in]
		if b := t.module.Dense.B; b != nil && !v.scalesInput(t) {
			n.bias = s.Mul(s.To(s.Detach(b.T), bindings.Float), s.Reshape(l, -1))
		}
		out = append(out, n)
	}
	return out, err
}

func (b *bitfit) merged(s *bindings.Scope, x *mounting) ([]folded, error) {
	var out []folded
	for _, t := range b.without(x.outline) {
		out = append(out, folded{t, s.Detach(t.module.Dense.W.T), s.Detach(x.params.Get(t.name + ".bias").T)})
	}
	return out, x.allowBiases(len(out) > 0)
}

func (l *last) merged(*bindings.Scope, *mounting) ([]folded, error) { return nil, nil }

func (a *adaption) merged(s *bindings.Scope, x *mounting) ([]folded, error) {
	switch {
	case !a.v2:
		return nil, errors.New(unmergeable["llama-adapter"])
	case a.prompts(len(x.blocks)) > 0:
		return nil, errors.New(unmergeable["llama-adapter"] + " (train with adapter-layers -1 to do without prompts)")
	case x.params.Get(lmHead+".adapter_bias") != nil:
		return nil, errors.New("its bias on the language-model head has no place in a LLaMA checkpoint (train with skip-lm-head)")
	}
	targets, err := x.targets([]string{"all"})
	if err != nil {
		return nil, err
	}
	var out []folded
	for _, t := range targets {
		scale, bias := s.Detach(x.params.Get(t.name+".adapter_scale").T), s.Detach(x.params.Get(t.name+".adapter_bias").T)
		if b := t.module.Dense.B; b != nil {
			bias = s.Add(bias, s.To(s.Detach(b.T), bindings.Float))
		}
		w := s.Mul(s.To(s.Detach(t.module.Dense.W.T), bindings.Float), s.Unsqueeze(scale, 1))
		out = append(out, folded{t, w, s.Mul(scale, bias)})
	}
	return out, x.allowBiases(x.info.Family == "llama")
}

// allowBiases records in a LLaMA model's config that every linear map has a bias now.
func (x *mounting) allowBiases(added bool) error {
	if !added {
		return nil
	}
	if t, _ := x.config["model_type"].(string); t != "llama" {
		return fmt.Errorf("a %s checkpoint has no place for the biases it adds", t)
	}
	x.config["attention_bias"], x.config["mlp_bias"] = true, true
	return nil
}

// mounting is what the attached technique was mounted with.
func (a *adapter) mounting(m model.Model) *mounting {
	x := &mounting{outline: outlineOf(m), hooks: m.Hooks(), params: &a.params, scope: m.Scope(), config: m.Config()}
	if c, ok := m.(model.CausalLM); ok {
		x.lm = unembedding{c}
	}
	return x
}

// Mergeable reports whether Merge can fold a method by its name, and if not why.
func Mergeable(name string) (bool, string) {
	reason, no := unmergeable[name]
	return !no, reason
}
