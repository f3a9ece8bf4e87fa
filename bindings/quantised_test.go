package bindings_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
)

// quantFixtures reads what scripts/goldens/quantised.py wrote.
func quantFixtures(t testing.TB, s *Scope) map[string]Tensor {
	t.Helper()
	raw, err := os.ReadFile("../testdata/quantised/quantised.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	n := 8 + binary.LittleEndian.Uint64(raw)
	var header map[string]struct {
		DType   string  `json:"dtype"`
		Shape   []int64 `json:"shape"`
		Offsets [2]int  `json:"data_offsets"`
	}
	if err := json.Unmarshal(raw[8:n], &header); err != nil {
		t.Fatal(err)
	}
	dtypes := map[string]bindings.DType{"U8": bindings.Uint8, "I8": bindings.Int8, "F16": bindings.Half, "BF16": bindings.BFloat16, "F32": Float}
	out := map[string]Tensor{}
	for name, h := range header {
		out[name] = s.FromRaw(raw[n:][h.Offsets[0]:h.Offsets[1]], dtypes[h.DType], h.Shape...)
	}
	return out
}

func sameBits(t testing.TB, what string, got, want Tensor) {
	t.Helper()
	if got.String() != want.String() || !bytes.Equal(got.Raw(), want.Raw()) {
		t.Errorf("%s: %v is not %v bit for bit: off by %.2g of its size", what, got, want, difference(got.Float32s(), want.Float32s()))
	}
}

// What bitsandbytes made of matrices: ties between codes, blocks and matrices of zeros, all dtypes.
func TestQuantiseIsBitsandbytes(t *testing.T) {
	for _, c := range []struct {
		name   string
		kind   bindings.QuantKind
		double bool
	}{
		{"nf4.ties", bindings.NF4, false}, {"nf4.fp16", bindings.NF4, false}, {"nf4.double", bindings.NF4, true}, {"nf4.zero", bindings.NF4, true},
		{"fp4.ties", bindings.FP4, false}, {"fp4.fp16", bindings.FP4, false}, {"fp4.double", bindings.FP4, true}, {"fp4.zero", bindings.FP4, true},
		{"int8.fp32", bindings.Int8Rows, false}, {"int8.fp16", bindings.Int8Rows, false}, {"int8.bf16", bindings.Int8Rows, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			bindingstest.Do(t, func(s *Scope) error {
				f := quantFixtures(t, s)
				q := s.Quantise(f[c.name+".w"], c.kind, c.double)
				if err := s.CheckQuantised(q); err != nil {
					t.Error(err)
				}
				sameBits(t, "codes", q.Codes, f[c.name+".codes"])
				sameBits(t, "scales", q.Scales, f[c.name+".scales"])
				if c.double {
					sameBits(t, "nested scales", q.NestedScales, f[c.name+".nested_scales"])
					sameBits(t, "nested map", q.NestedMap, f[c.name+".nested_map"])
					if want := f[c.name+".offset"].Float32s()[0]; q.Offset != want {
						t.Errorf("offset %v, want %v", q.Offset, want)
					}
				}
				sameBits(t, "values", s.Dequantise(q, Float), f[c.name+".values"])
				return nil
			})
		})
	}
}

func TestQuantiseRefusesWhatIsNotFinite(t *testing.T) {
	for _, v := range []float64{math.Inf(1), math.NaN()} {
		err := bindings.Do(t.Context(), func(s *Scope) error {
			s.Quantise(s.Full([]int64{2, 64}, v, Float, CPU), bindings.NF4, false)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "not finite") {
			t.Errorf("%v: error %v", v, err)
		}
	}
}

func TestGGUFBlocksAreTheReferences(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		f := quantFixtures(t, s)
		for kind := bindings.Q4_0; kind <= bindings.Q6_K; kind++ {
			name := "gguf." + kind.String()
			q := &bindings.Quantised{Kind: kind, Rows: 3, Cols: 512, Codes: f[name+".codes"]}
			if err := s.CheckQuantised(q); err != nil {
				t.Error(err)
			}
			for way := bindings.QuantComposed; way <= bindings.QuantFastest; way++ {
				sameBits(t, fmt.Sprint(kind, " by way ", way), s.DequantiseBy(q, Float, way), f[name+".values"])
			}
		}
		return nil
	})
}

// quantCase is a matrix of a kind with random codes and scales.
type quantCase struct {
	kind       bindings.QuantKind
	rows, cols int64
	block      int64
	nested     bool
}

func (c quantCase) String() string {
	return fmt.Sprintf("%v %dx%d block %d nested %t", c.kind, c.rows, c.cols, c.block, c.nested)
}

func quantCases() (cases []quantCase) {
	for kind := bindings.NF4; kind <= bindings.Int4; kind++ {
		shapes := [][2]int64{{33, 256}, {37, 768}}
		switch kind {
		case bindings.NF4, bindings.FP4:
			shapes = append(shapes, [2]int64{7, 33}, [2]int64{9, 160}, [2]int64{5, 96})
			for _, shape := range shapes {
				cases = append(cases, quantCase{kind, shape[0], shape[1], 64, true})
			}
		case bindings.Int8Rows:
			shapes = append(shapes, [2]int64{5, 33}, [2]int64{70, 96})
		case bindings.Int4:
			cases = append(cases, quantCase{kind, 9, 96, 48, false}, quantCase{kind, 9, 192, 192, false})
		}
		for _, shape := range shapes {
			cases = append(cases, quantCase{kind, shape[0], shape[1], 64, false})
		}
	}
	return cases
}

func (c quantCase) make(s *Scope) *bindings.Quantised {
	rng := rand.New(rand.NewPCG(3, uint64(c.kind)))
	codes := func(n int64) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	n := c.rows * c.cols
	positive := func(shape ...int64) Tensor { return s.Uniform(shape, 0.01, 0.1, Float, CPU) }
	q := &bindings.Quantised{Kind: c.kind, Rows: c.rows, Cols: c.cols, Block: c.block}
	// The bytes of a block's halves: its scale, and its minimum or -1.
	block := func(weights, bytes int64, scale, minimum int) {
		raw := codes(n / weights * bytes)
		for at := int64(0); at < int64(len(raw)); at += bytes {
			binary.LittleEndian.PutUint16(raw[at+int64(scale):], uint16(0x1800+rng.IntN(0x400))) // about 0.002 to 0.004
			if minimum >= 0 {
				binary.LittleEndian.PutUint16(raw[at+int64(minimum):], uint16(0x1c00+rng.IntN(0x400)))
			}
		}
		q.Block, q.Codes = 0, s.FromRaw(raw, bindings.Uint8, c.rows, int64(len(raw))/c.rows)
	}
	switch c.kind {
	case bindings.NF4, bindings.FP4:
		q.Codes = s.FromRaw(codes((n+1)/2), bindings.Uint8, (n+1)/2)
		scales := (n + c.block - 1) / c.block
		q.Scales = positive(scales)
		if c.nested {
			q.NestedBlock, q.Offset = 256, 0.07
			q.Scales = s.FromRaw(codes(scales), bindings.Uint8, scales)
			q.NestedScales, q.NestedMap = positive((scales+255)/256), s.Uniform([]int64{256}, -0.5, 0.5, Float, CPU)
		}
	case bindings.Int8Rows:
		q.Block, q.Codes, q.Scales = 0, s.FromRaw(codes(n), bindings.Int8, c.rows, c.cols), positive(c.rows)
	case bindings.Int4:
		q.Codes, q.Scales = s.FromRaw(codes(n/2), bindings.Uint8, c.rows, c.cols/2), positive(c.rows, c.cols/c.block)
		q.Zeros = s.To(s.To(s.Uniform([]int64{c.rows, c.cols / c.block}, 0, 16, Float, CPU), bindings.Int), Float)
	case bindings.Q4_0:
		block(32, 18, 0, -1)
	case bindings.Q4_1:
		block(32, 20, 0, 2)
	case bindings.Q5_0:
		block(32, 22, 0, -1)
	case bindings.Q5_1:
		block(32, 24, 0, 2)
	case bindings.Q8_0:
		block(32, 34, 0, -1)
	case bindings.Q4_K:
		block(256, 144, 0, 2)
	case bindings.Q5_K:
		block(256, 176, 0, 2)
	case bindings.Q6_K:
		block(256, 210, 208, -1)
	}
	return q
}

func eachQuantCase(t *testing.T, f func(t *testing.T, s *Scope, q *bindings.Quantised)) {
	for _, c := range quantCases() {
		t.Run(c.String(), func(t *testing.T) {
			bindingstest.Do(t, func(s *Scope) error {
				s.Seed(5)
				q := c.make(s)
				if err := s.CheckQuantised(q); err != nil {
					return err
				}
				f(t, s, q)
				return nil
			})
		})
	}
}

// All ways to make weights give the same bits.
func TestDequantiseWaysAgree(t *testing.T) {
	eachQuantCase(t, func(t *testing.T, s *Scope, q *bindings.Quantised) {
		want := s.DequantiseBy(q, Float, bindings.QuantPortable)
		ids := s.FromInt64s([]int64{3, 0, 3, q.Rows - 1}, 2, 2)
		for way := bindings.QuantComposed; way <= bindings.QuantFastest; way++ {
			for _, d := range []bindings.DType{Float, bindings.BFloat16, bindings.Half} {
				name := fmt.Sprint(d, " by way ", way)
				sameBits(t, name, s.DequantiseBy(q, d, way), s.To(want, d))
				sameBits(t, "rows "+name, s.QuantRowsBy(q, ids, d, way), s.To(s.Embedding(want, ids), d))
			}
		}
	})
}

// On many rows the product is Linear's with the dequantised matrix, and so are the gradients.
func TestQuantLinearIsLinear(t *testing.T) {
	eachQuantCase(t, func(t *testing.T, s *Scope, q *bindings.Quantised) {
		for _, m := range []struct {
			name            string
			x, w            bindings.DType
			autocast, fused bool
			tol             float64 // 0: the same bits
		}{
			{"fp32", Float, Float, false, true, 0}, {"bf16", bindings.BFloat16, bindings.BFloat16, false, true, 0}, {"autocast", Float, bindings.BFloat16, true, true, 0},
			{"composed fp32", Float, Float, false, false, 1e-5}, {"composed bf16", bindings.BFloat16, bindings.BFloat16, false, false, 0.01}, {"composed autocast", Float, bindings.BFloat16, true, false, 0.01},
		} {
			s.Run(func(s *Scope) error {
				defer s.SetFused(s.SetFused(m.fused))
				w, b := s.Dequantise(q, m.w), s.Normal([]int64{q.Rows}, 0, 1, Float, CPU)
				if !m.fused {
					b = s.To(b, m.x)
				}
				x, g := s.To(s.Normal([]int64{2, 13, q.Cols}, 0, 1, Float, CPU), m.x), s.Normal([]int64{2, 13, q.Rows}, 0, 1, Float, CPU)
				served := s.Fuses(x)
				if m.autocast {
					s.Autocast(CPU, bindings.BFloat16, func() { served = s.Fuses(x) })
				}
				if m.fused && !served {
					return nil // what this CPU composes is tested below
				}
				run := func(linear func() Tensor) (y, dx, db Tensor) {
					for _, t := range []Tensor{x, b} {
						s.SetRequiresGrad(t, true)
						s.SetGrad(t, Tensor{})
					}
					if m.autocast {
						s.Autocast(CPU, bindings.BFloat16, func() { y = linear() })
					} else {
						y = linear()
					}
					s.BackwardWith(y, s.To(g, y.DType()))
					return s.Detach(y), s.Clone(s.Grad(x)), s.Clone(s.Grad(b))
				}
				y, dx, db := run(func() Tensor { return s.QuantLinear(x, q, b) })
				y2, dx2, db2 := run(func() Tensor { return s.Linear(x, w, b) })
				if m.tol == 0 {
					sameBits(t, m.name+": result", y, y2)
					sameBits(t, m.name+": gradient of x", dx, dx2)
					sameBits(t, m.name+": gradient of b", db, db2)
					return nil
				}
				for name, pair := range map[string][2]Tensor{"result": {y, y2}, "gradient of x": {dx, dx2}, "gradient of b": {db, db2}} {
					if d := difference(pair[0].Float32s(), pair[1].Float32s()); !(d < m.tol) || pair[0].String() != pair[1].String() {
						t.Errorf("%s: %s %v differs from %v by %.2g", m.name, name, pair[0], pair[1], d)
					}
				}
				return nil
			})
		}
	})
}

// Few rows are exact enough without autograd, and exact with it.
func TestQuantLinearOfFewRows(t *testing.T) {
	eachQuantCase(t, func(t *testing.T, s *Scope, q *bindings.Quantised) {
		w, b := s.Dequantise(q, Float), s.Normal([]int64{q.Rows}, 0, 1, Float, CPU)
		span := int64(32) // that integers are multiplied in; other widths, and CPUs, round weights to bf16
		if q.Kind <= bindings.FP4 {
			span = 64
		}
		tol := 0.003
		if q.Cols%span != 0 || bindings.CPUPath() != "avx512" {
			tol = 0.02
		}
		for m := int64(1); m <= 4; m++ {
			x := s.Normal([]int64{m, q.Cols}, 0, 1, Float, CPU)
			want := s.Linear(s.To(x, bindings.Double), s.To(w, bindings.Double), s.To(b, bindings.Double)).Float32s()
			if d := difference(s.QuantLinear(x, q, b).Float32s(), want); !(d < 1e-4) {
				t.Errorf("%d rows: off by %.2g of their size", m, d)
			}
			low := s.To(x, bindings.BFloat16)
			want = s.Linear(s.To(low, bindings.Double), s.To(w, bindings.Double), Tensor{}).Float32s()
			if y := s.QuantLinear(low, q, Tensor{}); y.DType() != bindings.BFloat16 || !(difference(y.Float32s(), want) < tol) {
				t.Errorf("%d rows of bf16: %v, off by %.2g of their size", m, y, difference(y.Float32s(), want))
			}
			s.SetRequiresGrad(x, true)
			y := s.QuantLinear(x, q, b)
			if d := difference(y.Float32s(), s.Linear(s.Detach(x), w, b).Float32s()); !(d < 1e-6) {
				t.Errorf("%d rows with autograd: off by %.2g of their size", m, d)
			}
			s.BackwardWith(y, s.Full(y.Shape(), 1, Float, CPU))
		}
		x := s.Normal([]int64{2, q.Cols}, 0, 1, Float, CPU)
		s.Fill(s.Narrow(s.Narrow(x, 0, 1, 1), 1, 3, 1), math.Inf(1))
		y := s.QuantLinear(x, q, b).Float32s()
		for i, v := range y {
			if finite := !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0); finite != (i < int(q.Rows)) {
				t.Fatalf("infinity in row 1: element %d is %v", i, v)
			}
		}
	})
}

// What feeds a quantised map trains, and keeps what it has to.
func TestQuantActivatedLinear(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		for _, fused := range []bool{true, false} {
			s.SetFused(fused)
			q := s.Quantise(s.Normal([]int64{48, 128}, 0, 0.1, Float, CPU), bindings.NF4, true)
			w := s.Dequantise(q, Float)
			x, up, g := s.Normal([]int64{9, 128}, 0, 1, Float, CPU), s.Normal([]int64{9, 128}, 0, 1, Float, CPU), s.Normal([]int64{9, 48}, 0, 1, Float, CPU)
			run := func(f func() Tensor) (out []float32) {
				for _, t := range []Tensor{x, up} {
					s.SetRequiresGrad(t, true)
					s.SetGrad(t, Tensor{})
				}
				y := f()
				s.BackwardWith(y, g)
				for _, t := range []Tensor{y, s.Grad(x), s.Grad(up)} {
					if t.Defined() {
						out = append(out, t.Float32s()...)
					}
				}
				return out
			}
			before := x.Float32s()
			for name, pair := range map[string][2]func() Tensor{
				"gelu":   {func() Tensor { return s.QuantGELULinear(x, q, Tensor{}) }, func() Tensor { return s.GELULinear(x, w, Tensor{}) }},
				"swiglu": {func() Tensor { return s.QuantSwiGLULinear(x, up, q, Tensor{}) }, func() Tensor { return s.SwiGLULinear(x, up, w, Tensor{}) }},
			} {
				if d := difference(run(pair[0]), run(pair[1])); !(d < 1e-5) {
					t.Errorf("%s, fused %t: differs by %.2g", name, fused, d)
				}
			}
			if d := difference(x.Float32s(), before); d != 0 {
				t.Errorf("fused %t: the input changed", fused)
			}
		}
		s.SetFused(true)
		return nil
	})
}

func TestQuantLMCrossEntropy(t *testing.T) {
	for _, c := range []quantCase{{bindings.NF4, 70, 128, 64, false}, {bindings.NF4, 70, 33, 64, false}, {bindings.Q8_0, 70, 96, 0, false}} {
		for _, fused := range []bool{true, false} {
			for _, autocast := range []bool{false, true} {
				t.Run(fmt.Sprintf("%v/fused %t/autocast %t", c, fused, autocast), func(t *testing.T) {
					bindingstest.Do(t, func(s *Scope) error {
						defer s.SetFused(s.SetFused(fused))
						s.Seed(1)
						q := c.make(s)
						w, h := s.Dequantise(q, Float), s.Normal([]int64{2, 11, c.cols}, 0, 1, Float, CPU)
						ids := make([]int64, 22)
						for i := range ids {
							ids[i] = int64(i*7) % c.rows
						}
						ids[4] = -100
						targets := s.FromInt64s(ids, 2, 11)
						run := func(f func() Tensor) []float32 {
							s.SetRequiresGrad(h, true)
							s.SetGrad(h, Tensor{})
							var loss Tensor
							if autocast {
								s.Autocast(CPU, bindings.BFloat16, func() { loss = f() })
							} else {
								loss = f()
							}
							s.Backward(loss)
							return append(s.Grad(h).Float32s(), loss.Float32s()...)
						}
						got := run(func() Tensor { return s.QuantLMCrossEntropy(h, q, targets, -100, true, 4*4*c.rows) })
						want := run(func() Tensor { return s.LMCrossEntropy(h, w, targets, -100, true, 4*4*c.rows) })
						if d := difference(got, want); !(d < 1e-5) && !(autocast && d < 1e-2) {
							t.Errorf("differs by %.2g", d)
						}
						return nil
					})
				})
			}
		}
	}
}

func TestCheckQuantisedRefuses(t *testing.T) {
	nan := func(s *Scope, t Tensor, at int64) { s.Fill(s.Narrow(s.Reshape(t, -1), 0, at, 1), math.NaN()) }
	nf4 := quantCase{bindings.NF4, 6, 128, 64, false}
	for name, c := range map[string]struct {
		of    quantCase
		spoil func(s *Scope, q *bindings.Quantised)
		want  string
	}{
		"codes":        {nf4, func(s *Scope, q *bindings.Quantised) { q.Rows++ }, "codes are"},
		"block":        {nf4, func(s *Scope, q *bindings.Quantised) { q.Block = 48 }, "48 weights to a scale"},
		"scales":       {nf4, func(s *Scope, q *bindings.Quantised) { q.Scales = Tensor{} }, "lacks scales"},
		"too much":     {nf4, func(s *Scope, q *bindings.Quantised) { q.Zeros = q.Scales }, "zero points"},
		"a scale":      {nf4, func(s *Scope, q *bindings.Quantised) { nan(s, q.Scales, 7) }, "row 3 "},
		"nested":       {quantCase{bindings.FP4, 6, 128, 64, true}, func(s *Scope, q *bindings.Quantised) { nan(s, q.NestedScales, 0) }, "row 0 "},
		"no nesting":   {quantCase{bindings.Int4, 6, 128, 64, false}, func(s *Scope, q *bindings.Quantised) { q.NestedBlock = 256 }, "nested scale"},
		"int4 scale":   {quantCase{bindings.Int4, 6, 128, 64, false}, func(s *Scope, q *bindings.Quantised) { nan(s, q.Scales, 9) }, "row 4 "},
		"int4 zero":    {quantCase{bindings.Int4, 6, 128, 64, false}, func(s *Scope, q *bindings.Quantised) { nan(s, q.Zeros, 5) }, "row 2 "},
		"int8 scale":   {quantCase{bindings.Int8Rows, 6, 128, 0, false}, func(s *Scope, q *bindings.Quantised) { nan(s, q.Scales, 5) }, "row 5 "},
		"a kind":       {nf4, func(s *Scope, q *bindings.Quantised) { q.Kind = 99 }, "no such kind"},
		"gguf width":   {quantCase{bindings.Q4_K, 6, 256, 0, false}, func(s *Scope, q *bindings.Quantised) { q.Cols = 128 }, "multiple of 256"},
		"placeholder":  {nf4, func(s *Scope, q *bindings.Quantised) { q.Codes = s.Placeholder(q.Codes.Shape(), bindings.Uint8) }, "nowhere"},
		"gguf scale":   {quantCase{bindings.Q8_0, 6, 128, 0, false}, spoilHalf(4*34*2 + 34), "row 2 "},
		"gguf minimum": {quantCase{bindings.Q4_K, 6, 256, 0, false}, spoilHalf(144*5 + 2), "row 5 "},
		"gguf, last":   {quantCase{bindings.Q6_K, 6, 256, 0, false}, spoilHalf(210*4 + 208), "row 4 "},
	} {
		t.Run(name, func(t *testing.T) {
			bindingstest.Do(t, func(s *Scope) error {
				q := c.of.make(s)
				c.spoil(s, q)
				if err := s.CheckQuantised(q); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v, want one with %q", err, c.want)
				}
				return nil
			})
		})
	}
}

// spoilHalf makes the half at a byte of the codes an infinity.
func spoilHalf(at int) func(*Scope, *bindings.Quantised) {
	return func(s *Scope, q *bindings.Quantised) {
		raw := q.Codes.Raw()
		binary.LittleEndian.PutUint16(raw[at:], 0x7c00)
		q.Codes = s.FromRaw(raw, bindings.Uint8, q.Codes.Shape()...)
	}
}

func TestPlaceholder(t *testing.T) {
	bindingstest.Do(t, func(s *Scope) error {
		p := s.Placeholder([]int64{3, 1 << 40}, bindings.BFloat16)
		if p.Bytes() != 0 || p.Device() != bindings.Nowhere || p.Device().IsCUDA() || p.String() != "bf16[3 1099511627776]@nowhere" {
			t.Errorf("%v has %d bytes", p, p.Bytes())
		}
		return nil
	})
	if err := bindings.Do(t.Context(), func(s *Scope) error {
		s.Placeholder([]int64{3, 4}, Float).Float32s()
		return nil
	}); err == nil {
		t.Error("a placeholder was read")
	}
}
