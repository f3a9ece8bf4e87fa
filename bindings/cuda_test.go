package bindings_test

import (
	"os"
	"slices"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
)

func TestMain(m *testing.M) {
	if plan := os.Getenv("GOPEFT_TEST_RANK"); plan != "" {
		os.Exit(asRank(plan)) // one of the processes that a test has started
	}
	bindingstest.LoadCUDA()
	os.Exit(m.Run())
}

// On a GPU operations, by kernels compiled for it, in few kernels and composed, compute what the composed ones do on the
// CPU.
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
					for _, how := range []struct {
						name            string
						fused, compiled bool
					}{{"compiled", true, true}, {"few kernels", true, false}, {"composed", false, false}} {
						was := s.SetCompiled(how.compiled)
						got := c.run(s, bindings.CUDA(0), how.fused, false, m.dtype)
						s.SetCompiled(was)
						if len(got) != len(want) {
							t.Fatalf("%d tensors, on the CPU %d", len(got), len(want))
						}
						for k := range want {
							if d := difference(got[k], want[k]); !(d <= m.tol) {
								t.Errorf("%s: %s differs by %.2g of its size", how.name, k, d)
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

// In fp16, which CPUs are not asked for, compiled kernels compute what the composed operations do.
func TestCUDACompiledKernelsInHalfPrecision(t *testing.T) {
	bindingstest.NeedCUDA(t)
	for _, c := range fusedCases() {
		if !slices.Contains([]string{"rms norm", "rms norm, frozen", "swiglu", "rotate", "rotate, all packs", "rotate both"}, c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			bindingstest.Do(t, func(s *Scope) error {
				got, want := c.run(s, bindings.CUDA(0), true, false, bindings.Half), c.run(s, bindings.CUDA(0), false, false, bindings.Half)
				for k := range want {
					if d := difference(got[k], want[k]); !(d <= 0.004) {
						t.Errorf("%s differs by %.2g of its size", k, d)
					}
				}
				return nil
			})
		})
	}
}

// The loss that compiled kernels give, and its gradients, are what libtorch's operations give.
func TestCUDALMCrossEntropyCompiled(t *testing.T) {
	bindingstest.NeedCUDA(t)
	bindingstest.Do(t, func(s *Scope) error {
		var want [][]float32
		for _, compiled := range []bool{false, true} {
			was := s.SetCompiled(compiled)
			s.Seed(5)
			hidden := s.Normal([]int64{13, 24}, 0, 1, Float, bindings.CUDA(0))
			head := s.Normal([]int64{301, 24}, 0, 1, Float, bindings.CUDA(0))
			s.SetRequiresGrad(hidden, true)
			s.SetRequiresGrad(head, true)
			targets := s.Int64sOn(bindings.CUDA(0), []int64{0, 300, 5, -100, 7, 7, 8, 9, -100, 11, 12, 13, 14}, 13)
			loss := s.LMCrossEntropy(hidden, head, targets, -100, true, 4*301*5) // five tokens at a time
			s.Backward(loss)
			s.SetCompiled(was)
			got := [][]float32{loss.Float32s(), s.Grad(hidden).Float32s(), s.Grad(head).Float32s()}
			if want == nil {
				want = got
			}
			for k := range want {
				if d := difference(got[k], want[k]); !(d <= 2e-5) {
					t.Errorf("tensor %d differs by %.2g of its size", k, d)
				}
			}
		}
		return nil
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
