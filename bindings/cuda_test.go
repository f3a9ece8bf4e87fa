package bindings_test

import (
	"os"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
)

func TestMain(m *testing.M) {
	bindingstest.LoadCUDA()
	os.Exit(m.Run())
}

// On a GPU operations, in few kernels and composed, compute what the composed ones do on the CPU.
func TestCUDAComputesWhatTheCPUDoes(t *testing.T) {
	bindingstest.NeedCUDA(t)
	for _, m := range []struct {
		name  string
		dtype bindings.DType
		tol   float64
	}{{"fp32", Float, 2e-5}, {"bf16", bindings.BFloat16, 0.02}} {
		for _, c := range fusedCases() {
			t.Run(m.name+"/"+c.name, func(t *testing.T) {
				bindingstest.Do(t, func(s *Scope) error {
					want := c.run(s, CPU, false, false, m.dtype)
					for _, fused := range []bool{true, false} {
						got := c.run(s, bindings.CUDA(0), fused, false, m.dtype)
						if len(got) != len(want) {
							t.Fatalf("%d tensors, on the CPU %d", len(got), len(want))
						}
						for k := range want {
							if d := difference(got[k], want[k]); !(d <= m.tol) {
								t.Errorf("few kernels %t: %s differs by %.2g of its size", fused, k, d)
							}
						}
					}
					return nil
				})
			})
		}
	}
}

// On a GPU quantised matrices are what they are on the CPU.
func TestCUDAQuantised(t *testing.T) {
	bindingstest.NeedCUDA(t)
	eachQuantCase(t, func(t *testing.T, s *Scope, q *bindings.Quantised) {
		dev := bindings.CUDA(0)
		there := s.QuantisedTo(q, dev)
		ids := s.FromInt64s([]int64{3, 0, 3, q.Rows - 1}, 2, 2)
		back := func(t Tensor) Tensor { return s.ToDevice(t, t.DType(), CPU) }
		sameBits(t, "weights", back(s.Dequantise(there, bindings.BFloat16)), s.Dequantise(q, bindings.BFloat16))
		sameBits(t, "rows", back(s.QuantRows(there, s.ToDevice(ids, bindings.Int64, dev), Float)), s.QuantRows(q, ids, Float))
		x, g := s.Normal([]int64{13, q.Cols}, 0, 1, Float, CPU), s.Normal([]int64{13, q.Rows}, 0, 1, Float, CPU)
		run := func(q *bindings.Quantised, d bindings.Device) []float32 {
			x := s.ToDevice(x, Float, d)
			s.SetRequiresGrad(x, true)
			s.SetGrad(x, Tensor{})
			y := s.QuantLinear(x, q, Tensor{})
			s.BackwardWith(y, s.ToDevice(g, Float, d))
			return append(y.Float32s(), s.Grad(x).Float32s()...)
		}
		if d := difference(run(there, dev), run(q, CPU)); !(d < 1e-5) {
			t.Errorf("product and gradient differ by %.2g of their size", d)
		}
	})
}

func TestCUDACopiesAreThereWhenTheyReturn(t *testing.T) {
	bindingstest.NeedCUDA(t)
	bindingstest.Do(t, func(s *Scope) error {
		const n = 1 << 24
		for i := range 8 {
			x := s.AddScalar(s.Full([]int64{n}, float64(i), Float, bindings.CUDA(0)), 1)
			host := s.ToDevice(x, Float, CPU).Float32s()
			for _, at := range []int{0, n / 2, n - 1} {
				if host[at] != float32(i+1) {
					t.Fatalf("element %d is %v, want %d", at, host[at], i+1)
				}
			}
		}
		return nil
	})
}
