package peft_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// TestConversions takes adapters through other dialects and back.
func TestConversions(t *testing.T) {
	causal, gqa, hub := family{folder: "llama/base", batch: "right"}, family{folder: "llama/gqa", batch: "right"}, families[0]
	for _, c := range []struct {
		name string
		f    family
		src  string
		via  []peft.Dialect
	}{
		{"scalar gates", causal, "peft/llama-causal-adaption", []peft.Dialect{peft.DialectLitLLaMA, peft.DialectLLaMAFile, peft.DialectPeft}},
		{"grouped queries", gqa, "peft/gqa-causal-adaption", []peft.Dialect{peft.DialectLLaMAFile, peft.DialectLitLLaMA, peft.DialectPeft}},
		{"prefix", causal, "peft/llama-causal-prefix", []peft.Dialect{peft.DialectHub, peft.DialectPeft}},
		{"head", hub, "adapterhub/distilbert-houlsby-flexible-head", []peft.Dialect{peft.DialectHub}},
		{"pfeiffer", hub, "adapterhub/distilbert-pfeiffer", []peft.Dialect{peft.DialectHub}},
		{"bin", causal, "peft/llama-causal-lora-bin", []peft.Dialect{peft.DialectPeft}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := modeltest.OpenGolden(t, c.f.folder+"/golden.safetensors")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := c.f.load(t, s)
				defer m.Close()
				in := c.f.input(g, s)
				src := modeltest.Testdata(t, c.src)
				var want bindings.Tensor
				for i, d := range append([]peft.Dialect{""}, c.via...) {
					path := src
					if d != "" {
						path = filepath.Join(t.TempDir(), "adapter")
						if d == peft.DialectLitLLaMA || d == peft.DialectLLaMAFile {
							path += ".pth"
						}
						if err := peft.Convert(s, src, path, d, m); err != nil {
							return err
						}
					}
					method, err := peft.Load(s, path, m)
					if err != nil {
						return err
					}
					if info, err := peft.Probe(path); err != nil || d != "" && info.Dialect != d {
						t.Errorf("written as %s, read as %v (%v)", d, info.Dialect, err)
					}
					got := logits(s, m, in)
					method.Close()
					if i == 0 {
						want = got
					}
					closeTo(t, s, 2e-6, string(d)+" logits", got, want)
					src = path
				}
				return nil
			})
		})
	}
}

func TestImpossibleConversionsSayWhy(t *testing.T) {
	for _, c := range []struct {
		name, method string
		o            peft.Options
		f            family
		to           peft.Dialect
		want         string
	}{
		{"unequal gates", "llama-adapter", peft.Options{}, families[2], peft.DialectPeft, "gates of a layer's heads differ"},
		{"large gates", "llama-adapter", peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}}, families[2], peft.DialectLLaMAFile, "stays below 1"},
		{"houlsby in peft", "houlsby", peft.Options{}, families[2], peft.DialectPeft, "no such method"},
		{"lora in the hub", "lora", peft.Options{}, families[2], peft.DialectHub, "holds houlsby, pfeiffer and prefix"},
		{"lora in a checkpoint", "lora", peft.Options{}, families[2], peft.DialectLitLLaMA, "llama-adapter only"},
		{"bitfit in peft", "bitfit", peft.Options{}, families[2], peft.DialectPeft, "no such method"},
		{"prefix of an encoder", "prefix", peft.Options{}, families[0], peft.DialectPeft, "no prefixes for distilbert"},
		{"adaption of an encoder", "llama-adapter", peft.Options{}, families[0], peft.DialectPeft, "distilbert"},
		{"prefix of wide heads", "prefix", peft.Options{}, family{folder: "llama/head-dim", batch: "right"}, peft.DialectHub, "need heads of 16/4, these are of 6"},
		{"embeddings that are the head", "lora", peft.Options{Unfreeze: []string{"embed_tokens"}}, family{folder: "llama/tied", batch: "right"}, peft.DialectPeft,
			"peft would leave lm_head as it is, which here is model.embed_tokens"},
		{"norms in the hub", "houlsby", peft.Options{BottleneckOptions: peft.BottleneckOptions{TrainLayerNorm: true}}, families[0], peft.DialectHub,
			"no place for the model's own weights that were trained too (distilbert.transformer.layer.0.sa_layer_norm.weight, "},
		{"embeddings in the hub", "prefix", peft.Options{Unfreeze: []string{"embed_tokens"}}, families[2], peft.DialectHub, "trained too (model.embed_tokens.weight)"},
		{"a head in a checkpoint", "llama-adapter", peft.Options{Unfreeze: []string{"lm_head"}}, families[2], peft.DialectLitLLaMA, "trained too (lm_head.weight)"},
		{"norms in a checkpoint", "llama-adapter", peft.Options{Unfreeze: []string{"model.norm"}}, families[2], peft.DialectLLaMAFile, "trained too (model.norm.weight)"},
		{"a head beside adaption prompts", "llama-adapter", peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}, Unfreeze: []string{"lm_head"}}, families[2], peft.DialectPeft, "no other trained weights beside adaption prompts (lm_head.weight)"},
		{"adaption prompts behind a bias", "llama-adapter", peft.Options{LLaMAAdapterOptions: peft.LLaMAAdapterOptions{Gate: "layer"}}, families[4], peft.DialectPeft, "the bias of the output map twice"},
		{"prompt of an encoder's classifier", "prompt", peft.Options{}, families[0], peft.DialectPeft, "peft classifies from the first virtual token, this adapter from [CLS]"},
		{"prompt of a decoder's classifier", "prompt", peft.Options{}, families[1], peft.DialectPeft, "peft classifies from the last position, padding or not"},
		{"adapted and trained", "lora", peft.Options{Unfreeze: []string{"*.1.attention.q_lin.weight"}}, families[0], peft.DialectPeft, "layer.1.attention.q_lin has both"},
		{"lora over BERT in peft", "lora", peft.Options{}, family{folder: "distilbert/bert", classify: true, as: "distilbert"}, peft.DialectPeft, "bert checkpoint that was loaded as distilbert"},
		{"houlsby over BERT in the hub", "houlsby", peft.Options{}, family{folder: "distilbert/bert", classify: true, as: "distilbert"}, peft.DialectHub, "bert checkpoint"},
		{"houlsby over qwen2 in the hub", "houlsby", peft.Options{}, family{folder: "llama/qwen2"}, peft.DialectHub, "no models of type qwen2"},
		{"nonsense", "llama-adapter", peft.Options{}, families[2], "x", "not known"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "adapter")
			to := filepath.Join(t.TempDir(), "converted")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				s.Seed(5)
				m := c.f.load(t, s)
				defer m.Close()
				method := shaken(t, s, c.method, c.o, m, 3)
				if err := method.Save(s, dir, m); err != nil {
					return err
				}
				method.Close()
				err := peft.Convert(s, dir, to, c.to, m)
				if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got %v, want one line with %q", err, c.want)
				}
				return nil
			})
			if entries, _ := os.ReadDir(to); len(entries) > 0 {
				t.Errorf("%d files were written", len(entries))
			}
		})
	}
}
