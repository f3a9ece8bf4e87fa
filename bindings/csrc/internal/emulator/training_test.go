package emulator

import (
	"fmt"
	"math"
	"testing"
)

// Rows and widths: one element, less than a pack, packs and a tail, whole packs, more than a block's threads have at once.
var normShapes = [][2]int{{1, 1}, {3, 7}, {2, 70}, {5, 64}, {37, 96}, {2, 2304}, {1, 4099}}

func TestRMSNorm(t *testing.T) {
	const eps = 1e-5
	for _, shape := range normShapes {
		rows, d := shape[0], shape[1]
		t.Run(fmt.Sprint(shape), func(t *testing.T) {
			everywhere(t, func(b *bench) {
				x, xv := b.random(rows*d, 0.1, 1)
				w, wv := b.random(d, 1, 0.2)
				g, gv := b.random(rows*d, 0, 1)
				y, dx, rstd := b.empty(rows*d), b.empty(rows*d), b.floats(make([]float32, rows))
				parts := b.floats(make([]float32, WeightParts(rows)*d))
				b.run(b.RMSNorm(x, w, y, rstd, rows, d, eps))
				b.run(b.RMSNormBackward(g, x, w, rstd, dx, rows, d))
				b.run(b.RMSNormWeight(g, x, rstd, parts, rows, d))

				wantY, wantDX, wantDW := make([]float64, rows*d), make([]float64, rows*d), make([]float64, d)
				for r := range rows {
					sum := 0.0
					for _, v := range xv[r*d : (r+1)*d] {
						sum += v * v
					}
					inv, dot := 1/math.Sqrt(sum/float64(d)+eps), 0.0
					if got := float32s(rstd)[r]; math.Abs(got/inv-1) > 1e-6 {
						t.Fatalf("row %d is multiplied by %v, want %v", r, got, inv)
					}
					for i := range d {
						at := r*d + i
						wantY[at] = b.round(b.round(xv[at]*inv) * wv[i])
						dot += gv[at] * wv[i] * xv[at] * inv
						wantDW[i] += gv[at] * xv[at] * inv
					}
					for i := range d {
						at := r*d + i
						wantDX[at] = (gv[at]*wv[i] - xv[at]*inv*dot/float64(d)) * inv
					}
				}
				b.near("y", b.values(y), wantY, 2, 1e-6)
				b.mostly("y", b.values(y), wantY)
				b.near("dx", b.values(dx), wantDX, 1, 4e-6)
				dw := make([]float64, d)
				for i, v := range float32s(parts) {
					dw[i%d] += v
				}
				for i := range dw {
					if math.Abs(dw[i]-wantDW[i]) > 1e-5*float64(rows) {
						t.Fatalf("the weight's gradient at %d is %v, want %v", i, dw[i], wantDW[i])
					}
				}

				again := b.empty(rows * d)
				b.run(b.RMSNorm(x, w, again, nil, rows, d, eps))
				b.near("y without rstd", b.values(again), b.values(y), 0, 0)
			})
		})
	}
}

func TestManyRowsOfAWeightsGradient(t *testing.T) {
	const rows, d = 5000, 3 // more than parts times the least rows of a part
	everywhere(t, func(b *bench) {
		ones := make([]float32, rows)
		for i := range ones {
			ones[i] = 1
		}
		g, gv := b.random(rows*d, 0, 1)
		x, xv := b.random(rows*d, 0, 1)
		parts := b.floats(make([]float32, WeightParts(rows)*d))
		b.run(b.RMSNormWeight(g, x, b.floats(ones), parts, rows, d))
		var got, want [d]float64
		for i, v := range float32s(parts) {
			got[i%d] += v
		}
		for i := range gv {
			want[i%d] += gv[i] * xv[i]
		}
		for i := range got {
			if math.Abs(got[i]-want[i]) > 1e-3 {
				t.Fatalf("sum %d is %v, want %v", i, got[i], want[i])
			}
		}
	})
}

func TestSwiGLU(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 77, 1024, 3001} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			everywhere(t, func(b *bench) {
				gate, av := b.random(n, 0, 3)
				up, uv := b.random(n, 0, 1)
				g, gv := b.random(n, 0, 1)
				y, dgate, dup := b.empty(n), b.empty(n), b.empty(n)
				b.run(b.SwiGLU(gate, up, y, n))
				b.run(b.SwiGLUBackward(g, gate, up, dgate, dup, n))
				wantY, wantA, wantU := make([]float64, n), make([]float64, n), make([]float64, n)
				for i, a := range av {
					s := 1 / (1 + math.Exp(-a))
					wantY[i] = a * s * uv[i]
					wantU[i] = gv[i] * a * s
					wantA[i] = gv[i] * uv[i] * (s + a*s*(1-s))
				}
				b.near("y", b.values(y), wantY, 1, 3e-6)
				b.near("gate's gradient", b.values(dgate), wantA, 1, 3e-6)
				b.near("up's gradient", b.values(dup), wantU, 1, 3e-6)

				first := b.values(y)
				b.run(b.SwiGLU(gate, up, gate, n))
				b.near("y over gate", b.values(gate), first, 0, 0)
			})
		})
	}
}

func TestSwiGLUOfLargeValues(t *testing.T) {
	everywhere(t, func(b *bench) {
		gate, up, y := b.empty(3), b.empty(3), b.empty(3)
		for i, v := range []float64{-1000, 1000, 0} {
			b.put(gate, i, v)
			b.put(up, i, 1)
		}
		b.run(b.SwiGLU(gate, up, y, 3))
		b.near("y", b.values(y), []float64{0, 1000, 0}, 0, 0)
	})
}

func TestAddLowRank(t *testing.T) {
	for _, shape := range [][3]int{{1, 1, 1}, {3, 7, 2}, {65, 129, 16}, {64, 128, 8}, {70, 200, 19}, {130, 72, 33}} {
		rows, cols, rank := shape[0], shape[1], shape[2]
		t.Run(fmt.Sprint(shape), func(t *testing.T) {
			everywhere(t, func(b *bench) {
				factor := func(n int) (*Memory, []float64) {
					v, wide := make([]float32, n), make([]float64, n)
					for i := range v {
						v[i] = float32(b.rand.NormFloat64())
						wide[i] = float64(v[i])
					}
					return b.floats(v), wide
				}
				y, yv := b.random(rows*cols, 0, 1)
				h, hv := factor(rows * rank)
				up, uv := factor(cols * rank)
				out, want := b.empty(rows*cols), make([]float64, rows*cols)
				for i := range want {
					for j := range rank {
						want[i] += hv[i/cols*rank+j] * uv[i%cols*rank+j]
					}
					want[i] = yv[i] + 0.3*want[i]
				}
				b.run(b.AddLowRank(y, h, up, out, rows, cols, rank, 0.3))
				b.near("sum", b.values(out), want, 1, 1e-5)
				b.run(b.AddLowRank(y, h, up, y, rows, cols, rank, 0.3))
				b.near("sum over y", b.values(y), b.values(out), 0, 0)
			})
		})
	}
}

func TestRotate(t *testing.T) {
	for name, r := range map[string]Rotation{
		"one pair":        {Batch: 1, Positions: 1, Half: 1, Heads: 1},
		"odd":             {Batch: 2, Positions: 3, Half: 5, Heads: 3, KeyHeads: 1},
		"whole packs":     {Batch: 2, Positions: 3, Half: 16, Heads: 4, KeyHeads: 2, HeadsFirst: true},
		"shared angles":   {Batch: 3, Positions: 2, Half: 32, Heads: 4, KeyHeads: 4, SharedAngles: true},
		"more than fit":   {Batch: 1, Positions: 2, Half: 64, Heads: 40, KeyHeads: 8},
		"more keys":       {Batch: 1, Positions: 2, Half: 12, Heads: 1, KeyHeads: 9},
		"packs and tails": {Batch: 1, Positions: 5, Half: 12, Heads: 2},
	} {
		t.Run(name, func(t *testing.T) {
			everywhere(t, func(b *bench) {
				size := 2 * r.Half
				rows := r.Batch * r.Positions
				angles := rows * size
				if r.SharedAngles {
					angles = r.Positions * size
				}
				cos, cv := b.random(angles, 0, 1)
				sin, sv := b.random(angles, 0, 1)
				x, xv := b.random(rows*r.Heads*size, 0, 1)
				k, kv := b.random(rows*r.KeyHeads*size, 0, 1)
				for _, transposed := range []bool{false, true} {
					y, kTo := b.empty(len(xv)), b.empty(len(kv))
					b.run(b.Rotate(r, x, y, k, kTo, cos, sin, transposed))
					b.near("x", b.values(y), r.turned(xv, r.Heads, cv, sv, transposed), 1, 1e-6)
					b.near("k", b.values(kTo), r.turned(kv, r.KeyHeads, cv, sv, transposed), 1, 1e-6)
				}
			})
		})
	}
}

// turned is what Rotate is to give: x [batch, positions, heads, size] or heads first comes out the other way around.
func (r Rotation) turned(x []float64, heads int, cos, sin []float64, transposed bool) []float64 {
	size, out := 2*r.Half, make([]float64, len(x))
	for at := range x {
		i, rest := at%size, at/size
		var b, s, h int
		if r.HeadsFirst {
			b, h, s = rest/r.Positions/heads, rest/r.Positions%heads, rest%r.Positions
		} else {
			b, s, h = rest/heads/r.Positions, rest/heads%r.Positions, rest%heads
		}
		to := ((b*heads+h)*r.Positions + s) * size
		if r.HeadsFirst {
			to = ((b*r.Positions+s)*heads + h) * size
		}
		angle := s * size
		if !r.SharedAngles {
			angle += b * r.Positions * size
		}
		other, sign := (i+r.Half)%size, 1.0 // x·cos + rotate_half(x)·sin
		if i < r.Half {
			sign = -1
		}
		if transposed { // the entry of the rotation's matrix from the other side
			out[to+i] = x[at]*cos[angle+i] - sign*x[at-i+other]*sin[angle+other]
		} else {
			out[to+i] = x[at]*cos[angle+i] + sign*x[at-i+other]*sin[angle+i]
		}
	}
	return out
}
