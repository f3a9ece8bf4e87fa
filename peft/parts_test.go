package peft_test

import (
	"path/filepath"
	"slices"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// TestPartsAreWrittenAsOneModule: what changes queries, keys or values of a checkpoint that holds them as one is written for
// peft as an adapter of that one, which computes the same.
func TestPartsAreWrittenAsOneModule(t *testing.T) {
	targets := func(slots ...string) peft.TargetOptions { return peft.TargetOptions{Targets: slots} }
	for _, f := range families {
		module := map[string]string{"gpt2/base": "transformer.h.1.attn.c_attn", "phi3/base": "model.layers.1.self_attn.qkv_proj"}[f.folder]
		if module == "" {
			continue
		}
		out := map[string]int64{"gpt2/base": 48, "phi3/base": 32}[f.folder]
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, c := range []struct {
			name, method string
			o            peft.Options
			key          string
			shape        []int64
		}{
			{"lora", "lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 4}}, ".lora_A.weight", []int64{8, 16}},
			{"one part", "lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 4}, TargetOptions: targets("k", "down")}, ".lora_B.weight", []int64{out, 4}},
			{"rslora", "lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 2, RSLoRA: true}, TargetOptions: targets("all")}, ".lora_B.weight", []int64{out, 6}},
			{"dora", "dora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 4}}, ".lora_magnitude_vector", []int64{out}},
			{"ia3", "ia3", peft.Options{}, ".ia3_l", []int64{out, 1}},
			{"as peft has it", "lora", peft.Options{LoRAOptions: peft.LoRAOptions{Rank: 4}, TargetOptions: targets(module[len(module)-6:])}, ".lora_A.weight", []int64{4, 16}},
		} {
			if f.folder == "phi3/base" && c.name == "as peft has it" {
				c.o.Targets = []string{"qkv_proj"}
			}
			t.Run(f.name+"/"+c.name, func(t *testing.T) {
				bindingstest.Do(t, func(s *bindings.Scope) error {
					m := f.load(t, s)
					defer m.Close()
					in := f.input(g, s)
					method := shaken(t, s, c.method, c.o, m, 0.2)
					want := logits(s, m, in)
					own, theirs := filepath.Join(t.TempDir(), "own"), filepath.Join(t.TempDir(), "peft")
					if err := method.Save(s, own, m); err != nil {
						return err
					}
					method.Close()
					if err := peft.Convert(s, own, theirs, peft.DialectPeft, m); err != nil {
						return err
					}
					for _, dir := range []string{own, theirs} {
						back, err := peft.Load(s, dir, m)
						if err != nil {
							return err
						}
						modeltest.Close(t, dir, logits(s, m, in), want, 2e-5)
						back.Close()
					}
					a, err := files.Open(filepath.Join(theirs, "adapter_model.safetensors"))
					if err != nil {
						return err
					}
					defer a.Close()
					if e, ok := a.Lookup("base_model.model." + module + c.key); !ok || !slices.Equal(e.Shape, c.shape) {
						t.Errorf("%s%s is %v, want %v", module, c.key, e.Shape, c.shape)
					}
					return nil
				})
			})
		}
	}
}
