package model_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
)

// encoders are the families of encoders, by their folders in testdata.
var encoders = []string{"bert", "roberta"}

// batchesOf are the batches that a fixture has.
func batchesOf(g *modeltest.Golden) (names []string) {
	for _, n := range g.Names() {
		if name, ok := strings.CutSuffix(n, ".input_ids"); ok {
			names = append(names, name)
		}
	}
	return names
}

// encoderBatch is a fixture's batch, with the types of its tokens where it has them.
func encoderBatch(g *modeltest.Golden, s *bindings.Scope, name string) model.Input {
	in := batch(g, s, name)
	if types := name + ".token_type_ids"; g.Has(types) {
		in.TokenTypes = g.Tensor(s, types)
	}
	return in
}

func TestEncodersMatchTransformers(t *testing.T) {
	for _, family := range encoders {
		g := modeltest.OpenGolden(t, family+"/tiny/golden.safetensors")
		names := batchesOf(g)
		if !slices.Contains(names, "left") {
			t.Fatalf("%s: batches %v", family, names)
		}
		for _, name := range names {
			t.Run(family+"/"+name, func(t *testing.T) {
				bindingstest.Do(t, func(s *bindings.Scope) error {
					m := load(t, s, modeltest.Testdata(t, family+"/tiny"), model.Options{Classify: true})
					if len(m.Fresh()) > 0 || m.Info().Family != family {
						t.Errorf("a %s, new are %v", m.Info().Family, m.Fresh())
					}
					in := encoderBatch(g, s, name)
					var states []bindings.Tensor
					in.States = &states
					out := m.Forward(s, in)
					for i, h := range states {
						want := g.Tensor(s, fmt.Sprintf("%s.hidden_states.%d", name, i))
						modeltest.Close(t, fmt.Sprintf("state %d", i), real(s, in, h), real(s, in, want), 1e-5)
					}
					if len(states) != m.Info().Layers+1 {
						t.Errorf("%d states", len(states))
					}
					logits := m.Classify(s, in, out)
					modeltest.Close(t, "logits", logits, g.Tensor(s, name+".logits"), 1e-5)
					in.Pooled, in.States = true, nil
					modeltest.Close(t, "logits of a pooled pass", m.Classify(s, in, m.Forward(s, in)), logits, 1e-6)
					loss := s.CrossEntropy(logits, g.Tensor(s, name+".labels"), -100, true)
					modeltest.Close(t, "loss", loss, g.Tensor(s, name+".loss"), 1e-5)
					return m.Close()
				})
			})
		}
	}
}

// Gradients are of pairs of texts where the family tells them apart, with and without activations kept.
func TestEncodersGradientsMatchTransformers(t *testing.T) {
	for _, family := range encoders {
		g := modeltest.OpenGolden(t, family+"/tiny/golden.safetensors")
		name := "padded"
		if slices.Contains(batchesOf(g), "pairs") {
			name = "pairs"
		}
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := load(t, s, modeltest.Testdata(t, family+"/tiny"), model.Options{Classify: true})
			for _, p := range m.Params().All() {
				p.SetTrainable(s, true)
			}
			for _, recompute := range []bool{false, true} {
				in := encoderBatch(g, s, name)
				in.Pooled, in.CheckpointActivations = recompute, recompute
				s.Backward(s.In(func(s *bindings.Scope) bindings.Tensor {
					return s.CrossEntropy(m.Classify(s, in, m.Forward(s, in)), g.Tensor(s, name+".labels"), -100, true)
				}))
				for _, p := range m.Params().All() {
					grad := s.Grad(p.T)
					if !grad.Defined() {
						t.Errorf("%s: %s has no gradient", family, p.Name)
						continue
					}
					modeltest.Close(t, family+": gradient of "+p.Name, grad, g.Tensor(s, "grad."+p.Name), 1e-5)
					s.SetGrad(p.T, bindings.Tensor{})
				}
			}
			return m.Close()
		})
	}
}

// The encoder of a published checkpoint, under another task's head, is the classifier's; what a classifier reads is new.
func TestEncodersOfOtherTasksAreRead(t *testing.T) {
	for _, c := range []struct{ folder, fresh string }{
		{"bert/mlm", "bert.pooler.dense.weight bert.pooler.dense.bias classifier.weight classifier.bias"},
		{"bert/noprefix", "classifier.weight classifier.bias"},
		{"roberta/mlm", "classifier.dense.weight classifier.dense.bias classifier.out_proj.weight classifier.out_proj.bias"},
		{"distilbert/bert-mlm", "bert.pooler.dense.weight bert.pooler.dense.bias classifier.weight classifier.bias"},
	} {
		family, _, _ := strings.Cut(c.folder, "/")
		golden := family + "/tiny/golden.safetensors"
		if family == "distilbert" { // a BERT, whose norms are called gamma and beta
			golden = "distilbert/bert/golden.safetensors"
		}
		g := modeltest.OpenGolden(t, golden)
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m := load(t, s, modeltest.Testdata(t, c.folder), model.Options{Classify: true, Labels: []string{"a", "b"}})
			if got := strings.Join(m.Fresh(), " "); got != c.fresh {
				t.Errorf("%s: new are %s, want %s", c.folder, got, c.fresh)
			}
			for _, name := range m.Fresh() { // is a part of the head, which methods train and save
				if !slices.ContainsFunc(m.HeadNames(), func(head string) bool { return strings.HasPrefix(name, head+".") }) {
					t.Errorf("%s: %s is new, and not of the head %v", c.folder, name, m.HeadNames())
				}
			}
			in := batch(g, s, "padded")
			modeltest.Close(t, c.folder, real(s, in, m.Forward(s, in).Hidden), real(s, in, g.Tensor(s, "padded.hidden_states.3")), 1e-5)
			return m.Close()
		})
	}
}

// A BERT gives the same hidden states, to the bit, as read as a DistilBERT: features and embeddings go on as they were.
func TestReadingsOfBERTGiveTheSameStates(t *testing.T) {
	for _, d := range []bindings.DType{bindings.Float, bindings.BFloat16} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			g := modeltest.OpenGolden(t, "bert/tiny/golden.safetensors")
			in := batch(g, s, "padded")
			var h []bindings.Tensor
			for _, as := range []string{"distilbert", "bert"} {
				m := load(t, s, modeltest.Testdata(t, "bert/tiny"), model.Options{As: as, DType: d})
				if i := m.Info(); i.Family != as || model.ReadAs(m) != as || (i.LoadedFrom == "bert") != (as == "distilbert") {
					t.Errorf("asked for %s, read as %+v", as, i)
				}
				h = append(h, s.Clone(m.Forward(s, in).Hidden))
				if err := m.Close(); err != nil {
					return err
				}
			}
			modeltest.Close(t, "states", h[1], h[0], 0)
			return nil
		})
	}
}

func TestEncoderConfigsThatAreRefused(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{`{"model_type": "bert", "position_embedding_type": "relative_key"}`, `position_embedding_type "relative_key" is not supported`},
		{`{"model_type": "bert", "is_decoder": true}`, "is_decoder is not supported"},
		{`{"model_type": "bert", "type_vocab_size": 0}`, "type_vocab_size is 0"},
		{`{"model_type": "bert", "num_attention_heads": 5}`, "not a multiple"},
		{`{"model_type": "bert", "num_hidden_layers": 100000}`, "more than 4096"},
		{`{"model_type": "roberta", "max_position_embeddings": 2}`, "max_position_embeddings"},
		{`{"model_type": "roberta", "pad_token_id": -1}`, "pad_token_id is -1"},
		{`{"model_type": "roberta", "hidden_act": "gelu_new"}`, `activation "gelu_new"`},
	} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			_, err := model.New(s, []byte(c.config), model.Options{Classify: true})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v, want one line with %q", c.config, err, c.want)
			}
			return nil
		})
	}
}

func TestCountsOfBERTBase(t *testing.T) {
	for config, want := range map[string]int64{
		`{"model_type": "bert"}`: 109483778, // of transformers' BertForSequenceClassification
		`{"model_type": "roberta", "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}`: 124647170,
	} {
		bindingstest.Do(t, func(s *bindings.Scope) error {
			m, err := model.New(s, []byte(config), model.Options{Classify: true})
			if err != nil {
				return err
			}
			if _, total := m.Params().Count(); total != want {
				t.Errorf("%s: %d parameters, want %d", config, total, want)
			}
			return m.Close()
		})
	}
}
