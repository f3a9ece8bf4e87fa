package peft_test

import (
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// TestMethodsOfNoLibrary compares methods that neither peft nor adapters implements with their formulas written down
// in PyTorch: logits, losses, gradients and three optimizer steps.
func TestMethodsOfNoLibrary(t *testing.T) {
	found := fixtures(t, "reference")
	if len(found) == 0 {
		t.Fatal("no fixtures")
	}
	for _, fixture := range found {
		t.Run(fixture, func(t *testing.T) {
			f := baseOf(t, fixture)
			_, name, _ := strings.Cut(fixture, "-") // behind family and task
			_, name, _ = strings.Cut(name, "-")
			o, ok := map[string]peft.Options{
				"bitfit": {}, "llama-adapter": {LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLength: 4, AdapterLayers: 2}}, "llama-adapter-v2": {LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLength: 4}},
				"llama-adapter-tanh": {LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLength: 4, AdapterLayers: 1, GateTanh: true}},
			}[name]
			if !ok {
				t.Fatalf("no options for %s", name)
			}
			g := modeltest.OpenGolden(t, fixture+"/golden.safetensors")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := f.load(t, s)
				defer m.Close()
				method, err := peft.New(strings.TrimSuffix(name, "-tanh"), o)
				if err != nil {
					return err
				}
				if err := method.Attach(s, m); err != nil {
					return err
				}
				defer method.Close()
				want := func(what string, p *model.Param) bindings.Tensor { return g.Tensor(s, what+"."+p.Name) }
				ps := method.Trainable(m)
				var names, theirs []string
				s.NoGrad(func() {
					for _, p := range ps {
						names = append(names, p.Name)
						s.Copy(p.T, want("init", p))
					}
				})
				for _, n := range g.Names() {
					if rest, ok := strings.CutPrefix(n, "init."); ok {
						theirs = append(theirs, rest)
					}
				}
				slices.Sort(names)
				slices.Sort(theirs)
				if !slices.Equal(names, theirs) {
					t.Errorf("trained are %v, there %v", names, theirs)
				}
				sameOutputs(t, s, g, f, m)
				sameTraining(t, s, g, f, m, ps, want)
				return nil
			})
		})
	}
}
