package bindings_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
)

func TestCheckpointRunsAgainInTheBackwardPass(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		w := s.FromFloat32s([]float32{1, 2, 3}, 3)
		s.SetRequiresGrad(w, true)
		runs := 0
		block := func(s *Scope, ts []Tensor) Tensor {
			runs++
			return s.Add(s.Dropout(s.Exp(s.Mul(ts[0], w)), 0.5), ts[0])
		}
		s.Seed(3)
		loss := s.In(func(s *Scope) Tensor {
			x := s.FromFloat32s([]float32{0.1, 0.2, 0.3}, 3)
			h := s.Checkpoint([]Tensor{x, {}}, block)
			return s.Sum(s.Checkpoint([]Tensor{h}, block))
		})
		if runs != 2 {
			t.Errorf("%d runs forward", runs)
		}
		s.Backward(loss)
		got := s.Grad(w).Float32s()
		if runs != 4 {
			t.Errorf("%d runs forward and backward", runs)
		}
		s.SetGrad(w, Tensor{})
		s.Seed(3)
		x := s.FromFloat32s([]float32{0.1, 0.2, 0.3}, 3)
		s.Backward(s.Sum(block(s, []Tensor{block(s, []Tensor{x})})))
		if diff := cmp.Diff(s.Grad(w).Float32s(), got); diff != "" {
			t.Error(diff)
		}
		s.NoGrad(func() { s.Checkpoint([]Tensor{x}, block) })
		if runs != 7 {
			t.Errorf("%d runs", runs)
		}
		return nil
	})
}

func TestCheckpointErrorsReachBackward(t *testing.T) {
	for _, c := range []struct {
		name, want string
		again      func(s *Scope, x, w Tensor) Tensor
	}{
		{"panic", "out of luck", func(*Scope, Tensor, Tensor) Tensor { panic("out of luck") }},
		{"operation", "matmul", func(s *Scope, x, w Tensor) Tensor {
			return s.MatMul(s.Zeros([]int64{2, 3}, Float, CPU), s.Zeros([]int64{2, 3}, Float, CPU))
		}},
		{"less", "saved 0 tensors", func(s *Scope, x, w Tensor) Tensor { return x }},
		{"other", "something else", func(s *Scope, x, w Tensor) Tensor { return s.Exp(s.Mul(s.Cat(0, x, x), s.Cat(0, w, w))) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := bindings.Live()
			err := bindings.Do(context.Background(), func(s *Scope) error {
				w := s.FromFloat32s([]float32{1, 2}, 2)
				s.SetRequiresGrad(w, true)
				runs := 0
				y := s.Checkpoint([]Tensor{s.Full([]int64{2}, 1, Float, CPU)}, func(s *Scope, ts []Tensor) Tensor {
					if runs++; runs == 1 {
						return s.Exp(s.Mul(ts[0], w))
					}
					return c.again(s, ts[0], w)
				})
				s.Backward(s.Sum(y))
				return nil
			})
			var op *bindings.OpError
			if !errors.As(err, &op) || op.Op != "backward" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q from backward", err, c.want)
			}
			if n := bindings.Live() - base; n != 0 {
				t.Errorf("%d tensors left alive", n)
			}
			bindingstest.Do(t, func(s *Scope) error { // nothing of the failed pass is left behind
				w := s.Full([]int64{2}, 1, Float, CPU)
				s.SetRequiresGrad(w, true)
				s.Backward(s.Sum(s.Exp(w)))
				return nil
			})
		})
	}
}

func TestLMCrossEntropyEqualsThatOfTheLogits(t *testing.T) {
	const n, d, vocab = 11, 8, 17000 // chunkBytes below gives chunks of a few tokens and several blocks of rows
	for _, c := range []struct {
		name      string
		dtype     bindings.DType
		tolerance float64
	}{{"fp32", Float, 1e-5}, {"bf16", bindings.BFloat16, 2e-2}} {
		for _, mean := range []bool{true, false} {
			t.Run(c.name, func(t *testing.T) {
				bindingstest.Do(t, func(s *Scope) error {
					s.Seed(1)
					leaf := func(shape ...int64) Tensor {
						x := s.Normal(shape, 0, 1, Float, CPU)
						s.SetRequiresGrad(x, true)
						return x
					}
					h, w := leaf(1, n, d), leaf(vocab, d)
					targets := make([]int64, n)
					for i := range targets {
						targets[i] = int64(i * 1533)
					}
					targets[0], targets[7] = -100, -100
					ts := s.FromInt64s(targets, 1, n)
					scale := s.Scalar(2, Float, CPU)
					run := func(loss func() Tensor) (value, gh, gw Tensor) {
						s.Autocast(CPU, c.dtype, func() { value = loss() })
						s.Backward(s.Mul(value, scale))
						gh, gw = s.Clone(s.Grad(h)), s.Clone(s.Grad(w))
						s.SetGrad(h, Tensor{})
						s.SetGrad(w, Tensor{})
						return value, gh, gw
					}
					v1, h1, w1 := run(func() Tensor { return s.LMCrossEntropy(h, w, ts, -100, mean, 5*vocab*4) })
					v2, h2, w2 := run(func() Tensor {
						return s.CrossEntropy(s.Reshape(s.Linear(h, w, Tensor{}), -1, vocab), s.Reshape(ts, -1), -100, mean)
					})
					closeTo(t, "loss", v1, v2, c.tolerance)
					closeTo(t, "hidden's gradient", h1, h2, c.tolerance)
					closeTo(t, "weight's gradient", w1, w2, c.tolerance)
					s.SetRequiresGrad(w, false)
					s.Backward(s.LMCrossEntropy(h, w, ts, -100, mean, 0))
					if s.Grad(w).Defined() || !s.Grad(h).Defined() {
						t.Error("a frozen head got a gradient, or the states none")
					}
					none := s.LMCrossEntropy(h, w, s.Full([]int64{1, n}, -100, bindings.Int64, CPU), -100, mean, 0)
					s.Backward(none)
					if none.Item() != 0 {
						t.Errorf("without targets: %v", none.Item())
					}
					s.NoGrad(func() {
						closeTo(t, "loss alone", s.LMCrossEntropy(h, w, ts, -100, mean, 0), s.To(v2, Float), 2e-2)
					})
					return nil
				})
			})
		}
	}
}

func TestCrossEntropyOfAnUnknownClassIsAnError(t *testing.T) {
	base := bindings.Live()
	err := bindings.Do(context.Background(), func(s *Scope) error {
		s.CrossEntropy(s.Zeros([]int64{2, 3}, Float, CPU), s.FromInt64s([]int64{1, 7}, 2), -100, false)
		return nil
	})
	var op *bindings.OpError
	if !errors.As(err, &op) || op.Op != "cross_entropy" {
		t.Errorf("got %v", err)
	}
	if n := bindings.Live() - base; n != 0 {
		t.Errorf("%d tensors left alive", n)
	}
}

// lmReference is the summed cross-entropy of hidden [n, d] under weight [vocab, d], with its gradients, in float64.
func lmReference(hidden, weight []float64, targets []int64, d int) (loss float64, gh, gw []float64) {
	n, vocab := len(hidden)/d, len(weight)/d
	gh, gw = make([]float64, len(hidden)), make([]float64, len(weight))
	p := make([]float64, vocab)
	for i := range n {
		if targets[i] < 0 {
			continue
		}
		h, highest := hidden[i*d:(i+1)*d], math.Inf(-1)
		for v := range p {
			p[v] = 0
			for k, w := range weight[v*d : (v+1)*d] {
				p[v] += w * h[k]
			}
			highest = max(highest, p[v])
		}
		at, sum := p[targets[i]], 0.0
		for v := range p {
			p[v] = math.Exp(p[v] - highest)
			sum += p[v]
		}
		loss += math.Log(sum) + highest - at
		for v := range p {
			g := p[v] / sum
			if int64(v) == targets[i] {
				g--
			}
			for k := range h {
				gh[i*d+k] += g * weight[v*d+k]
				gw[v*d+k] += g * h[k]
			}
		}
	}
	return loss, gh, gw
}

func TestLMCrossEntropyIsExact(t *testing.T) {
	const n, d, vocab = 50, 64, 5000
	for _, fused := range []bool{true, false} {
		bindingstest.Do(t, func(s *Scope) error {
			s.Seed(1)
			defer s.SetFused(s.SetFused(fused))
			leaf := func(std float64, shape ...int64) Tensor {
				x := s.Normal(shape, 0, std, Float, CPU)
				s.SetRequiresGrad(x, true)
				return x
			}
			h, w := leaf(1, n, d), leaf(0.2, vocab, d)
			targets := make([]int64, n)
			for i := range targets {
				targets[i] = int64(i * 97)
			}
			targets[0], targets[7] = -100, -100
			loss := s.LMCrossEntropy(h, w, s.FromInt64s(targets, n), -100, false, 7*vocab*4)
			s.Backward(loss)
			want, gh, gw := lmReference(h.Float64s(), w.Float64s(), targets, d)
			near(t, "loss", loss.Float64s(), []float64{want}, 1e-5)
			near(t, "hidden's gradient", s.Grad(h).Float64s(), gh, 1e-5)
			near(t, "weight's gradient", s.Grad(w).Float64s(), gw, 1e-5)
			return nil
		})
	}
}

// near compares relative to the largest value wanted.
func near(t *testing.T, what string, got, want []float64, tolerance float64) {
	t.Helper()
	largest, worst := 0.0, 0.0
	for i, v := range want {
		largest, worst = max(largest, math.Abs(v)), max(worst, math.Abs(got[i]-v))
	}
	if len(got) != len(want) || !(worst <= tolerance*largest) {
		t.Errorf("%s: %d values differ by up to %g from %d up to %g", what, len(got), worst, len(want), largest)
	}
}

func closeTo(t *testing.T, what string, a, b Tensor, tolerance float64) {
	t.Helper()
	x, y := a.Float64s(), b.Float64s()
	if len(x) != len(y) {
		t.Fatalf("%s: %v and %v", what, a, b)
	}
	for i := range x {
		if !(math.Abs(x[i]-y[i]) <= tolerance*max(1, math.Abs(y[i]))) {
			t.Errorf("%s: element %d is %v, want %v", what, i, x[i], y[i])
			return
		}
	}
}

func TestCausalAttentionEqualsTheMaskedOne(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		s.Seed(1)
		for _, d := range []bindings.DType{Float, bindings.BFloat16} {
			draw := func(heads int64) Tensor { return s.To(s.Normal([]int64{2, heads, 5, 8}, 0, 1, Float, CPU), d) }
			q, k, v := draw(6), draw(2), draw(2)
			bias := s.Triu(s.Full([]int64{1, 1, 5, 5}, -1e30, d, CPU), 1)
			closeTo(t, d.String(), s.CausalAttention(q, k, v, bindings.Sight{}, 0, 0), s.Attention(q, k, v, bias, 0, 0), 1e-6)
		}
		return nil
	})
}
