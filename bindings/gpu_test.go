package bindings

import (
	"context"
	"math"
	"testing"

	"gopeft/bindings/csrc"
)

// fewKernels is an operation of three tensors in few kernels and composed; the first ones take gradients.
type fewKernels struct {
	shapes     [][]int64
	few, plain func(x, a, b Tensor) Tensor
	grads      int
}

// What a GPU computes in few kernels is what the composed operations give, here on the CPU.
func TestFewKernelsEqualComposed(t *testing.T) {
	err := Do(context.Background(), func(s *Scope) error {
		s.SetFused(false)
		defer s.SetFused(true)
		cases := map[string]fewKernels{
			"rotate": {
				[][]int64{{2, 3, 9, 24}, {2, 1, 9, 24}, {1, 1, 9, 24}},
				func(x, cos, sin Tensor) Tensor {
					return s.made("turn", csrc.Turn(s.slot(), x.p, cos.p, sin.p), x, cos, sin)
				},
				func(x, cos, sin Tensor) Tensor { return s.Rotate(x, cos, sin) }, 1,
			},
		}
		if csrc.HasScaledRMS() {
			cases["rms norm"] = fewKernels{
				[][]int64{{3, 21, 70}, {70}, {1}},
				func(x, w, _ Tensor) Tensor {
					return s.made("rms_norm", csrc.ScaledRMS(s.slot(), x.p, w.p, 1e-5), x, w)
				},
				func(x, w, _ Tensor) Tensor { return s.RMSNorm(x, w, 1e-5) }, 2,
			}
		}
		for name, c := range cases {
			var want [][]float32
			for _, f := range []func(x, a, b Tensor) Tensor{c.plain, c.few} {
				s.Seed(3)
				in := make([]Tensor, len(c.shapes))
				for i, shape := range c.shapes {
					in[i] = s.Normal(shape, 0.1, 1, Float, CPU)
					s.SetRequiresGrad(in[i], i < c.grads)
				}
				y := f(in[0], in[1], in[2])
				s.BackwardWith(y, s.Normal(y.Shape(), 0, 1, Float, CPU))
				got := [][]float32{y.Float32s()}
				for _, x := range in[:c.grads] {
					got = append(got, s.Grad(x).Float32s())
				}
				if want == nil {
					want = got
					continue
				}
				for k := range want {
					for i := range want[k] {
						if math.Abs(float64(got[k][i]-want[k][i])) > 1e-5 {
							t.Fatalf("%s: element %d of tensor %d is %v, want %v", name, i, k, got[k][i], want[k][i])
						}
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := Live(); n != 0 {
		t.Errorf("%d tensors left alive", n)
	}
}
