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

// shaken attaches a method and moves everything trainable away from its start.
func shaken(t *testing.T, s *bindings.Scope, name string, o peft.Options, m model.Model, amount float64) peft.Method {
	t.Helper()
	method, err := peft.New(name, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := method.Attach(s, m); err != nil {
		t.Fatal(err)
	}
	shake(s, method, m, amount)
	return method
}

func shake(s *bindings.Scope, method peft.Method, m model.Model, amount float64) {
	s.NoGrad(func() {
		for _, p := range method.Trainable(m) {
			s.AddInPlace(p.T, s.Normal(p.T.Shape(), 0, amount, bindings.Float, p.T.Device()), 1)
		}
	})
}

// fixedBiases are families whose config.json cannot give all maps of a model a bias.
var fixedBiases = []string{"qwen3", "phi3", "olmo2", "gemma2", "gemma3"}

func TestMergedModelsComputeTheSame(t *testing.T) {
	for _, f := range families {
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, v := range []variant{
			{name: "lora", method: "lora", o: peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"all"}}, LoRAOptions: peft.LoRAOptions{RSLoRA: true}}},
			{name: "dora", method: "dora", o: peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"all"}}}},
			{name: "ia3", method: "ia3", o: peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"all"}}}},
			{name: "bitfit", method: "bitfit"},
			{name: "v2", method: "llama-adapter-v2", o: peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLayers: -1, SkipLMHead: true}}},
			{name: "last", method: "last"},
			{name: "full", method: "full"},
		} {
			t.Run(f.name+"/"+v.name, func(t *testing.T) {
				dir := t.TempDir()
				bindingstest.Do(t, func(s *bindings.Scope) error {
					s.Seed(3)
					m := f.load(t, s)
					defer m.Close()
					in := f.input(g, s)
					base := logits(s, m, in)
					method := shaken(t, s, v.method, v.o, m, 0.05)
					defer method.Close()
					want := logits(s, m, in)
					if modeltest.MaxDiff(base, want) < 1e-3 {
						t.Error("the method changes next to nothing")
					}
					err := peft.Merge(s, method, m)
					if i, _, _ := strings.Cut(f.name, "-"); slices.Contains(fixedBiases, i) && (v.name == "bitfit" || v.name == "v2") {
						if err == nil || !strings.Contains(err.Error(), "checkpoint has no place for the biases it adds") {
							t.Errorf("got %v", err)
						}
						closeTo(t, s, 0, "logits after no merging", logits(s, m, in), want)
						return nil
					}
					if err != nil {
						return err
					}
					closeTo(t, s, 5e-6, "logits after merging", logits(s, m, in), want)
					if m.Hooks().Method != "" || len(m.Params().Trainable()) != 0 {
						t.Error("something is still attached or trainable")
					}
					if err := model.Save(s, dir, m); err != nil {
						return err
					}
					back, err := model.Load(s, dir, model.Options{Classify: f.classify})
					if err != nil {
						return err
					}
					closeTo(t, s, 5e-6, "logits after saving and loading", logits(s, back, in), want)
					return back.Close()
				})
			})
		}
	}
}

func TestWhatCannotBeMergedSaysWhy(t *testing.T) {
	f := families[2]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	for _, c := range []struct {
		method string
		o      peft.Options
		want   string
	}{
		{"prompt", peft.Options{}, "virtual tokens"}, {"prefix", peft.Options{}, "belong to no token"}, {"houlsby", peft.Options{}, "nonlinearity"},
		{"pfeiffer", peft.Options{}, "nonlinearity"}, {"llama-adapter", peft.Options{}, "softmax of their own"},
		{"llama-adapter-v2", peft.Options{}, "adapter-layers -1"}, {"llama-adapter-v2", peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLayers: -1}}, "skip-lm-head"},
	} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			method := shaken(t, s, c.method, c.o, m, 0.05)
			in := f.input(g, s)
			before := logits(s, m, in)
			err := peft.Merge(s, method, m)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want %q", c.method, err, c.want)
			}
			modeltest.Close(t, c.method+" after a refusal", logits(s, m, in), before, 0)
			method.Close()
			return nil
		})
	}
}

func TestSwitchingAdapters(t *testing.T) {
	for _, f := range families[:3] {
		t.Run(f.name, func(t *testing.T) {
			g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := f.load(t, s)
				defer m.Close()
				in := f.input(g, s)
				base := logits(s, m, in)
				set := peft.NewSet(m)
				defer set.Close()
				want := map[string]bindings.Tensor{"": base}
				for _, name := range peft.Methods() {
					if name == "full" {
						continue
					}
					method := shaken(t, s, name, peft.Options{}, m, 0.1)
					want[name] = logits(s, m, in)
					if err := set.Add(name, method); err != nil {
						return err
					}
				}
				names := append(set.Names(), "")
				for i := range 3 * len(names) {
					name := names[(i*5)%len(names)]
					if err := set.Use(s, name); err != nil {
						return err
					}
					modeltest.Close(t, "logits of "+name, logits(s, m, in), want[name], 0)
				}
				if err := set.Use(s, "nobody"); err == nil || !strings.Contains(err.Error(), "lora") {
					t.Errorf("an unknown name gives %v", err)
				}
				if _, err := set.Load(s, "whole", modeltest.Testdata(t, f.folder)); err == nil || !strings.Contains(err.Error(), "do not mix") {
					t.Errorf("a model folder among adapters gives %v", err)
				}
				if err := set.Use(s, "lora"); err != nil {
					return err
				}
				other, err := peft.New("ia3", peft.Options{})
				if err != nil {
					return err
				}
				if err := other.Attach(s, m); err == nil || !strings.Contains(err.Error(), "already carries lora") {
					t.Errorf("a second method on the model gives %v", err)
				}
				return nil
			})
		})
	}
}

// TestTablesAreNotMerged: an update of embeddings has no place in what Merge gives, and says so.
func TestTablesAreNotMerged(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := families[2].load(t, s)
		defer m.Close()
		before := checksumOf(m)
		for _, fixture := range []string{"peft/llama-causal-lora-embedding", "peft/llama-causal-lora-tokens"} {
			method, err := peft.Load(s, modeltest.Testdata(t, fixture), m)
			if err != nil {
				return err
			}
			if err := peft.Merge(s, method, m); err == nil || !strings.Contains(err.Error(), "lora cannot be merged: it changes model.embed_tokens, which merging leaves as it is") {
				t.Errorf("%s: %v", fixture, err)
			}
			method.Close()
		}
		if checksumOf(m) != before {
			t.Error("the model has changed")
		}
		return nil
	})
}
