package peft_test

import (
	"fmt"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// TestSwitchingKeepsWhatWasComputed: adapters that have been used are switched without a tensor made or freed, and
// compute what they computed before.
func TestSwitchingKeepsWhatWasComputed(t *testing.T) {
	f := families[2]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	for _, v := range ways {
		if v.method == "full" {
			continue // trains the model's own weights: it is in no set
		}
		t.Run(fmt.Sprintf("%s-%v", v.method, v.o.PrefixProjection), func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := f.load(t, s)
				defer m.Close()
				set := peft.NewSet(m)
				defer set.Close()
				for _, name := range []string{"a", "b"} {
					method := shaken(t, s, v.method, v.o, m, 0.1)
					if err := set.Add(name, method); err != nil {
						return err
					}
				}
				in := f.input(g, s)
				compute := func(name string) (out bindings.Tensor, err error) {
					if err := set.Use(s, name); err != nil {
						return out, err
					}
					s.NoGrad(func() { out = logits(s, m, in) })
					return out, nil
				}
				want := map[string]bindings.Tensor{}
				for _, name := range []string{"a", "b", ""} {
					var err error
					if want[name], err = compute(name); err != nil {
						return err
					}
				}
				for range 2 {
					for _, name := range []string{"b", "a", ""} {
						live := bindings.Live()
						if err := set.Use(s, name); err != nil {
							return err
						}
						if n := bindings.Live() - live; n != 0 {
							t.Errorf("switching to %q made %d tensors", name, n)
						}
						got, err := compute(name)
						if err != nil {
							return err
						}
						if n := bindings.Live() - live; n != 1 {
							t.Errorf("%q kept %d tensors more after it was used again", name, n-1)
						}
						modeltest.Close(t, "logits of "+name, got, want[name], 0)
					}
				}
				return nil
			})
		})
	}
}

// TestSwitchingSeesOtherWeights: what an adapter has computed from the model's weights is computed anew when those
// have changed while it was detached.
func TestSwitchingSeesOtherWeights(t *testing.T) {
	f := families[2]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		method := shaken(t, s, "dora", peft.Options{}, m, 0.1)
		defer method.Close()
		in := f.input(g, s)
		compute := func(kept bool) (out bindings.Tensor) {
			forward := func() { out = s.Detach(logits(s, m, in)) }
			if kept {
				s.NoGrad(forward)
			} else { // recording for autograd nothing is kept
				forward()
			}
			return out
		}
		modeltest.Close(t, "logits", compute(true), compute(false), 1e-6)
		for _, change := range []func(*model.Param){
			func(p *model.Param) { s.MulScalarInPlace(p.T, 1.5) },
			func(p *model.Param) { p.Replace(s.MoveTo(m.Scope(), s.MulScalar(p.T, 0.5))) },
		} {
			method.Detach()
			s.NoGrad(func() { change(m.Params().Get("model.layers.1.self_attn.q_proj.weight")) })
			if err := method.Attach(s, m); err != nil {
				return err
			}
			modeltest.Close(t, "logits over other weights", compute(true), compute(false), 1e-6)
		}
		return nil
	})
}
