package model_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
)

func load(t *testing.T, s *bindings.Scope, path string, o model.Options) model.Model {
	t.Helper()
	m, err := model.Load(s, path, o)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func batch(g *modeltest.Golden, s *bindings.Scope, name string) model.Input {
	return model.Input{IDs: g.Tensor(s, name+".input_ids"), Mask: g.Tensor(s, name+".attention_mask")}
}

// real zeroes the states of padding positions, which nothing reads.
func real(s *bindings.Scope, in model.Input, h bindings.Tensor) bindings.Tensor {
	return s.Mul(h, s.To(s.Unsqueeze(in.Mask, -1), bindings.Float))
}

func TestDistilBERTMatchesTransformers(t *testing.T) {
	for _, folder := range []string{"distilbert/tiny", "distilbert/bert"} {
		t.Run(folder, func(t *testing.T) {
			g := modeltest.OpenGolden(t, folder+"/golden.safetensors")
			classify := g.Has("full.logits")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := load(t, s, modeltest.Testdata(t, folder), model.Options{Classify: classify, As: "distilbert"})
				for _, name := range []string{"full", "padded"} {
					in := batch(g, s, name)
					var states []bindings.Tensor
					in.States = &states
					out := m.Forward(s, in)
					for i, h := range states {
						want := g.Tensor(s, fmt.Sprintf("%s.hidden_states.%d", name, i))
						modeltest.Close(t, fmt.Sprintf("%s state %d", name, i), real(s, in, h), real(s, in, want), 1e-5)
					}
					if len(states) != m.Info().Layers+1 {
						t.Errorf("%d states", len(states))
					}
					if classify {
						logits := m.Classify(s, in, out)
						modeltest.Close(t, name+" logits", logits, g.Tensor(s, name+".logits"), 1e-5)
						in.Pooled, in.States = true, nil
						pooled := m.Classify(s, in, m.Forward(s, in))
						modeltest.Close(t, name+" logits of a pooled pass", pooled, logits, 1e-6)
						loss := s.CrossEntropy(logits, g.Tensor(s, name+".labels"), -100, true)
						modeltest.Close(t, name+" loss", loss, g.Tensor(s, name+".loss"), 1e-5)
					}
				}
				return m.Close()
			})
		})
	}
}

func TestDistilBERTGradientsMatchTransformers(t *testing.T) {
	g := modeltest.OpenGolden(t, "distilbert/tiny/golden.safetensors")
	adam := modeltest.OpenGolden(t, "distilbert/tiny/adam.safetensors")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m := load(t, s, modeltest.Testdata(t, "distilbert/tiny"), model.Options{Classify: true})
		for _, p := range m.Params().All() {
			p.SetTrainable(s, true)
		}
		for _, pooled := range []bool{false, true} {
			in := batch(g, s, "padded")
			in.Pooled = pooled
			loss := s.In(func(s *bindings.Scope) bindings.Tensor {
				return s.CrossEntropy(m.Classify(s, in, m.Forward(s, in)), g.Tensor(s, "padded.labels"), -100, true)
			})
			s.Backward(loss)
			for _, p := range m.Params().All() {
				grad := s.Grad(p.T)
				if !grad.Defined() {
					t.Errorf("%s has no gradient", p.Name)
					continue
				}
				modeltest.Close(t, "gradient of "+p.Name, grad, adam.Tensor(s, "grad."+p.Name), 1e-5)
				s.SetGrad(p.T, bindings.Tensor{})
			}
		}
		return m.Close()
	})
}

func TestEveryLayoutOfACheckpointLoadsTheSame(t *testing.T) {
	g := modeltest.OpenGolden(t, "distilbert/tiny/golden.safetensors")
	for _, folder := range []string{"tiny-noprefix", "tiny-mlm", "tiny-bin", "tiny-sharded", "tiny-sharded-bin"} {
		t.Run(folder, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := load(t, s, modeltest.Testdata(t, "distilbert/"+folder), model.Options{})
				in := batch(g, s, "full")
				modeltest.Close(t, "hidden states", m.Forward(s, in).Hidden, g.Tensor(s, "full.hidden_states.3"), 1e-5)
				return m.Close()
			})
		})
	}
	for _, folder := range []string{"tiny-fp16", "tiny-bf16"} {
		t.Run(folder, func(t *testing.T) {
			g := modeltest.OpenGolden(t, "distilbert/"+folder+"/golden.safetensors")
			ref := modeltest.OpenGolden(t, "distilbert/tiny/golden.safetensors")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m := load(t, s, modeltest.Testdata(t, "distilbert/"+folder), model.Options{Classify: true})
				in := batch(ref, s, "padded")
				modeltest.Close(t, "logits", m.Classify(s, in, m.Forward(s, in)), g.Tensor(s, "padded.logits"), 1e-5)
				return m.Close()
			})
		})
	}
}

func TestHeadFollowsTheLabels(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		folder := modeltest.Testdata(t, "distilbert/tiny")
		same := load(t, s, folder, model.Options{Classify: true, Labels: []string{"LABEL_0", "LABEL_1", "LABEL_2"}})
		other := load(t, s, folder, model.Options{Classify: true, Labels: []string{"a", "b", "c", "d", "e", "f"}})
		if len(same.Fresh()) != 0 || strings.Join(other.Fresh(), " ") != "pre_classifier.weight pre_classifier.bias classifier.weight classifier.bias" {
			t.Errorf("fresh: %v and %v", same.Fresh(), other.Fresh())
		}
		if n := other.Params().Get("classifier.weight").T.Size(0); n != 6 {
			t.Errorf("%d outputs", n)
		}
		return errorsJoin(same.Close(), other.Close())
	})
}

func errorsJoin(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestCountsOfDistilBERTBase(t *testing.T) {
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m, err := model.New(s, []byte(`{"model_type": "distilbert"}`), model.Options{Classify: true})
		if err != nil {
			return err
		}
		if err := m.Params().Unfreeze(s, m.HeadNames()...); err != nil {
			return err
		}
		trainable, total := m.Params().Count()
		if trainable != 592130 || total != 66955010 {
			t.Errorf("%d of %d trainable", trainable, total)
		}
		return m.Close()
	})
}

func TestSavedModelsLoadBack(t *testing.T) {
	g := modeltest.OpenGolden(t, "distilbert/bert/golden.safetensors")
	for _, as := range []string{"", "distilbert"} {
		dir := t.TempDir()
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := load(t, s, modeltest.Testdata(t, "distilbert/bert"), model.Options{Classify: true, As: as, Labels: []string{"neg", "pos"}})
			if err := model.Save(s, dir, m); err != nil {
				return err
			}
			back := load(t, s, dir, model.Options{Classify: true})
			in := batch(g, s, "padded")
			modeltest.Close(t, "logits", back.Classify(s, in, back.Forward(s, in)), m.Classify(s, in, m.Forward(s, in)), 0)
			if strings.Join(back.Labels(), " ") != "neg pos" || len(back.Fresh()) != 0 || back.Info().Family != m.Info().Family {
				t.Errorf("labels %v, fresh %v, family %s", back.Labels(), back.Fresh(), back.Info().Family)
			}
			return errorsJoin(m.Close(), back.Close())
		})
	}
}

func TestBadCheckpointsAreNamed(t *testing.T) {
	tiny := modeltest.Testdata(t, "distilbert/tiny")
	config, err := os.ReadFile(filepath.Join(tiny, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, config, want string }{
		{"wrong size", strings.Replace(string(config), `"dim": 16`, `"dim": 20`, 1), "of the wrong shape"},
		{"more layers", strings.Replace(string(config), `"n_layers": 3`, `"n_layers": 4`, 1), "missing (distilbert.transformer.layer.3.attention.q_lin.weight"},
		{"fewer layers", strings.Replace(string(config), `"n_layers": 3`, `"n_layers": 2`, 1), "unexpected (distilbert.transformer.layer.2"},
		{"odd heads", strings.Replace(string(config), `"n_heads": 4`, `"n_heads": 3`, 1), "not a multiple"},
		{"negative", strings.Replace(string(config), `"vocab_size": 80`, `"vocab_size": -1`, 1), "vocab_size"},
		{"unknown type", `{"model_type": "mamba"}`, `model_type "mamba"`},
		{"wrong field", `{"model_type": "distilbert", "dim": "x"}`, "config.json"},
		{"activation", `{"model_type": "distilbert", "activation": "x"}`, "activation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			weights, err := os.ReadFile(filepath.Join(tiny, "model.safetensors"))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "model.safetensors"), weights, 0o600)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.config), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			base := bindings.Live()
			err = bindings.Do(context.Background(), func(s *bindings.Scope) error {
				_, err := model.Load(s, dir, model.Options{Classify: true})
				return err
			})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
			if n := bindings.Live() - base; n != 0 {
				t.Errorf("%d tensors left alive", n)
			}
		})
	}
}
