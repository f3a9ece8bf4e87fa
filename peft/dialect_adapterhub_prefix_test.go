package peft_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// TestPrefixesOfDecodersInAdapterHub: that library does not count a prefix's positions, peft does. Converted, a
// prefix computes the same; saved again, it stays what it is; and it works with caches and packed rows.
func TestPrefixesOfDecodersInAdapterHub(t *testing.T) {
	ropes := func(kind string) family { return family{name: kind, folder: "llama/" + kind, batch: "left"} }
	for _, f := range []family{families[1], families[2], families[3], families[4], ropes("rope-linear"), ropes("rope-llama3")} {
		g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
		for _, projection := range []bool{false, true} {
			t.Run(f.name+map[bool]string{true: "-projection"}[projection], func(t *testing.T) {
				dir := t.TempDir()
				at := func(name string) string { return filepath.Join(dir, name) }
				bindingstest.Do(t, func(s *bindings.Scope) error {
					s.Seed(4)
					m := f.load(t, s)
					defer m.Close()
					in := f.input(g, s)
					method := shaken(t, s, "prefix", peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 7}, PrefixOptions: peft.PrefixOptions{PrefixProjection: projection}}, m, 0.5)
					want := logits(s, m, in)
					if err := method.Save(s, at("peft"), m); err != nil {
						return err
					}
					method.Close()
					if err := peft.Convert(s, at("peft"), at("hub"), peft.DialectHub, m); err != nil {
						return err
					}
					for name, keys := range weightsFiles(t, at("hub")) {
						for _, key := range keys {
							if !strings.Contains(key, ".self_prefix.") && !strings.HasPrefix(key, "score.") {
								t.Errorf("%s holds %s", name, key)
							}
						}
					}
					method, err := peft.Load(s, at("hub"), m)
					if err != nil {
						return err
					}
					closeTo(t, s, 5e-6, "converted", logits(s, m, in), want)
					if n := m.Hooks().MemoryLen(); n != 0 {
						t.Errorf("the prefix takes %d positions", n)
					}
					if !f.classify {
						generatesWithACache(t, s, f, m, g)
						packsRows(t, s, f.name, m, g, method.Trainable(m))
					}
					if err := method.Save(s, at("again"), m); err != nil {
						return err
					}
					same := logits(s, m, in)
					method.Close()
					if err := peft.Convert(s, at("again"), at("back"), peft.DialectPeft, m); err != nil {
						return err
					}
					for name, dialect := range map[string]peft.Dialect{"again": peft.DialectHub, "back": peft.DialectPeft} {
						method, err := peft.Load(s, at(name), m)
						if err != nil {
							return err
						}
						if info, err := peft.Probe(at(name)); err != nil || info.Dialect != dialect || method.Options().PrefixProjection != projection {
							t.Errorf("%s: %s, %+v (%v)", name, info.Dialect, method.Options(), err)
						}
						tolerance := map[string]float64{"again": 0, "back": 5e-6}[name]
						closeTo(t, s, tolerance, name, logits(s, m, in), map[string]bindings.Tensor{"again": same, "back": want}[name])
						method.Close()
						if m.Hooks().Uncounted {
							t.Error("the model counts no positions after the method is gone")
						}
					}
					return nil
				})
			})
		}
	}
}

// TestPrefixesOfDynamicRotationsStay: their keys cannot be turned once for texts of all lengths.
func TestPrefixesOfDynamicRotationsStay(t *testing.T) {
	f := family{folder: "llama/rope-dynamic", batch: "right"}
	for _, projection := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "adapter")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := f.load(t, s)
			defer m.Close()
			method := shaken(t, s, "prefix", peft.Options{PromptOptions: peft.PromptOptions{VirtualTokens: 3}, PrefixOptions: peft.PrefixOptions{PrefixProjection: projection}}, m, 0.1)
			if err := method.Save(s, dir, m); err != nil {
				return err
			}
			method.Close()
			err := peft.Convert(s, dir, dir+"-hub", peft.DialectHub, m)
			if err == nil || !strings.Contains(err.Error(), "the other does not: the model's rotation of keys depends on the text's length") {
				t.Errorf("got %v", err)
			}
			return nil
		})
	}
}

// TestPrefixesWithAHeadPerQuery: adapters 0.2 gives them to models whose heads share keys and values. They stay so when
// saved again, and peft can hold those alone that are the same for heads that share.
func TestPrefixesWithAHeadPerQuery(t *testing.T) {
	f := families[3]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	for _, fixture := range []string{"adapterhub-0.2/gqa-causal-prefix", "adapterhub-0.2/gqa-causal-prefix-flat"} {
		t.Run(fixture, func(t *testing.T) {
			dir := t.TempDir()
			at := func(name string) string { return filepath.Join(dir, name) }
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := f.load(t, s)
				defer m.Close()
				in := f.input(g, s)
				method, err := peft.Load(s, modeltest.Testdata(t, fixture), m)
				if err != nil {
					return err
				}
				want := logits(s, m, in)
				generatesWithACache(t, s, f, m, g)
				packsRows(t, s, f.name, m, g, method.Trainable(m))
				if err := method.Save(s, at("again"), m); err != nil {
					return err
				}
				method.Close()
				err = peft.Convert(s, at("again"), at("peft"), peft.DialectPeft, m)
				if err == nil || !strings.Contains(err.Error(), "heads that share keys and values have prefixes of their own") {
					t.Errorf("to peft: %v", err)
				}
				if method, err = peft.Load(s, at("again"), m); err != nil {
					return err
				}
				modeltest.Close(t, "saved again", logits(s, m, in), want, 0)
				s.NoGrad(func() { // what the first of two heads has, for both
					for _, p := range method.Params().All() {
						if p.Name != "prompt_embeddings" && !strings.HasPrefix(p.Name, "transform.2.") {
							continue
						}
						rest := int64(1) // behind the heads
						if strings.HasSuffix(p.Name, ".weight") {
							rest = p.T.Size(1)
						}
						heads := s.Reshape(p.T, -1, 2, 4*rest) // heads are 4 wide
						s.Copy(s.Narrow(heads, 1, 1, 1), s.Narrow(heads, 1, 0, 1))
					}
				})
				want = logits(s, m, in)
				if err := method.Save(s, at("same"), m); err != nil {
					return err
				}
				method.Close()
				if err := peft.Convert(s, at("same"), at("peft"), peft.DialectPeft, m); err != nil {
					return err
				}
				if method, err = peft.Load(s, at("peft"), m); err != nil {
					return err
				}
				defer method.Close()
				closeTo(t, s, 5e-6, "in peft", logits(s, m, in), want)
				return nil
			})
		})
	}
}

// TestHeadsOfLanguageModelsInAdapterHub: one that was trained is saved as it is read, and none fits a model whose head
// is its embeddings.
func TestHeadsOfLanguageModelsInAdapterHub(t *testing.T) {
	f := families[2]
	g := modeltest.OpenGolden(t, f.folder+"/golden.safetensors")
	trained := modeltest.Testdata(t, "adapterhub/llama-causal-pfeiffer-trained-head")
	dir := filepath.Join(t.TempDir(), "again")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := f.load(t, s)
		defer m.Close()
		in := f.input(g, s)
		method, err := peft.Load(s, trained, m)
		if err != nil {
			return err
		}
		want := logits(s, m, in)
		method.Close()
		if err := peft.Convert(s, trained, dir, peft.DialectHub, m); err != nil {
			return err
		}
		if method, err = peft.Load(s, dir, m); err != nil {
			return err
		}
		defer method.Close()
		modeltest.Close(t, "written again", logits(s, m, in), want, 0)
		return nil
	})
	saved := weightsFiles(t, dir)
	if got := saved["pytorch_model_head.bin"]; len(got) != 1 || got[0] != "lm_head.weight" {
		t.Errorf("files are %v", saved)
	}
	other := copyFolder(t, trained)
	edit(t, filepath.Join(other, "head_config.json"), func(m map[string]any) { m["model_class"] = "LlamaForTokenClassification" })
	loadFails(t, f, other, "the head of a LlamaForTokenClassification is not supported (ForSequenceClassification, ForCausalLM)")
	short := copyFolder(t, trained)
	rewrite(t, filepath.Join(short, "model_head.safetensors"), func(ts []files.Tensor) []files.Tensor {
		ts[0].Shape, ts[0].Data = []int64{47, 16}, ts[0].Data[:47*16*4]
		return ts
	})
	loadFails(t, f, short, "lm_head.weight is [47 16], want [48 16]")
}

// TestHubFoldersNameTheModelsClass: the library loads a head only into a model of the class that its folder names.
func TestHubFoldersNameTheModelsClass(t *testing.T) {
	for folder, want := range map[string]string{"llama/base": "LlamaForCausalLM", "llama/mistral": "MistralForCausalLM", "distilbert/tiny": "DistilBertModel"} {
		dir := filepath.Join(t.TempDir(), "adapter")
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := family{folder: folder}.load(t, s)
			defer m.Close()
			method := shaken(t, s, "houlsby", peft.Options{}, m, 0.1)
			defer method.Close()
			return method.Save(s, dir, m)
		})
		raw, err := os.ReadFile(filepath.Join(dir, "adapter_config.json"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), `"model_class": "`+want+`"`) && !strings.Contains(string(raw), `"model_class":"`+want+`"`) {
			t.Errorf("%s: want class %s in %s", folder, want, raw)
		}
	}
}
