package train_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
	"gopeft/train"
)

func TestStepsMatchPyTorch(t *testing.T) {
	for _, c := range []struct {
		optimizer, file string
		composed        bool
		patterns        []string
	}{
		{"adam", "adam", false, nil}, {"adamw", "adamw", false, nil}, {"adam", "last_layers", false, []string{"pre_classifier", "classifier"}},
		{"adam", "adam", true, nil}, {"adamw", "adamw", true, nil},
	} {
		t.Run(fmt.Sprintf("%s composed=%t", c.file, c.composed), func(t *testing.T) {
			batch := modeltest.OpenGolden(t, "distilbert/tiny/golden.safetensors")
			want := modeltest.OpenGolden(t, "distilbert/tiny/"+c.file+".safetensors")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				m, err := model.Load(s, modeltest.Testdata(t, "distilbert/tiny"), model.Options{Classify: true})
				if err != nil {
					return err
				}
				for _, p := range m.Params().All() {
					p.SetTrainable(s, c.patterns == nil)
				}
				if err := m.Params().Unfreeze(s, c.patterns...); err != nil {
					return err
				}
				cfg := train.OptimizerConfig{Name: c.optimizer, Composed: c.composed}
				if c.optimizer == "adamw" {
					cfg.WeightDecay = 0.01 // PyTorch's default
				}
				opt, err := train.NewOptimizer(s, cfg, m.Params().Trainable())
				if err != nil {
					return err
				}
				in := model.Input{IDs: batch.Tensor(s, "padded.input_ids"), Mask: batch.Tensor(s, "padded.attention_mask")}
				labels := batch.Tensor(s, "padded.labels")
				for step := 1; step <= 3; step++ {
					loss := s.In(func(s *bindings.Scope) bindings.Tensor {
						return s.CrossEntropy(m.Classify(s, in, m.Forward(s, in)), labels, -100, true)
					})
					modeltest.Close(t, fmt.Sprintf("loss before step %d", step), loss, want.Tensor(s, fmt.Sprintf("loss.%d", step-1)), 1e-5)
					s.Backward(loss)
					if err := opt.Step(s, 1e-3); err != nil {
						return err
					}
					for _, p := range m.Params().Trainable() {
						if strings.HasSuffix(p.Name, "k_lin.bias") {
							continue // its gradient is rounding noise: softmax does not see a shift of all keys
						}
						modeltest.Close(t, fmt.Sprintf("%s after step %d", p.Name, step), p.T, want.Tensor(s, fmt.Sprintf("step%d.%s", step, p.Name)), 2e-5)
					}
				}
				opt.Close()
				return m.Close()
			})
		})
	}
}

func TestSchedules(t *testing.T) {
	for _, c := range []struct {
		name   string
		warmup float64
		step   int
		want   float64
	}{
		{"constant", 0, 50, 1}, {"constant", 10, 5, 0.5}, {"linear", 0, 0, 1}, {"linear", 0, 50, 0.5}, {"linear", 0, 100, 0},
		{"linear", 0.1, 5, 0.5}, {"linear", 0.1, 55, 0.5}, {"cosine", 0, 50, 0.5}, {"cosine", 0, 100, 0}, {"cosine", 20, 60, 0.5},
	} {
		s, err := train.NewSchedule(c.name, 1, c.warmup, 100)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Rate(c.step); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s with warm-up %v at step %d: %v, want %v", c.name, c.warmup, c.step, got, c.want)
		}
	}
	if _, err := train.NewSchedule("square", 1, 0, 100); err == nil {
		t.Error("an unknown schedule was accepted")
	}
}

func TestBiasesAndNormsDoNotDecay(t *testing.T) {
	for name, want := range map[string]bool{
		"distilbert.transformer.layer.0.attention.q_lin.weight": false, "distilbert.transformer.layer.0.attention.q_lin.bias": true,
		"distilbert.transformer.layer.0.sa_layer_norm.weight": true, "distilbert.embeddings.LayerNorm.weight": true,
		"model.layers.0.input_layernorm.weight": true, "model.norm.weight": true, "model.layers.0.self_attn.q_proj.lora_A.weight": false,
	} {
		if got := train.BiasOrNorm(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
	const lr, decay = 0.1, 0.5
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m, err := model.Load(s, modeltest.Testdata(t, "distilbert/tiny"), model.Options{Classify: true})
		if err != nil {
			return err
		}
		params := m.Params().All()
		for _, p := range params {
			p.SetTrainable(s, true)
		}
		opt, err := train.NewOptimizer(s, train.OptimizerConfig{Name: "sgd", WeightDecay: decay, NoDecay: train.BiasOrNorm}, params)
		if err != nil {
			return err
		}
		want := make([][]float32, len(params))
		for i, p := range params {
			g := s.MulScalar(s.Detach(p.T), 0.25)
			s.SetGrad(p.T, g)
			want[i] = p.T.Float32s()
			for k, v := range want[i] { // p - lr·(g + decay·p)
				grad := v / 4
				if !strings.HasSuffix(p.Name, "bias") && !strings.Contains(p.Name, "_norm") && !strings.Contains(p.Name, "LayerNorm") {
					grad += decay * v
				}
				want[i][k] = v - lr*grad
			}
		}
		opt.Step(s, lr)
		for i, p := range params {
			for k, v := range p.T.Float32s() {
				if math.Abs(float64(v-want[i][k])) > 1e-6 {
					t.Errorf("%s[%d] is %v, want %v", p.Name, k, v, want[i][k])
					break
				}
			}
		}
		opt.Close()
		return m.Close()
	})
}

// TestLoRAPlusStepsAsPeft takes three steps with the rates of LoRA+, decoupled weight decay with them, on adapters with an
// embeddings' LoRA, with magnitudes and with a head.
func TestLoRAPlusStepsAsPeft(t *testing.T) {
	for _, c := range []struct {
		adapter, base, batch string
		classify             bool
	}{
		{"distilbert-seqcls-dora", "distilbert/tiny", "padded", true},
		{"llama-causal-lora-embedding", "llama/base", "right", false},
	} {
		t.Run(c.adapter, func(t *testing.T) {
			batch := modeltest.OpenGolden(t, "peft/"+c.adapter+"/golden.safetensors")
			want := modeltest.OpenGolden(t, "loraplus/"+c.adapter+".safetensors")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				zero := 0.0
				m, err := model.Load(s, modeltest.Testdata(t, c.base), model.Options{Classify: c.classify, Dropout: &zero})
				if err != nil {
					return err
				}
				defer m.Close()
				method, err := peft.Load(s, modeltest.Testdata(t, "peft/"+c.adapter), m)
				if err != nil {
					return err
				}
				defer method.Close()
				const lr = 1e-2
				rate := peft.LoRAPlus(method, lr, 4)
				opt, err := train.NewOptimizer(s, train.OptimizerConfig{Name: "adamw", WeightDecay: 0.1, NoDecay: train.BiasOrNorm,
					Factor: func(p *model.Param) float64 { return rate(p) / lr }}, method.Trainable(m))
				if err != nil {
					return err
				}
				defer opt.Close()
				in := model.Input{IDs: batch.Tensor(s, c.batch+".input_ids"), Mask: batch.Tensor(s, c.batch+".attention_mask")}
				labels := batch.Tensor(s, c.batch+".labels")
				for step := range 3 {
					loss := s.In(func(s *bindings.Scope) bindings.Tensor {
						out := m.Forward(s, in)
						if c.classify {
							return s.CrossEntropy(m.Classify(s, in, out), labels, -100, true)
						}
						l := m.(model.CausalLM).Logits(s, out.Hidden)
						n := l.Size(1)
						return s.CrossEntropy(s.Reshape(s.Narrow(l, 1, 0, n-1), -1, l.Size(2)), s.Reshape(s.Narrow(labels, 1, 1, n-1), -1), -100, true)
					})
					modeltest.Close(t, fmt.Sprintf("loss before step %d", step+1), loss, want.Tensor(s, fmt.Sprintf("loss.%d", step)), 1e-5)
					s.Backward(loss)
					if err := opt.Step(s, lr); err != nil {
						return err
					}
				}
				for _, p := range method.Trainable(m) {
					key := "step3.base_model.model." + p.Name
					modeltest.Close(t, p.Name+" after three steps", p.T, want.Tensor(s, key), 2e-5)
				}
				return nil
			})
		})
	}
}
