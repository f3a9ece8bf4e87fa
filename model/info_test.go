package model_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
)

// An outline is what the hooks of a loaded model are, and an Info written by hand knows what the model's own does.
func TestOutlineIsTheModelsOwn(t *testing.T) {
	for _, name := range []string{"distilbert/tiny", "bert/tiny", "roberta/tiny", "llama/base"} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := load(t, s, modeltest.Testdata(t, name), model.Options{})
			defer m.Close()
			i := m.Info()
			byHand := model.Info{Family: i.Family, Vocab: i.Vocab, Hidden: i.Hidden, Layers: i.Layers, Heads: i.Heads, KVHeads: i.KVHeads,
				HeadDim: i.HeadDim, FFN: i.FFN, MaxPositions: i.MaxPositions}
			if got := byHand.Complete(); got != i {
				t.Errorf("%s: completed to %+v, the model's is %+v", name, got, i)
			}
			outline := func(blocks []*model.Block) (out []string) {
				for _, b := range blocks {
					for _, module := range b.Modules {
						out = append(out, b.Name+"."+module.Name)
					}
				}
				return out
			}
			if diff := cmp.Diff(outline(m.Hooks().Blocks), outline(i.Outline())); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
			for _, b := range m.Hooks().Blocks {
				for n, module := range b.Modules {
					w := module.Dense.W.T
					if module.Map != i.Maps()[n] || int64(module.Out) != w.Size(0) || int64(module.In) != w.Size(1) || module.Bias != (module.Dense.B != nil) {
						t.Errorf("%s: %s.%s is %+v with a weight %v, the Info has %+v", name, b.Name, module.Name, module.Map, w, i.Maps()[n])
					}
					if !strings.HasPrefix(module.Name, i.Attention+".") == (n < 4) {
						t.Errorf("%s: %s is in the attention module %s: %v", name, module.Name, i.Attention, n >= 4)
					}
				}
			}
			return nil
		})
	}
}

func TestParametersKnowNormsAndInertBiases(t *testing.T) {
	for name, config := range map[string]string{
		"distilbert": `{"model_type":"distilbert","vocab_size":5,"max_position_embeddings":8,"n_layers":2,"n_heads":2,"dim":8,"hidden_dim":12}`,
		"bert":       `{"model_type":"bert","vocab_size":5,"max_position_embeddings":8,"num_hidden_layers":2,"num_attention_heads":2,"hidden_size":8,"intermediate_size":12}`,
		"gpt2":       `{"model_type":"gpt2","vocab_size":5,"n_positions":8,"n_layer":2,"n_head":2,"n_embd":8,"n_inner":12}`,
		"qwen3":      `{"model_type":"qwen3","vocab_size":5,"max_position_embeddings":8,"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":6,"hidden_size":8,"intermediate_size":12}`,
		"qwen2":      `{"model_type":"qwen2","vocab_size":5,"max_position_embeddings":8,"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"hidden_size":8,"intermediate_size":12}`,
	} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m, err := model.New(s, []byte(config), model.Options{Classify: true})
			if err != nil {
				return err
			}
			defer m.Close()
			for _, p := range m.Params().All() {
				if want := strings.Contains(strings.ToLower(p.Name), "norm") || strings.Contains(p.Name, ".ln_"); p.Norm != want {
					t.Errorf("%s: %s is a norm's: %v, want %v", name, p.Name, p.Norm, want)
				}
				// Rotated keys are shifted by another vector at every position: only these are not rotated.
				if want := strings.HasSuffix(p.Name, ".k_lin.bias") || strings.HasSuffix(p.Name, ".key.bias") || strings.HasSuffix(p.Name, ".c_attn.k.bias"); p.Inert != want {
					t.Errorf("%s: %s is inert: %v, want %v", name, p.Name, p.Inert, want)
				}
				former := *p
				restore := p.Replace(p.T)
				if p.Norm != former.Norm || p.Inert != former.Inert {
					t.Errorf("%s: %s has lost what it is by Replace", name, p.Name)
				}
				restore()
			}
			return nil
		})
	}
}

func TestAddBiases(t *testing.T) {
	config := `{"model_type":"llama","vocab_size":5,"max_position_embeddings":8,"num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"hidden_size":8,"intermediate_size":12}`
	for _, kind := range []string{"llama", "mistral", "qwen2", "qwen3"} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m, err := model.New(s, []byte(strings.Replace(config, "llama", kind, 1)), model.Options{})
			if err != nil {
				return err
			}
			defer m.Close()
			before := len(m.Params().All())
			err = m.AddBiases()
			if kind != "llama" {
				if err == nil || !strings.Contains(err.Error(), kind) || len(m.Params().All()) != before {
					t.Errorf("%s: %v, %d parameters of %d", kind, err, len(m.Params().All()), before)
				}
				return nil
			}
			if err != nil {
				return err
			}
			if n := len(m.Params().All()) - before; n != 2*7 {
				t.Errorf("%d biases for 2 blocks of 7 maps", n)
			}
			for _, mp := range m.Info().Maps() {
				if !mp.Bias {
					t.Errorf("%s has no bias", mp.Name)
				}
			}
			dir := t.TempDir()
			if err := model.Save(s, dir, m); err != nil {
				return err
			}
			again, err := model.Load(s, dir, model.Options{})
			if err != nil {
				return err
			}
			if again.Info() != m.Info() {
				t.Errorf("saved and loaded: %+v, want %+v", again.Info(), m.Info())
			}
			return again.Close()
		})
	}
}

func TestArchitecturesGiveTheirConfigs(t *testing.T) {
	for _, i := range model.Architectures() {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			i.Vocab, i.Hidden, i.Layers, i.Heads, i.KVHeads, i.HeadDim, i.FFN, i.MaxPositions = 7, 8, 2, 4, 4, 2, 12, 16
			config, err := i.ConfigJSON(3)
			if err != nil {
				return err
			}
			m, err := model.New(s, config, model.Options{Classify: true})
			if err != nil {
				return err
			}
			i.Window = m.Info().Window // of some families by themselves
			if heads := m.HeadNames(); m.Info() != i || len(m.Labels()) != 3 || !strings.HasPrefix(i.Classifier+".", heads[len(heads)-1]+".") {
				t.Errorf("%s gives %+v with labels %v, want %+v", config, m.Info(), m.Labels(), i)
			}
			return m.Close()
		})
	}
	if _, err := (model.Info{Family: "mamba"}).ConfigJSON(0); err == nil || !strings.Contains(err.Error(), `"mamba"`) {
		t.Errorf("the config of an unknown architecture: %v", err)
	}
}

func TestUnknownModelTypesAreRefusedNamingTheNearest(t *testing.T) {
	for modelType, want := range map[string]string{
		"qwen4":    `model config: model_type "qwen4" is not supported; the nearest that is: qwen2 (of distilbert, bert, roberta, xlm-roberta, camembert, llama, `,
		"gpt2x":    `the nearest that is: gpt2 `,
		"mixtral":  `model config: model_type "mixtral" is not supported: it is a mixture of experts`,
		"t5":       `model config: model_type "t5" is not supported: it is an encoder with a decoder`,
		"qwen2_vl": `model config: model_type "qwen2_vl" is not supported: it sees pictures, and only text models are read`,
	} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			_, err := model.New(s, []byte(`{"model_type": "`+modelType+`"}`), model.Options{})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			return nil
		})
	}
}
