package peft_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// quantisable are models whose maps are wide enough to be quantised.
var quantisable = []struct {
	name, config string
	classify     bool
}{
	{"llama-causal", `{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 48, "hidden_size": 64, "intermediate_size": 128,
		"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}`, false},
	{"llama-classify", `{"model_type": "llama", "vocab_size": 48, "hidden_size": 64, "intermediate_size": 128,
		"num_hidden_layers": 3, "num_attention_heads": 4, "initializer_range": 0.2}`, true},
	{"distilbert", `{"model_type": "distilbert", "vocab_size": 48, "dim": 64, "hidden_dim": 128, "n_layers": 3, "n_heads": 4,
		"dropout": 0, "attention_dropout": 0, "seq_classif_dropout": 0, "initializer_range": 0.2}`, true},
	{"bert", `{"model_type": "bert", "vocab_size": 48, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
		"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0, "initializer_range": 0.2}`, true},
	{"roberta", `{"model_type": "roberta", "vocab_size": 48, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
		"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0, "initializer_range": 0.2}`, true},
	{"gpt2", `{"model_type": "gpt2", "vocab_size": 48, "n_embd": 64, "n_inner": 128, "n_layer": 3, "n_head": 4, "initializer_range": 0.2,
		"resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}`, false},
	{"phi3", `{"model_type": "phi3", "vocab_size": 48, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
		"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}`, false},
}

// twins gives a model whose maps are quantised, and one that holds the same weights in fp32.
func twins(t *testing.T, s *bindings.Scope, config string, classify bool, q hf.Quantisation) (quantised, plain model.Model) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	s.Seed(4)
	m, err := model.New(s, []byte(config), model.Options{Classify: classify})
	if err == nil {
		err = os.Mkdir(dir, 0o777)
	}
	if err == nil {
		err = model.Save(s, dir, m)
	}
	if err == nil {
		err = m.Close()
	}
	if err == nil {
		quantised, err = model.Load(s, dir, model.Options{Classify: classify, Quantise: q})
	}
	if err == nil {
		plain, err = model.Load(s, dir, model.Options{Classify: classify, Copy: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, p := range quantised.Params().All() {
		if p.Quantised() {
			n++
			s.Copy(plain.Params().All()[i].T, p.Stored(s, bindings.Float))
		}
	}
	if want := len(quantised.Hooks().Blocks) * len(quantised.Hooks().Blocks[0].Modules); n != want {
		t.Errorf("%d weights are quantised, want the %d maps of the blocks", n, want)
	}
	return quantised, plain
}

// Over a quantised base every method computes what it computes over the same weights in fp32: loss, gradients, merged and
// saved.
func TestMethodsOverAQuantisedBase(t *testing.T) {
	kinds := map[string]hf.Quantisation{"nf4": hf.NF4, "int8": hf.Int8}
	for _, c := range quantisable {
		for bits, kind := range kinds {
			for _, name := range peft.Methods() {
				t.Run(c.name+"/"+bits+"/"+name, func(t *testing.T) {
					bindingstest.Do(t, func(s *bindings.Scope) error {
						quantised, plain := twins(t, s, c.config, c.classify, kind)
						defer quantised.Close()
						defer plain.Close()
						in := model.Input{IDs: s.FromInt64s([]int64{3, 7, 1, 12, 30, 5, 9, 44, 2, 8, 6, 40}, 2, 6), Mask: s.Full([]int64{2, 6}, 1, bindings.Int64, bindings.CPU)}
						labels := s.FromInt64s([]int64{1, 0}, 2)
						if !c.classify {
							labels = in.IDs
						}
						o := peft.Options{TargetOptions: peft.TargetOptions{Targets: []string{"all"}}}
						if name != "lora" && name != "dora" && name != "ia3" {
							o = peft.Options{}
						}
						if name == "full" {
							method, err := peft.New(name, o)
							if err != nil {
								return err
							}
							err = method.Attach(s, quantised)
							if err == nil || !strings.Contains(err.Error(), "is quantised") {
								t.Errorf("full on a quantised base: %v", err)
							}
							return nil
						}
						var losses [2]float64
						var grads [2][]bindings.Tensor
						methods := [2]peft.Method{}
						for i, m := range []model.Model{quantised, plain} {
							s.Seed(9)
							methods[i] = shaken(t, s, name, o, m, 0.02)
							defer methods[i].Close()
							tr := newTrainer(s, methods[i].Trainable(m), 1e-3)
							losses[i], grads[i] = tr.backward(s, m, in, labels), tr.g
						}
						if math.Abs(losses[0]-losses[1]) > 2e-6*losses[1] {
							t.Errorf("loss %v, over fp32 weights %v", losses[0], losses[1])
						}
						for i, g := range grads[1] {
							closeTo(t, s, 2e-5, methods[1].Trainable(plain)[i].Name+"'s gradient", grads[0][i], g)
						}
						want := logits(s, plain, in)
						dir := filepath.Join(t.TempDir(), "adapter")
						if err := methods[0].Save(s, dir, quantised); err != nil {
							return err
						}
						methods[0].Detach()
						back, err := peft.Load(s, dir, quantised)
						if err != nil {
							return err
						}
						defer back.Close()
						closeTo(t, s, 2e-5, "logits of what was saved", logits(s, quantised, in), want)
						if ok, _ := peft.Builtin().Mergeable(name); !ok || name == "llama-adapter-v2" {
							return nil
						}
						err = peft.Merge(s, back, quantised)
						if name == "bitfit" && slices.Contains(fixedBiases, c.name) {
							if err == nil || !strings.Contains(err.Error(), "checkpoint has no place for the biases it adds") {
								t.Errorf("got %v", err)
							}
							return nil
						}
						if err != nil {
							return err
						}
						closeTo(t, s, 1e-4, "logits after merging", logits(s, quantised, in), want)
						return nil
					})
				})
			}
		}
	}
}

// A quantised base's weights differ from the originals' a little: no adapter is said to be another model's for that.
func TestQuantisedBaseIsNoOtherModel(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		quantised, plain := twins(t, s, quantisable[0].config, false, hf.NF4)
		defer quantised.Close()
		defer plain.Close()
		dir := filepath.Join(t.TempDir(), "adapter")
		method := shaken(t, s, "lora", peft.Options{}, quantised, 0.01)
		if err := method.Save(s, dir, quantised); err != nil {
			return err
		}
		method.Close()
		s.NoGrad(func() {
			for _, b := range plain.Hooks().Blocks {
				q, _ := b.Module(model.Q)
				s.MulScalarInPlace(q.Dense.W.T, 1.1)
			}
		})
		back, err := peft.Load(s, dir, plain)
		if err != nil {
			return err
		}
		defer back.Close()
		if notes := back.Notes(); len(notes) > 0 {
			t.Errorf("notes: %v", notes)
		}
		return nil
	})
}

// Losses and gradients are those of transformers, peft and bitsandbytes over the same folders.
func TestQLoRAIsBitsandbytes(t *testing.T) {
	for _, folder := range []string{"nf4-double", "int8"} {
		t.Run(folder, func(t *testing.T) {
			g := modeltest.OpenGolden(t, "quantised_folders/"+folder+"/golden.safetensors")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m, err := model.Load(s, modeltest.Testdata(t, "quantised_folders/"+folder), model.Options{Quantise: hf.Keep})
				if err != nil {
					return err
				}
				defer m.Close()
				method, err := peft.Load(s, modeltest.Testdata(t, "quantised_folders/adapter"), m)
				if err != nil {
					return err
				}
				defer method.Close()
				in := model.Input{IDs: g.Tensor(s, "full.input_ids"), Mask: g.Tensor(s, "full.attention_mask")}
				l := loss(s, m, in, g.Tensor(s, "full.labels"))
				s.Backward(l)
				modeltest.Close(t, "loss", l, g.Tensor(s, "train.loss"), 1e-5)
				for _, p := range method.Params().All() {
					closeTo(t, s, 2e-5, p.Name+"'s gradient", s.Grad(p.T), g.Tensor(s, "grad.base_model.model."+p.Name))
				}
				return nil
			})
		})
	}
}
