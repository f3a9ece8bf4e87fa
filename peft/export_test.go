package peft_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// exported are the families that check_ours.py knows.
var exported = map[string]bool{"distilbert-seqcls": true, "llama-seqcls": true, "llama-causal": true, "gqa-causal": true, "bert-seqcls": true, "roberta-seqcls": true}

// TestExportForPython writes adapters and what they compute to the folder GOPEFT_EXPORT, for
// scripts/goldens/check_ours.py to load with the Python libraries.
func TestExportForPython(t *testing.T) {
	top := os.Getenv("GOPEFT_EXPORT")
	if top == "" {
		t.Skip("SKIPPED: scripts/goldens/check_ours.py runs this test with GOPEFT_EXPORT set")
	}
	for _, f := range families {
		if !exported[f.name] {
			continue
		}
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, v := range []struct {
			name, method string
			o            peft.Options
			merge        bool
			only         string // a family
			hub          bool   // written for AdapterHub
		}{
			{name: "lora", method: "lora", o: peft.Options{LoRAOptions: peft.LoRAOptions{Alpha: 12}}},
			{name: "rslora", method: "lora", o: peft.Options{LoRAOptions: peft.LoRAOptions{RSLoRA: true, Rank: 3}, TargetOptions: peft.TargetOptions{Targets: []string{"all"}}}},
			{name: "dora", method: "dora", o: peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"q", "down"}}}},
			{name: "unfreeze", method: "lora", o: peft.Options{Unfreeze: []string{"lm_head", "*.1.mlp.*"}}, only: "llama-causal"},
			{name: "lora-biases", method: "lora", o: peft.Options{Unfreeze: []string{"*.bias"}}, only: "distilbert-seqcls"},
			{name: "pissa", method: "lora", o: peft.Options{LoRAOptions: peft.LoRAOptions{LoRAInit: "pissa", RSLoRA: true, AlphaPattern: []string{"v_.*=3"}}}},
			{name: "olora", method: "dora", o: peft.Options{LoRAOptions: peft.LoRAOptions{LoRAInit: "olora", Rank: 3}}},
			{name: "lora-patterns", method: "lora", o: peft.Options{LoRAOptions: peft.LoRAOptions{RankPattern: []string{"0.*=3", "[vo]_(lin|proj)=1"}, AlphaPattern: []string{"q_.*=7"}}, TargetOptions: peft.TargetOptions{Layers: []int{0, 1}}}},
			{name: "new-tokens", method: "lora", o: peft.Options{LoRAOptions: peft.LoRAOptions{NewTokens: []int64{48, 49, 50}}}, only: "llama-causal"},
			{name: "oft-layers", method: "oft", o: peft.Options{OFTOptions: peft.OFTOptions{BlockSize: 8}, TargetOptions: peft.TargetOptions{Layers: []int{1}}}},
			{name: "ia3-layers", method: "ia3", o: peft.Options{TargetOptions: peft.TargetOptions{Layers: []int{1}}}},
			{name: "ia3", method: "ia3"},
			{name: "ln-tuning", method: "ln-tuning"},
			{name: "oft", method: "oft", o: peft.Options{OFTOptions: peft.OFTOptions{BlockSize: 8}}},
			{name: "boft", method: "boft"},
			{name: "boft-butterflies", method: "boft", o: peft.Options{BOFTOptions: peft.BOFTOptions{Butterflies: 3}, OFTOptions: peft.OFTOptions{BlockSize: 2}}},
			{name: "boft-merged", method: "boft", merge: true, o: peft.Options{BOFTOptions: peft.BOFTOptions{Butterflies: 2}, TargetOptions: peft.TargetOptions{Targets: []string{"q", "down"}}}},
			{name: "oft-merged", method: "oft", merge: true, o: peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"all"}}}},
			{name: "prompt", method: "prompt", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 4}}},
			{name: "prefix", method: "prefix", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 4}}},
			{name: "prefix-projection", method: "prefix", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 4}, PrefixOptions: peft.PrefixOptions{PrefixProjection: true, PrefixHidden: 7}}},
			{name: "prefix-hub", method: "prefix", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 4}}, only: "llama", hub: true},
			{name: "prefix-hub-projection", method: "prefix", o: peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 4}, PrefixOptions: peft.PrefixOptions{PrefixProjection: true, PrefixHidden: 7}}, only: "llama", hub: true},
			{name: "houlsby", method: "houlsby", o: peft.Options{BottleneckOptions: peft.BottleneckOptions{Bottleneck: 3}}},
			{name: "pfeiffer", method: "pfeiffer", o: peft.Options{BottleneckOptions: peft.BottleneckOptions{Bottleneck: 8}}},
			{name: "adaption", method: "llama-adapter", o: peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer", AdapterLayers: 2, AdapterLength: 4}}, only: "llama"},
			{name: "full", method: "full"},
			{name: "last", method: "last"},
			{name: "lora-merged", method: "lora", merge: true},
			{name: "dora-merged", method: "dora", merge: true, o: peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"all"}}}},
			{name: "ia3-merged", method: "ia3", merge: true},
			{name: "bitfit-merged", method: "bitfit", merge: true},
			{name: "v2-merged", method: "llama-adapter-v2", merge: true, o: peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{AdapterLayers: -1, SkipLMHead: true}}},
		} {
			to := peft.Dialect("")
			if v.hub {
				to = peft.DialectHub
			}
			if fused := strings.HasPrefix(f.name, "gpt2") || strings.HasPrefix(f.name, "phi3"); fused {
				switch {
				case slices.Contains(strings.Fields("houlsby pfeiffer oft boft ln-tuning prefix-projection"), v.name):
					continue // which peft or AdapterHub has not for them, or which is no other than elsewhere
				case !v.merge && v.name != "full" && v.name != "last":
					to = peft.DialectPeft
				}
			}
			if v.only == "" || v.only == f.name || v.only == "llama" && strings.HasPrefix(f.folder, "llama/") {
				export(t, filepath.Join(top, f.name, v.name), f, g, v.method, v.o, v.merge, to)
			}
		}
	}
}

// TestExportAgainForPython writes what it has read of peft's folders to the folder GOPEFT_EXPORT.
func TestExportAgainForPython(t *testing.T) {
	top := os.Getenv("GOPEFT_EXPORT")
	if top == "" {
		t.Skip("SKIPPED: scripts/goldens/check_ours.py runs this test with GOPEFT_EXPORT set")
	}
	for _, fixture := range fixtures(t, "peft") {
		family, method, ok := cutAfter(filepath.Base(fixture), "causal-", "seqcls-")
		if !ok || !slices.Contains(strings.Fields("lora-embedding lora-tokens lora-new-tokens lora-saved lora-patterns adalora vera pissa pissa-trained olora-trained norms oft oft-shared boft boft-butterflies adaption"), method) {
			continue
		}
		f := baseOf(t, fixture)
		f.batch = map[bool]string{true: "right", false: "padded"}[strings.HasPrefix(f.folder, "llama/")]
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			a, err := peft.Load(s, modeltest.Testdata(t, fixture), m)
			if err != nil {
				return err
			}
			defer a.Close()
			dir := filepath.Join(top, family, method+"-again")
			if err := a.Save(s, dir, m); err != nil {
				return err
			}
			return store(s, filepath.Join(dir, "ours.safetensors"), batches(s, g, f, m, nil))
		})
	}
}

// cutAfter cuts a name behind the first of some words that is in it.
func cutAfter(name string, words ...string) (before, after string, ok bool) {
	for _, word := range words {
		if i := strings.Index(name, word); i >= 0 {
			return strings.TrimSuffix(name[:i+len(word)], "-"), name[i+len(word):], true
		}
	}
	return "", "", false
}

func export(t *testing.T, dir string, f family, g *modeltest.Golden, name string, o peft.Options, merge bool, to peft.Dialect) {
	t.Helper()
	for _, d := range []bindings.DType{bindings.Float, bindings.BFloat16} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m, err := model.Load(s, modeltest.Testdata(t, f.folder), model.Options{Classify: f.classify, DType: d})
			if err != nil {
				return err
			}
			defer m.Close()
			var ts []hf.Named
			if d == bindings.BFloat16 { // the adapter in fp32 over a half base
				if name == "full" || name == "last" || merge {
					return nil
				}
				method, err := peft.Load(s, dir, m)
				if err != nil {
					return err
				}
				defer method.Close()
				return store(s, filepath.Join(dir, "bf16.safetensors"), batches(s, g, f, m, ts))
			}
			s.Seed(11)
			o.Base = f.folder
			method := shaken(t, s, name, o, m, 0.15)
			defer method.Close()
			ts = batches(s, g, f, m, ts)
			if !f.classify {
				full := f
				full.batch = "full"
				in := full.input(g, s)
				ids := greedy(s, m, in, 24)
				ts = append(ts, hf.Named{Name: "full.new_ids", Tensor: s.FromInt64s(ids, in.IDs.Size(0), 24)})
			}
			if merge {
				if err := peft.Merge(s, method, m); err != nil {
					return err
				}
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return err
				}
				if err := model.Save(s, dir, m); err != nil {
					return err
				}
			} else if err := method.Save(s, dir, m); err != nil {
				return err
			}
			if to != "" {
				method.Close()
				own := dir + "-own"
				if err := errors.Join(os.Rename(dir, own), peft.Convert(s, own, dir, to, m), os.RemoveAll(own)); err != nil {
					return err
				}
			}
			return store(s, filepath.Join(dir, "ours.safetensors"), ts)
		})
	}
}

// batches are a model's logits on a family's batches, also under autocast.
func batches(s *bindings.Scope, g *modeltest.Golden, f family, m model.Model, ts []hf.Named) []hf.Named {
	for _, b := range []string{"full", f.batch} {
		f.batch = b
		in := f.input(g, s)
		add := func(name string, t bindings.Tensor) { ts = append(ts, hf.Named{Name: b + "." + name, Tensor: t}) }
		s.NoGrad(func() {
			add("input_ids", in.IDs)
			add("attention_mask", in.Mask)
			add("logits", s.Contiguous(s.To(logits(s, m, in), bindings.Float)))
			s.Autocast(bindings.CPU, bindings.BFloat16, func() { add("autocast", s.Contiguous(s.To(logits(s, m, in), bindings.Float))) })
		})
	}
	return ts
}

func store(s *bindings.Scope, path string, ts []hf.Named) error {
	out, err := hf.Outgoing(s, ts)
	if err != nil {
		return err
	}
	return files.WriteSafetensors(path, out, nil)
}
