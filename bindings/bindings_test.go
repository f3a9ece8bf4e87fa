package bindings_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
)

type (
	Scope  = bindings.Scope
	Tensor = bindings.Tensor
)

const (
	Float = bindings.Float
	CPU   = bindings.CPU
)

func TestScopeFreesWhatItMade(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		base := bindings.Live()
		x := s.Full([]int64{2, 3}, 2, Float, CPU)
		y := s.In(func(s *Scope) Tensor {
			a := s.AddScalar(x, 1)
			b := s.Mul(a, a)
			s.Free(a)
			return s.MulScalar(b, 2)
		})
		if got := bindings.Live() - base; got != 2 {
			t.Errorf("%d tensors live, want x and y", got)
		}
		if diff := cmp.Diff([]float32{18, 18, 18, 18, 18, 18}, y.Float32s()); diff != "" {
			t.Error(diff)
		}
		kept := s.NewScope()
		c := s.Child()
		z := c.MoveTo(kept, c.AddScalar(x, 1))
		c.Close()
		c.Close()
		if z.Float32s()[0] != 3 {
			t.Errorf("a moved tensor changed: %v", z.Float32s())
		}
		kept.Close()
		return nil
	})
}

func TestNothingLeaksAfterErrorsAndPanics(t *testing.T) {
	base := bindings.Live()
	err := bindings.Do(context.Background(), func(s *Scope) error {
		a, b := s.Zeros([]int64{2, 3}, Float, CPU), s.Zeros([]int64{4, 5}, bindings.BFloat16, CPU)
		s.In(func(s *Scope) Tensor {
			s.AddScalar(a, 1)
			return s.MatMul(a, b)
		})
		t.Error("went on after a failed operation")
		return nil
	})
	var op *bindings.OpError
	if !errors.As(err, &op) || op.Op != "matmul" {
		t.Fatalf("got %v, want an *OpError of matmul", err)
	}
	if diff := cmp.Diff([]string{"fp32[2 3]", "bf16[4 5]"}, op.Args); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "frame #") {
		t.Errorf("the message holds a stack: %q", err)
	}
	want := errors.New("mine")
	if err := bindings.Do(context.Background(), func(s *Scope) error { s.Zeros([]int64{9}, Float, CPU); return want }); err != want {
		t.Errorf("got %v, want the function's own error", err)
	}
	func() {
		defer func() {
			if r := recover(); r == nil || !strings.Contains(r.(string), "boom") {
				t.Errorf("recovered %v, want the function's panic", r)
			}
		}()
		_ = bindings.Do(context.Background(), func(s *Scope) error { s.Child().Zeros([]int64{1}, Float, CPU); panic("boom") })
	}()
	if got := bindings.Live() - base; got != 0 {
		t.Errorf("%d tensors live after errors and panics", got)
	}
}

func TestDoIsOneThread(t *testing.T) {
	var wg sync.WaitGroup
	tids := make([]int, 16)
	for i := range tids {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := bindings.Do(context.Background(), func(*Scope) error { tids[i] = unix.Gettid(); return nil }); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	for _, id := range tids {
		if id != tids[0] || id == 0 {
			t.Fatalf("work ran on several threads: %v", tids)
		}
	}
	err := bindings.Do(context.Background(), func(s *Scope) error {
		return bindings.Do(s.Context(), func(*Scope) error { return nil })
	})
	if !errors.Is(err, bindings.ErrNested) {
		t.Errorf("nested Do: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := bindings.Do(ctx, func(*Scope) error { t.Error("ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestGuardsRestoreWhatTheyFound(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		x, w := s.Full([]int64{2, 4}, 1, Float, CPU), s.Full([]int64{3, 4}, 1, Float, CPU)
		s.SetRequiresGrad(w, true)
		s.NoGrad(func() {
			s.EnableGrad(func() {
				if !s.Linear(x, w, Tensor{}).RequiresGrad() {
					t.Error("EnableGrad records nothing")
				}
			})
			if s.Linear(x, w, Tensor{}).RequiresGrad() {
				t.Error("NoGrad was not restored")
			}
			s.NoGrad(func() {})
			if s.GradEnabled() {
				t.Error("the inner NoGrad enabled gradients")
			}
		})
		s.Inference(func() {
			if s.Linear(x, w, Tensor{}).RequiresGrad() {
				t.Error("inference mode records")
			}
		})
		dtype := func() bindings.DType { return s.Linear(x, w, Tensor{}).DType() }
		s.Autocast(CPU, bindings.BFloat16, func() {
			if d := dtype(); d != bindings.BFloat16 {
				t.Errorf("autocast gave %v", d)
			}
			s.Autocast(CPU, Float, func() {
				if d := dtype(); d != Float {
					t.Errorf("autocast off gave %v", d)
				}
			})
			if d := dtype(); d != bindings.BFloat16 {
				t.Errorf("autocast was not restored: %v", d)
			}
			if d, on := s.AutocastDType(CPU); d != bindings.BFloat16 || !on {
				t.Errorf("autocast is said to be %v (%v)", d, on)
			}
		})
		if _, on := s.AutocastDType(CPU); on {
			t.Error("autocast is said to be on")
		}
		func() {
			defer func() { _ = recover() }()
			s.Autocast(CPU, bindings.BFloat16, func() { s.NoGrad(func() { panic("out") }) })
		}()
		if d := dtype(); d != Float || !s.GradEnabled() {
			t.Errorf("a panic left autocast %v, grad %v", d, s.GradEnabled())
		}
		return nil
	})
}

// TestAutocastSeesNewWeights: libtorch keeps the casts it makes of weights until the outermost guard leaves, also
// after a guard that switched mixed precision off.
func TestAutocastSeesNewWeights(t *testing.T) {
	for _, c := range []struct {
		name  string
		first func(s *Scope)
	}{
		{"alone", func(*Scope) {}},
		{"after off", func(s *Scope) { s.Autocast(CPU, Float, func() {}) }},
		{"after off inside on", func(s *Scope) { s.Autocast(CPU, bindings.BFloat16, func() { s.Autocast(CPU, Float, func() {}) }) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			bindingstest.Do(t, func(s *Scope) error {
				x, w := s.Full([]int64{2, 4}, 1, Float, CPU), s.Full([]int64{4, 3}, 1, Float, CPU)
				s.SetRequiresGrad(w, true)
				for _, want := range []float64{4, 8} {
					c.first(s)
					s.Autocast(CPU, bindings.BFloat16, func() {
						if got := s.MatMul(x, w).Float64s()[0]; got != want {
							t.Errorf("got %g, want %g", got, want)
						}
					})
					s.NoGrad(func() { s.MulScalarInPlace(w, 2) })
				}
				return nil
			})
		})
	}
}

func TestRandomStateRoundTrip(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		draw := func() []float32 { return s.Normal([]int64{100}, 0, 1, Float, CPU).Float32s() }
		s.Seed(7)
		state := s.RNGState(CPU)
		first := draw()
		second := draw()
		s.SetRNGState(state, CPU)
		if diff := cmp.Diff(first, draw()); diff != "" {
			t.Error("the state did not bring the draws back")
		}
		if diff := cmp.Diff(second, draw()); diff != "" {
			t.Error("the draws go on from another state")
		}
		s.Seed(7)
		if diff := cmp.Diff(first, draw()); diff != "" {
			t.Error("a seed gives other draws the second time")
		}
		return nil
	})
}

func TestTensorsOverMappedMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weights")
	if err := os.WriteFile(path, []byte{0, 0, 128, 63, 0, 0, 0, 64, 0, 0, 64, 64}, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, 12, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(mem) }()
	bindingstest.Do(t, func(s *Scope) error {
		x := s.OverMemory(mem, Float, 3)
		if diff := cmp.Diff([]float32{3, 6, 9}, s.MulScalar(x, 3).Float32s()); diff != "" {
			t.Error(diff)
		}
		return nil
	})
	err = bindings.Do(context.Background(), func(s *Scope) error { s.OverMemory(mem, Float, 4); return nil })
	if err == nil {
		t.Error("a shape larger than the memory was accepted")
	}
}

func TestAutograd(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		w := s.FromFloat32s([]float32{1, 2, 3}, 3)
		s.SetRequiresGrad(w, true)
		unused := s.FromFloat32s([]float32{1}, 1)
		s.SetRequiresGrad(unused, true)
		loss := s.In(func(s *Scope) Tensor { return s.Sum(s.Mul(s.Mul(w, w), w)) })
		g := s.Gradients(loss, Tensor{}, []Tensor{w, unused})
		if diff := cmp.Diff([]float32{3, 12, 27}, g[0].Float32s()); diff != "" {
			t.Error(diff)
		}
		if g[1].Defined() || s.Grad(w).Defined() {
			t.Error("Gradients filled what it should not")
		}
		for range 2 {
			s.Backward(s.Sum(s.Mul(w, w)))
		}
		if diff := cmp.Diff([]float32{4, 8, 12}, s.Grad(w).Float32s()); diff != "" {
			t.Error(diff)
		}
		s.SetGrad(w, Tensor{})
		if s.Grad(w).Defined() {
			t.Error("the gradient was not removed")
		}
		return nil
	})
}

func TestAttentionFusedEqualsComposed(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		s.Seed(1)
		q, k, v := s.Normal([]int64{2, 6, 5, 8}, 0, 1, Float, CPU), s.Normal([]int64{2, 2, 7, 8}, 0, 1, Float, CPU), s.Normal([]int64{2, 2, 7, 8}, 0, 1, Float, CPU)
		bias := s.Normal([]int64{2, 1, 5, 7}, 0, 1, Float, CPU)
		forEachQuery := func(x Tensor) Tensor { // every head of x three times in a row
			return s.Reshape(s.Expand(s.Unsqueeze(x, 2), 2, 2, 3, 7, 8), 2, 6, 7, 8)
		}
		scores := s.Add(s.MulScalar(s.MatMul(q, s.Transpose(forEachQuery(k), 2, 3)), 1/math.Sqrt(8)), bias)
		want := s.MatMul(s.Softmax(scores, -1), forEachQuery(v)).Float32s()
		got := s.Attention(q, k, v, bias, 0, 0).Float32s()
		half := s.Attention(s.To(q, bindings.Double), s.To(k, bindings.Double), s.To(v, bindings.Double), s.To(bias, bindings.Double), 0, 0).Float32s()
		for i := range want {
			if math.Abs(float64(want[i]-got[i])) > 1e-5 || math.Abs(float64(want[i]-half[i])) > 1e-5 {
				t.Fatalf("element %d: %v, fused %v, composed %v", i, want[i], got[i], half[i])
			}
		}
		return nil
	})
}

// Large blocks are cut from shared addresses and joined again: live tensors keep their values whatever is made
// and freed around them, also while blocks are returned to the kernel.
func TestLargeBlocksDoNotOverlap(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		defer s.KeepLargeBlocks(true)
		rng := rand.New(rand.NewPCG(1, 2))
		type block struct {
			t     Tensor
			value float64
		}
		var live []block
		for i := range 300 {
			s.KeepLargeBlocks(i%100 != 50)
			if len(live) > 0 && (len(live) == 12 || rng.IntN(2) == 0) {
				k := rng.IntN(len(live))
				b := live[k]
				if lo, hi := s.Neg(s.MaxAll(s.Neg(b.t))).Item(), s.MaxAll(b.t).Item(); lo != b.value || hi != b.value {
					t.Fatalf("block %d holds %v to %v, want %v", k, lo, hi, b.value)
				}
				s.Free(b.t)
				live = append(live[:k], live[k+1:]...)
				continue
			}
			live = append(live, block{s.Full([]int64{1<<18 + rng.Int64N(1<<19)}, float64(i), Float, CPU), float64(i)})
		}
		return nil
	})
}

func TestOpsAllocateNothing(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		x := s.Full([]int64{4, 4}, 1, Float, CPU)
		step := func() {
			c := s.Child()
			y := c.Add(x, x)
			y = c.Reshape(c.Linear(y, x, Tensor{}), 2, 8)
			y = c.MulScalar(c.Transpose(y, 0, 1), 2)
			_ = c.In(func(c *Scope) Tensor { return c.Softmax(c.Contiguous(y), -1) })
			c.Close()
		}
		step()
		if n := testing.AllocsPerRun(50, step); n > 0 {
			t.Errorf("%v Go allocations per step of 7 operations", n)
		}
		return nil
	})
}

func TestOptimizersMatchTheirFormulas(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		one := func(v float32) Tensor { return s.FromFloat32s([]float32{v}, 1) }
		g := one(0.5)
		for _, composed := range []bool{false, true} {
			p, m, v, n := one(1), one(0), one(0), s.Scalar(1, Float, CPU)
			before := p.Version()
			s.AdamStep([]Tensor{p}, []Tensor{g}, []Tensor{m}, []Tensor{v}, []Tensor{n},
				bindings.AdamOptions{LR: 0.1, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01, Decoupled: true, Composed: composed})
			if p.Version() == before {
				t.Errorf("the step is no change of the parameter, composed %t", composed)
			}
			// First step: m̂ = g, v̂ = g², so the move is lr·sign(g) after the decay lr·wd·p.
			if got := p.Item(); math.Abs(got-(1-0.1*0.01-0.1)) > 1e-6 {
				t.Errorf("AdamW gave %v, composed %t", got, composed)
			}
		}
		q, b := one(1), one(0)
		for i := range 2 {
			s.SGDStep([]Tensor{q}, []Tensor{g}, []Tensor{b}, 0.1, 0.9, 0, i == 0)
		}
		if got := q.Item(); math.Abs(got-(1-0.05-0.095)) > 1e-6 {
			t.Errorf("SGD with momentum gave %v", got)
		}
		if got := s.Norm([]Tensor{one(3), one(4)}); math.Abs(got-5) > 1e-6 {
			t.Errorf("norm %v", got)
		}
		bad := one(float32(math.Inf(1)))
		if got := s.FirstNonFinite([]Tensor{g, bad}); got != 1 {
			t.Errorf("first non-finite %d", got)
		}
		found, scale, tracker := s.Scalar(0, Float, CPU), s.Scalar(1024, Float, CPU), s.Scalar(0, bindings.Int, CPU)
		s.Unscale([]Tensor{g, bad}, found, s.Scalar(0.5, Float, CPU))
		s.UpdateScale(scale, tracker, found, 2, 0.5, 2000)
		if found.Item() != 1 || scale.Item() != 512 || g.Item() != 0.25 {
			t.Errorf("found %v, scale %v, gradient %v", found.Item(), scale.Item(), g.Item())
		}
		return nil
	})
}

func TestLoadCUDASaysWhatIsMissing(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		if _, err := s.LoadCUDA(t.TempDir(), ""); err == nil || !strings.Contains(err.Error(), "libtorch_cuda.so") {
			t.Errorf("got %v, want an error naming the library", err)
		}
		return nil
	})
}

func TestThreadsThatCannotBe(t *testing.T) {
	for _, n := range []int{0, -1} {
		err := bindings.Do(context.Background(), func(s *Scope) error { s.SetThreads(n); return nil })
		if op := (*bindings.OpError)(nil); !errors.As(err, &op) {
			t.Errorf("%d threads: %v, want an *OpError", n, err)
		}
	}
}

func TestCapabilityNeedsADriver(t *testing.T) {
	if bindings.HasDriver() {
		t.Skip("SKIPPED: there is an NVIDIA driver")
	}
	if _, _, err := bindings.CUDACapability(bindings.CUDA(0)); err == nil || !strings.Contains(err.Error(), "cuda:0") {
		t.Errorf("got %v", err)
	}
}
