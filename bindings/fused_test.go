package bindings_test

import (
	"fmt"
	"math"
	"reflect"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
)

// fusedCase is an operation to compare with its composed form: f's result and the gradients of all inputs.
type fusedCase struct {
	name   string
	inputs [][]int64
	fixed  int // that many last inputs take no gradient
	f      func(s *Scope, in []Tensor) Tensor
}

func fusedCases() []fusedCase {
	lowRank := func(s *Scope, in []Tensor) Tensor {
		return s.LinearLowRank(in[0], in[1], in[2], s.To(in[3], Float), s.To(in[4], Float), 0.5)
	}
	heads := func(s *Scope, x Tensor, n int64) Tensor {
		return s.Transpose(s.Reshape(x, x.Size(0), x.Size(1), n, -1), 1, 2)
	}
	attention := func(h, hkv int64, mask func(s *Scope, sq, sk int64) Tensor, causal bool) func(*Scope, []Tensor) Tensor {
		return func(s *Scope, in []Tensor) Tensor {
			q, k, v := heads(s, in[0], h), heads(s, in[1], hkv), heads(s, in[2], hkv)
			var o Tensor
			if causal {
				o = s.CausalAttention(q, k, v, bindings.Sight{}, 0, 0)
			} else {
				var bias Tensor
				if mask != nil {
					bias = s.ToDevice(mask(s, q.Size(2), k.Size(2)), Float, q.Device())
				}
				o = s.Attention(q, k, v, bias, 0, 0)
			}
			return s.Reshape(s.Transpose(o, 1, 2), in[0].Shape()...)
		}
	}
	padding := func(s *Scope, sq, sk int64) Tensor {
		m := make([]float32, 2*sk)
		for i := range sk {
			if i >= sk-17 {
				m[i] = -math.MaxFloat32
			}
			if i < 13 || i == 20 {
				m[sk+i] = -math.MaxFloat32
			}
		}
		return s.FromFloat32s(m, 2, 1, 1, sk)
	}
	window := func(s *Scope, sq, sk int64) Tensor {
		m := make([]float32, 2*sq*sk)
		for i := range int64(len(m)) {
			q, k := i/sk%sq, i%sk
			if k > q+sk-sq || k < q-20 || i >= sq*sk && k < 5 && q > 8 {
				m[i] = -math.MaxFloat32
			}
		}
		return s.FromFloat32s(m, 2, 1, sq, sk)
	}
	hidden := func(s *Scope, sq, sk int64) Tensor { // whole rows, as queries of left padding, which no loss reads, and all but the last keys
		m := make([]float32, 2*sq*sk)
		for i := range int64(len(m)) {
			if q, k := i/sk%sq, i%sk; q < 7 || i >= sq*sk && k < sk-3 {
				m[i] = -1e38
			}
		}
		return s.FromFloat32s(m, 2, 1, sq, sk)
	}
	// sight is texts that begin at each row's starts behind keys that all see.
	sight := func(h, hkv, lead int64, starts ...[]int64) func(*Scope, []Tensor) Tensor {
		return func(s *Scope, in []Tensor) Tensor {
			q, k, v := heads(s, in[0], h), heads(s, in[1], hkv), heads(s, in[2], hkv)
			o := s.CausalAttention(q, k, v, bindings.Sight{Starts: startsTensor(s, q, k, starts), Lead: lead}, 0, 0)
			return s.Reshape(s.Transpose(o, 1, 2), in[0].Shape()...)
		}
	}
	linear := func(s *Scope, in []Tensor) Tensor { return s.Linear(in[0], in[1], in[2]) }
	geluLinear := func(s *Scope, in []Tensor) Tensor { return s.GELULinear(s.MulScalar(in[0], 3), in[1], in[2]) }
	swigluLinear := func(s *Scope, in []Tensor) Tensor {
		return s.SwiGLULinear(s.MulScalar(in[0], 3), in[1], in[2], Tensor{})
	}
	return []fusedCase{
		{"linear", [][]int64{{3, 21, 70}, {45, 70}, {45}}, 0, linear},
		{"linear one row", [][]int64{{1, 70}, {45, 70}, {45}}, 0, linear},
		{"linear three rows", [][]int64{{3, 1000}, {45, 1000}, {45}}, 0, linear},
		{"linear deep", [][]int64{{17, 3300}, {33, 3300}, {33}}, 0, linear},
		{"linear large", [][]int64{{130, 96}, {200, 96}, {200}}, 0, linear},
		{"linear frozen", [][]int64{{3, 21, 64}, {45, 64}, {45}}, 2, linear},
		{"linear, weight stored in bf16", [][]int64{{3, 21, 70}, {45, 70}, {45}}, 0, func(s *Scope, in []Tensor) Tensor {
			return s.Linear(in[0], s.To(in[1], bindings.BFloat16), in[2])
		}},
		{"linear, few rows, weight stored in bf16", [][]int64{{2, 70}, {45, 70}}, 0, func(s *Scope, in []Tensor) Tensor {
			return s.Linear(in[0], s.To(in[1], bindings.BFloat16), Tensor{})
		}},
		{"linear first", [][]int64{{45, 64}, {3, 21, 64}}, 1, func(s *Scope, in []Tensor) Tensor { return s.Linear(in[1], in[0], Tensor{}) }},
		{"linear of a slice", [][]int64{{5, 9, 64}, {45, 64}}, 0, func(s *Scope, in []Tensor) Tensor {
			return s.Linear(s.Select(in[0], 1, 3), in[1], Tensor{})
		}},
		{"layer norm", [][]int64{{3, 21, 70}, {70}, {70}}, 0, func(s *Scope, in []Tensor) Tensor { return s.LayerNorm(in[0], in[1], in[2], 1e-5) }},
		{"add layer norm", [][]int64{{3, 21, 64}, {3, 21, 64}, {64}, {64}}, 0, func(s *Scope, in []Tensor) Tensor {
			return s.AddLayerNorm(in[0], in[1], in[2], in[3], 1e-12, 0)
		}},
		{"add layer norm, frozen", [][]int64{{3, 21, 64}, {3, 21, 64}, {64}, {64}}, 3, func(s *Scope, in []Tensor) Tensor {
			return s.AddLayerNorm(in[0], in[1], in[2], in[3], 1e-12, 0)
		}},
		{"rms norm", [][]int64{{3, 21, 70}, {70}}, 0, func(s *Scope, in []Tensor) Tensor { return s.RMSNorm(in[0], in[1], 1e-5) }},
		{"rms norm, frozen", [][]int64{{3, 21, 64}, {64}}, 1, func(s *Scope, in []Tensor) Tensor { return s.RMSNorm(in[0], in[1], 1e-5) }},
		{"gelu", [][]int64{{7, 77}}, 0, func(s *Scope, in []Tensor) Tensor { return s.GELU(s.MulScalar(in[0], 3)) }},
		{"swiglu", [][]int64{{7, 77}, {7, 77}}, 0, func(s *Scope, in []Tensor) Tensor { return s.SwiGLU(in[0], in[1]) }},
		{"gelu, over its input", [][]int64{{7, 77}}, 1, func(s *Scope, in []Tensor) Tensor { return s.GELUOver(s.MulScalar(in[0], 3)) }},
		{"swiglu, over its gate", [][]int64{{7, 77}, {7, 77}}, 2, func(s *Scope, in []Tensor) Tensor { return s.SwiGLUOver(s.MulScalar(in[0], 3), in[1]) }},
		{"gelu linear", [][]int64{{3, 19, 70}, {40, 70}, {40}}, 0, geluLinear},
		{"gelu linear, frozen", [][]int64{{3, 19, 70}, {40, 70}, {40}}, 2, geluLinear},
		{"gelu linear, weight alone", [][]int64{{40, 70}, {40}, {3, 19, 70}}, 1, func(s *Scope, in []Tensor) Tensor {
			return s.GELULinear(s.MulScalar(in[2], 3), in[0], in[1])
		}},
		{"gelu linear, not recorded", [][]int64{{3, 19, 70}, {40, 70}, {40}}, 3, geluLinear},
		{"swiglu linear", [][]int64{{3, 19, 70}, {3, 19, 70}, {40, 70}}, 0, swigluLinear},
		{"swiglu linear, frozen", [][]int64{{3, 19, 70}, {3, 19, 70}, {40, 70}}, 1, swigluLinear},
		{"swiglu linear, not recorded", [][]int64{{3, 19, 70}, {3, 19, 70}, {40, 70}}, 3, swigluLinear},
		{"low rank", [][]int64{{3, 19, 70}, {40, 70}, {40}, {8, 70}, {40, 8}}, 0, lowRank},
		{"low rank, few rows", [][]int64{{2, 1, 70}, {40, 70}, {40}, {8, 70}, {40, 8}}, 5, lowRank},
		{"rotate", [][]int64{{2, 9, 4 * 24}, {2, 1, 9, 24}, {1, 1, 9, 24}}, 2, func(s *Scope, in []Tensor) Tensor {
			return s.Rotate(heads(s, in[0], 4), in[1], in[2])
		}},
		{"rotate, all packs", [][]int64{{2, 9, 4 * 32}, {1, 1, 9, 32}, {1, 1, 9, 32}}, 2, func(s *Scope, in []Tensor) Tensor {
			return s.Rotate(heads(s, in[0], 4), in[1], in[2])
		}},
		{"rotate both", [][]int64{{2, 9, 4 * 24}, {2, 9, 2 * 24}, {2, 1, 9, 24}, {1, 1, 9, 24}}, 2, func(s *Scope, in []Tensor) Tensor {
			q, k := s.RotateBoth(heads(s, in[0], 4), heads(s, in[1], 2), in[2], in[3])
			return s.Cat(1, q, k)
		}},
		{"attention", [][]int64{{2, 70, 3 * 40}, {2, 70, 3 * 40}, {2, 70, 3 * 40}}, 0, attention(3, 3, nil, false)},
		{"attention, padded", [][]int64{{2, 37, 128}, {2, 61, 128}, {2, 61, 128}}, 0, attention(2, 2, padding, false)},
		{"attention, hidden rows", [][]int64{{2, 37, 128}, {2, 61, 128}, {2, 61, 128}}, 3, attention(2, 2, hidden, false)},
		{"attention, windowed", [][]int64{{2, 75, 128}, {2, 75, 64}, {2, 75, 64}}, 0, attention(4, 2, window, false)},
		{"attention, grouped", [][]int64{{2, 70, 6 * 16}, {2, 33, 2 * 16}, {2, 33, 2 * 16}}, 0, attention(6, 2, nil, false)},
		{"attention, one query", [][]int64{{2, 1, 6 * 40}, {2, 61, 2 * 40}, {2, 61, 2 * 40}}, 0, attention(6, 2, padding, false)},
		{"attention, few queries", [][]int64{{2, 5, 6 * 40}, {2, 61, 2 * 40}, {2, 61, 2 * 40}}, 3, attention(6, 2, window, false)},
		{"attention, few queries, causal", [][]int64{{2, 5, 4 * 24}, {2, 5, 4 * 24}, {2, 5, 4 * 24}}, 3, attention(4, 4, nil, true)},
		{"attention, causal", [][]int64{{2, 70, 4 * 16}, {2, 70, 2 * 16}, {2, 70, 2 * 16}}, 0, attention(4, 2, nil, true)},
		{"attention, texts", [][]int64{{2, 140, 4 * 16}, {2, 140, 2 * 16}, {2, 140, 2 * 16}}, 0, sight(4, 2, 0, []int64{0, 40, 41, 100}, []int64{0, 97})},
		{"attention, texts behind a prefix", [][]int64{{2, 70, 64}, {2, 81, 64}, {2, 81, 64}}, 0, sight(4, 4, 11, []int64{11, 40, 41}, []int64{11, 64})},
		{"attention, causal behind a prefix", [][]int64{{2, 70, 64}, {2, 81, 64}, {2, 81, 64}}, 0, sight(4, 4, 11)},
		{"attention, few queries, texts", [][]int64{{2, 5, 64}, {2, 9, 32}, {2, 9, 32}}, 3, sight(4, 2, 2, []int64{2, 6}, []int64{3})},
	}
}

// startsTensor is per query of a row the last of its starts, counted in keys, that is not after its own place; none for
// no starts.
func startsTensor(s *Scope, q, k Tensor, rows [][]int64) Tensor {
	if rows == nil {
		return Tensor{}
	}
	n := q.Size(2)
	var all []int64
	for _, starts := range rows {
		for i := range n {
			at := starts[0]
			for _, start := range starts {
				if start <= i+k.Size(2)-n {
					at = start
				}
			}
			all = append(all, at)
		}
	}
	return s.Int64sOn(q.Device(), all, int64(len(rows)), n)
}

// What starts hide has no part in the sums: they are the bits of a mask's.
func TestStartsGiveTheBitsOfAMask(t *testing.T) {
	for _, lead := range []int64{0, 9} {
		const n = 150
		starts := func(s *Scope, in []Tensor) Tensor {
			return startsTensor(s, in[0], in[1], [][]int64{{lead, lead + 70, lead + 77}, {lead, lead + 128}})
		}
		mask := func(s *Scope, in []Tensor) Tensor {
			var m []float32
			for i, start := range starts(s, in).Int64s() {
				for key := range n + lead {
					hidden := key > lead+int64(i)%n || key >= lead && key < start
					m = append(m, map[bool]float32{true: -1e38}[hidden])
				}
			}
			return s.FromFloat32s(m, 2, 1, n, n+lead)
		}
		shapes := [][]int64{{2, 4, n, 16}, {2, 2, n + lead, 16}, {2, 2, n + lead, 16}}
		by := fusedCase{inputs: shapes, f: func(s *Scope, in []Tensor) Tensor {
			return s.CausalAttention(in[0], in[1], in[2], bindings.Sight{Starts: starts(s, in), Lead: lead}, 0, 0)
		}}
		masked := fusedCase{inputs: shapes, f: func(s *Scope, in []Tensor) Tensor {
			return s.Attention(in[0], in[1], in[2], mask(s, in), 0, 0)
		}}
		for _, d := range []bindings.DType{Float, bindings.BFloat16} {
			bindingstest.Do(t, func(s *Scope) error {
				if s.Sees(s.Zeros([]int64{1}, d, CPU), d, 16) != bindings.ByStarts {
					t.Logf("%v: no kernel of our own on this CPU", d)
					return nil
				}
				if got, want := by.run(s, CPU, true, false, d), masked.run(s, CPU, true, false, d); !reflect.DeepEqual(got, want) {
					t.Errorf("%v, %d keys in front: other bits than with a mask", d, lead)
				}
				return nil
			})
		}
	}
}

// run gives f's result and the gradients of Σ f·weights, in fp32.
func (c fusedCase) run(s *Scope, dev bindings.Device, fused, autocast bool, d bindings.DType) map[string][]float32 {
	defer s.SetFused(s.SetFused(fused))
	s.Seed(11)
	out := map[string][]float32{}
	var in []Tensor
	for i, shape := range c.inputs {
		x := s.To(s.Normal(shape, 0.1, 1, Float, dev), d)
		s.SetRequiresGrad(x, i < len(c.inputs)-c.fixed)
		in = append(in, x)
	}
	var y Tensor
	compute := func() { y = c.f(s, in) }
	if autocast {
		s.Autocast(dev, bindings.BFloat16, compute)
	} else {
		compute()
	}
	out["result, "+y.DType().String()] = y.Float32s()
	if !y.RequiresGrad() {
		return out
	}
	s.BackwardWith(y, s.To(s.Normal(y.Shape(), 0, 1, Float, dev), y.DType()))
	for i, x := range in {
		if g := s.Grad(x); g.Defined() {
			out[fmt.Sprint("gradient ", i)] = g.Float32s()
		}
	}
	return out
}

func TestFusedEqualsComposed(t *testing.T) {
	for _, m := range []struct {
		name     string
		autocast bool
		dtype    bindings.DType
		tol      float64
	}{{"fp32", false, Float, 2e-5}, {"autocast", true, Float, 0.02}, {"bf16", false, bindings.BFloat16, 0.02}} {
		for _, c := range fusedCases() {
			t.Run(m.name+"/"+c.name, func(t *testing.T) {
				bindingstest.Do(t, func(s *Scope) error {
					got, want := c.run(s, CPU, true, m.autocast, m.dtype), c.run(s, CPU, false, m.autocast, m.dtype)
					if len(got) != len(want) {
						t.Fatalf("%d tensors, composed %d", len(got), len(want))
					}
					for k := range want {
						if d := difference(got[k], want[k]); !(d <= m.tol) {
							t.Errorf("%s differs by %.2g of its size", k, d)
						}
					}
					return nil
				})
			})
		}
	}
}

// What autograd may still read is never written over.
func TestOverLeavesWhatAutogradReads(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		x, up, w := s.Normal([]int64{33, 64}, 0, 1, Float, CPU), s.Normal([]int64{33, 64}, 0, 1, Float, CPU), s.Normal([]int64{9, 64}, 0, 1, Float, CPU)
		s.SetRequiresGrad(x, true)
		before := x.Float32s()
		over := func() {
			s.GELUOver(x)
			s.SwiGLUOver(x, up)
			s.GELULinear(x, w, Tensor{})
			s.SwiGLULinear(x, up, w, Tensor{})
		}
		over()
		s.NoGrad(over)
		if d := difference(x.Float32s(), before); d != 0 {
			t.Errorf("changed by %.2g of its size", d)
		}
		return nil
	})
}

// difference is the root mean square of a-b over that of b.
func difference(a, b []float32) float64 {
	if len(a) != len(b) {
		return math.Inf(1)
	}
	var diff, size float64
	for i := range a {
		d := float64(a[i] - b[i])
		diff, size = diff+d*d, size+float64(b[i])*float64(b[i])
	}
	return math.Sqrt(diff / (size + 1e-12))
}

func TestDropoutMasksAreTheSameBackward(t *testing.T) {
	for _, d := range []bindings.DType{Float, bindings.BFloat16} {
		bindingstest.Do(t, func(s *Scope) error {
			s.Seed(5)
			const n, p = 1 << 20, 0.1
			x := s.Full([]int64{1024, n / 1024}, 1, d, CPU)
			s.SetRequiresGrad(x, true)
			y := s.Dropout(x, p)
			s.BackwardWith(y, s.Full(y.Shape(), 1, d, CPU))
			out, grad := y.Float32s(), s.Grad(x).Float32s()
			kept := 0
			for i := range out {
				if out[i] != grad[i] {
					t.Fatalf("element %d is %v forward and %v backward", i, out[i], grad[i])
				}
				if out[i] != 0 {
					kept++
				}
			}
			if dev := math.Abs(float64(kept)-n*(1-p)) / math.Sqrt(n*p*(1-p)); dev > 5 {
				t.Errorf("%d of %d kept: %.1f standard deviations off", kept, n, dev)
			}
			// Masks of neighbours, of neighbouring rows and of the next call are independent.
			next := s.Dropout(x, p).Float32s()
			for name, other := range map[string]func(i int) float32{
				"next": func(i int) float32 { return out[(i+1)%n] }, "16th": func(i int) float32 { return out[(i+16)%n] },
				"row": func(i int) float32 { return out[(i+1024)%n] }, "call": func(i int) float32 { return next[i] },
			} {
				both := 0
				for i := range out {
					if out[i] == 0 && other(i) == 0 {
						both++
					}
				}
				if dev := math.Abs(float64(both)-n*p*p) / math.Sqrt(n*p*p); dev > 5 {
					t.Errorf("%s: %d dropped together, want about %.0f", name, both, n*p*p)
				}
			}
			return nil
		})
	}
}

func TestAddLayerNormDropsWhatDropoutDrops(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		s.Seed(5)
		shape := []int64{33, 64}
		x, r := s.Normal(shape, 0, 1, Float, CPU), s.Normal(shape, 0, 1, Float, CPU)
		w, b, g := s.Normal(shape[1:], 1, 1, Float, CPU), s.Normal(shape[1:], 0, 1, Float, CPU), s.Normal(shape, 0, 1, Float, CPU)
		run := func(f func() Tensor) []float32 {
			s.SetRequiresGrad(x, true)
			s.SetGrad(x, Tensor{})
			s.Seed(6)
			y := f()
			s.BackwardWith(y, g)
			return append(y.Float32s(), s.Grad(x).Float32s()...)
		}
		got := run(func() Tensor { return s.AddLayerNorm(x, r, w, b, 1e-12, 0.3) })
		want := run(func() Tensor { return s.LayerNorm(s.Add(s.Dropout(x, 0.3), r), w, b, 1e-12) })
		if d := difference(got, want); !(d < 1e-5) {
			t.Errorf("differs by %.2g", d)
		}
		return nil
	})
}

// With values of ones attention with dropout gives the sum of the weights it kept: its mean over draws is 1,
// and its gradients are those of a function that is linear in v.
func TestAttentionDropout(t *testing.T) {
	for _, d := range []bindings.DType{Float, bindings.BFloat16} {
		bindingstest.Do(t, func(s *Scope) error {
			s.Seed(7)
			shape := []int64{4, 4, 70, 16}
			q, k := s.Normal(shape, 0, 1, d, CPU), s.Normal(shape, 0, 1, d, CPU)
			ones := s.Full(shape, 1, d, CPU)
			sum, n := 0.0, 0
			for _, v := range s.Attention(q, k, ones, Tensor{}, 0, 0.2).Float32s() {
				sum, n = sum+float64(v), n+1
			}
			if mean := sum / float64(n); math.Abs(mean-1) > 0.01 {
				t.Errorf("%v: mean %v, want 1", d, mean)
			}
			v, g := s.Normal(shape, 0, 1, d, CPU), s.Normal(shape, 0, 1, d, CPU)
			s.SetRequiresGrad(v, true)
			s.SetRequiresGrad(q, true)
			y := s.Attention(q, k, v, Tensor{}, 0, 0.2)
			s.BackwardWith(y, g)
			// <y, g> = <v, dv> holds only if both passes drop the same weights.
			yg := s.Sum(s.Mul(s.To(y, Float), s.To(g, Float))).Item()
			vg := s.Sum(s.Mul(s.To(v, Float), s.To(s.Grad(v), Float))).Item()
			if math.Abs(yg-vg) > 0.02*math.Abs(yg)+0.5 {
				t.Errorf("%v: %v forward, %v backward", d, yg, vg)
			}
			if d != Float {
				return nil
			}
			// The gradient of q by central differences, along one direction and under the same masks.
			u := s.Normal(shape, 0, 1, Float, CPU)
			at := func(h float64) float64 {
				s.Seed(8)
				moved := s.Add(s.Detach(q), s.MulScalar(u, h))
				return s.Sum(s.Mul(s.Attention(moved, k, s.Detach(v), Tensor{}, 0, 0.2), g)).Item()
			}
			s.Seed(8)
			s.SetGrad(q, Tensor{})
			s.BackwardWith(s.Attention(q, k, v, Tensor{}, 0, 0.2), g)
			const h = 1e-2
			want, got := (at(h)-at(-h))/(2*h), s.Sum(s.Mul(s.Grad(q), u)).Item()
			if math.Abs(want-got) > 0.01*math.Abs(want)+0.05 {
				t.Errorf("gradient along a direction %v, by differences %v", got, want)
			}
			return nil
		})
	}
}
