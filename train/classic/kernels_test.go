package classic

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestKernelsEqualTheGenericLoops(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 3, 15, 16, 17, 31, 32, 100, 768} {
		x, w, y, want := make([]float32, n), make([]float64, n), make([]float64, n), make([]float64, n)
		for i := range x {
			x[i], w[i], y[i] = float32(r.NormFloat64()), r.NormFloat64(), r.NormFloat64()
			want[i] = y[i]
		}
		if got, want := dot(x, w), dotGeneric(x, w); math.Abs(got-want) > 1e-12*float64(n+1) {
			t.Errorf("%d elements: dot %v, generic %v", n, got, want)
		}
		axpy(0.7, x, y)
		axpyGeneric(0.7, x, want)
		for i := range y {
			if math.Abs(y[i]-want[i]) > 1e-14 {
				t.Errorf("%d elements: axpy[%d] %v, generic %v", n, i, y[i], want[i])
			}
		}
	}
}

func BenchmarkDot768(b *testing.B) {
	x, w := make([]float32, 768), make([]float64, 768)
	b.SetBytes(4 * 768)
	for b.Loop() {
		dot(x, w)
	}
}
