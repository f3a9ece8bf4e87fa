package train_test

import (
	"fmt"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/data"
)

// answers is a model that gives the same logits to every batch.
type answers struct {
	model.Model
	logits bindings.Tensor
}

func (answers) Forward(*bindings.Scope, model.Input) model.Output { return model.Output{} }

func (a answers) Classify(*bindings.Scope, model.Input, model.Output) bindings.Tensor {
	return a.logits
}

// The mean of a classifier's loss, and its gradient, are those of torch's cross_entropy.
func TestWeightedAndSmoothedLossesAreTorchs(t *testing.T) {
	g := modeltest.OpenGolden(t, "losses.safetensors")
	for name, c := range map[string]struct {
		weighted  bool
		smoothing float64
	}{"smooth": {false, 0.1}, "weighted": {true, 0}, "both": {true, 0.1}} {
		t.Run(name, func(t *testing.T) {
			bindingstest.Do(t, func(s *bindings.Scope) error {
				logits := g.Tensor(s, "classify.logits")
				s.SetRequiresGrad(logits, true)
				task := train.Classification{Smoothing: c.smoothing}
				if c.weighted {
					task.Weights = g.Tensor(s, "classify.weights").Float32s()
				}
				b := data.Batch{Rows: 7, Labels: g.Tensor(s, "classify.labels").Int64s()}
				loss := s.MulScalar(task.Measure(s, answers{logits: logits}, b, model.Input{}).Loss, 1/task.Weight(b))
				s.Backward(loss)
				modeltest.Close(t, "loss", loss, g.Tensor(s, "classify."+name+".loss"), 1e-6)
				modeltest.Close(t, "gradient", s.Grad(logits), g.Tensor(s, "classify."+name+".grad"), 1e-6)
				return nil
			})
		})
	}
}

// goldenBatch is a batch that a fixture holds.
func goldenBatch(s *bindings.Scope, g *modeltest.Golden, name string) data.Batch {
	ids := g.Tensor(s, name+".input_ids")
	b := data.Batch{Rows: int(ids.Size(0)), Width: int(ids.Size(1)), IDs: ids.Int64s(), Mask: g.Tensor(s, name+".attention_mask").Int64s()}
	for _, m := range b.Mask {
		b.Tokens += int(m)
	}
	return b
}

// sameGradients compares the gradients that a fixture holds with those of m.
func sameGradients(t *testing.T, s *bindings.Scope, g *modeltest.Golden, prefix string, m model.Model, tol float64) {
	t.Helper()
	compared := 0
	for _, name := range g.Names() {
		if param, ok := strings.CutPrefix(name, prefix+".grad."); ok {
			modeltest.Close(t, "gradient of "+param, s.Grad(m.Params().Get(param).T), g.Tensor(s, name), tol)
			compared++
		}
	}
	if compared == 0 {
		t.Errorf("the fixture has no gradients %s", prefix)
	}
}

func trainAll(s *bindings.Scope, m model.Model) {
	for _, p := range m.Params().All() {
		p.SetTrainable(s, true)
	}
}

// A language model's smoothed loss, and its gradients, are those of transformers' LabelSmoother, whether its logits exist
// as a whole or not.
func TestSmoothedCausalLossIsTransformers(t *testing.T) {
	g, of := modeltest.OpenGolden(t, "losses.safetensors"), modeltest.OpenGolden(t, "llama/gqa/golden.safetensors")
	for _, name := range []string{"full", "right"} {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/whole %t", name, whole), func(t *testing.T) {
				bindingstest.Do(t, func(s *bindings.Scope) error {
					m, err := model.Load(s, modeltest.Testdata(t, "llama/gqa"), model.Options{})
					if err != nil {
						return err
					}
					trainAll(s, m)
					b := goldenBatch(s, of, name)
					b.Targets = of.Tensor(s, name+".labels").Int64s()
					for i, target := range b.Targets {
						if i%b.Width == 0 {
							b.Targets[i] = data.IgnoreTarget
						} else if target != data.IgnoreTarget {
							b.NumTargets++
						}
					}
					task := train.Causal{WholeLogits: whole, Smoothing: 0.1}
					loss := s.MulScalar(task.Measure(s, m, b, train.Input(s, b, bindings.CPU)).Loss, 1/task.Weight(b))
					s.Backward(loss)
					modeltest.Close(t, "loss", loss, g.Tensor(s, "causal."+name+".loss"), 1e-5)
					sameGradients(t, s, g, "causal."+name, m, 1e-5)
					return m.Close()
				})
			})
		}
	}
}

// Losses, logits and gradients of numbers and of any number of labels are transformers' by problem_type.
func TestTargetsLossesAreTransformers(t *testing.T) {
	g := modeltest.OpenGolden(t, "losses.safetensors")
	for _, family := range []struct{ name, folder, batch string }{{"distilbert", "distilbert/tiny", "padded"}, {"llama", "llama/seqcls", "right"}} {
		for name, problem := range map[string]model.Problem{"regression": model.Regression, "multilabel": model.AnyLabels} {
			t.Run(family.name+"/"+name, func(t *testing.T) {
				of := modeltest.OpenGolden(t, family.folder+"/golden.safetensors")
				bindingstest.Do(t, func(s *bindings.Scope) error {
					none := 0.0
					m, err := model.Load(s, modeltest.Testdata(t, family.folder), model.Options{Classify: true, Dropout: &none})
					if err != nil {
						return err
					}
					trainAll(s, m)
					b := goldenBatch(s, of, family.batch)
					b.Values = g.Tensor(s, name+".targets").Float32s()
					task := train.Targets{Problem: problem}
					got := task.Measure(s, m, b, train.Input(s, b, bindings.CPU))
					loss := s.MulScalar(got.Loss, 1/task.Weight(b))
					s.Backward(loss)
					prefix := name + "." + family.name
					modeltest.Close(t, "loss", loss, g.Tensor(s, prefix+".loss"), 1e-5)
					modeltest.Close(t, "logits", got.Logits, g.Tensor(s, prefix+".logits"), 1e-5)
					sameGradients(t, s, g, prefix, m, 1e-5)
					return m.Close()
				})
			})
		}
	}
}
