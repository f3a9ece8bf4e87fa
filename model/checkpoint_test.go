package model_test

import (
	"slices"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
)

// tuning is a small method on every kind of hook point: prefixes that one map makes for all blocks once per
// pass, a branch, and a bottleneck with dropout after both sublayers.
type tuning struct {
	seed, make, down, up, prompt bindings.Tensor
	info                         model.Info
	hooks                        *model.Hooks
	all                          bindings.Tensor // of the running pass: [2·layers, Hkv, n, D]
}

func attach(s *bindings.Scope, m model.Model) *tuning {
	i := m.Info()
	d, kv := int64(i.Hidden), int64(i.KVHeads*i.HeadDim)
	t := &tuning{info: i, hooks: m.Hooks()}
	for _, x := range []struct {
		t     *bindings.Tensor
		shape []int64
	}{{&t.seed, []int64{3, 5}}, {&t.make, []int64{2 * int64(i.Layers) * kv, 5}}, {&t.down, []int64{4, d}}, {&t.up, []int64{d, 4}}, {&t.prompt, []int64{1, 3, d}}} {
		*x.t = s.Normal(x.shape, 0, 0.3, bindings.Float, bindings.CPU)
		s.SetRequiresGrad(*x.t, true)
	}
	for l, b := range m.Hooks().Blocks {
		b.Memory = []model.Memory{prefix{t, int64(l)}}
		b.AfterAttn, b.AfterFFN = []model.Transform{t}, []model.Transform{t}
		if l > 0 {
			b.Branch = []model.Branch{t}
		}
	}
	return t
}

func (t *tuning) tensors() []bindings.Tensor {
	return []bindings.Tensor{t.seed, t.make, t.down, t.up, t.prompt}
}

func (t *tuning) begin(s *bindings.Scope) {
	t.all = s.In(func(s *bindings.Scope) bindings.Tensor {
		made := s.Linear(s.Tanh(t.seed), t.make, bindings.Tensor{}) // [n, 2·L·Hkv·D]
		made = s.Reshape(made, 3, int64(2*t.info.Layers), int64(t.info.KVHeads), int64(t.info.HeadDim))
		return s.Permute(made, 1, 2, 0, 3)
	})
}

type prefix struct {
	t     *tuning
	layer int64
}

func (p prefix) Len() int { return 3 }

func (p prefix) KV(s *bindings.Scope) (k, v bindings.Tensor) {
	return s.Narrow(p.t.all, 0, 2*p.layer, 1), s.Narrow(p.t.all, 0, 2*p.layer+1, 1)
}

func (t *tuning) Attend(s *bindings.Scope, q bindings.Tensor, project func(bindings.Tensor) (k, v bindings.Tensor)) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		k, v := project(t.prompt)
		return s.MulScalar(s.Attention(q, s.Expand(k, q.Size(0), -1, -1, -1), s.Expand(v, q.Size(0), -1, -1, -1), bindings.Tensor{}, 0, 0), 0.5)
	})
}

func (t *tuning) Apply(s *bindings.Scope, h bindings.Tensor, _ func(*bindings.Scope, bindings.Tensor) bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		x := s.SiLU(s.Linear(h, t.down, bindings.Tensor{}))
		if t.hooks.Train {
			x = s.Dropout(x, 0.2)
		}
		return s.Add(h, s.Linear(x, t.up, bindings.Tensor{}))
	})
}

func TestCheckpointedGradientsAreTheSameBits(t *testing.T) {
	for _, c := range []struct {
		folder, batch string
		amp           bool
	}{
		{"llama/gqa", "left", false}, {"llama/base", "right", true}, {"llama/mistral", "full", false},
		{"distilbert/tiny", "padded", false}, {"distilbert/tiny", "full", true},
	} {
		name := c.folder + " " + c.batch
		t.Run(name, func(t *testing.T) {
			g := modeltest.OpenGolden(t, c.folder+"/golden.safetensors")
			bindingstest.Do(t, func(s *bindings.Scope) error {
				rate := 0.3
				m := load(t, s, modeltest.Testdata(t, c.folder), model.Options{Dropout: &rate})
				s.Seed(5)
				method := attach(s, m)
				trained := method.tensors()
				for i, p := range m.Params().All() {
					if p.SetTrainable(s, i%3 != 0); p.Trainable {
						trained = append(trained, p.T)
					}
				}
				in := batch(g, s, c.batch)
				in.Train = true
				step := func(checkpoint bool) (loss float32, grads [][]byte, after []float32) {
					s.Seed(99)
					in.CheckpointActivations = checkpoint
					run := func() {
						l := s.In(func(s *bindings.Scope) bindings.Tensor {
							method.begin(s)
							h := s.To(m.Forward(s, in).Hidden, bindings.Float)
							return s.Mean(s.Mul(h, h))
						})
						loss = l.Float32s()[0]
						s.Backward(l)
					}
					if c.amp {
						s.Autocast(bindings.CPU, bindings.BFloat16, run)
					} else {
						run()
					}
					for _, p := range trained {
						grad := s.Grad(p)
						if !grad.Defined() {
							grads = append(grads, nil)
							continue
						}
						grads = append(grads, s.Contiguous(grad).Raw())
						s.SetGrad(p, bindings.Tensor{})
					}
					return loss, grads, s.Normal([]int64{4}, 0, 1, bindings.Float, bindings.CPU).Float32s()
				}
				loss, grads, after := step(false)
				loss2, grads2, after2 := step(true)
				if loss != loss2 || !slices.Equal(after, after2) {
					t.Errorf("loss %v and %v, then drew %v and %v", loss, loss2, after, after2)
				}
				some := 0
				for i := range grads {
					if !slices.Equal(grads[i], grads2[i]) {
						t.Errorf("gradient of tensor %d (%v) differs", i, trained[i])
					}
					if i < 5 && grads[i] == nil {
						t.Errorf("the method's tensor %d has no gradient", i)
					}
					if grads[i] != nil {
						some++
					}
				}
				if some < 10 {
					t.Errorf("only %d gradients", some)
				}
				return m.Close()
			})
		})
	}
}
