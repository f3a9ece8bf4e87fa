package report

import (
	"math"
	"testing"

	"gonum.org/v1/plot/plotter"
)

// A line of many points is drawn by few, in their order, among them every stretch's lowest and highest.
func TestThinned(t *testing.T) {
	for _, n := range []int{0, 1, mostPoints, mostPoints + 1, 25 * mostPoints} {
		all := make(plotter.XYs, n)
		for i := range all {
			all[i] = plotter.XY{X: float64(i), Y: math.Sin(float64(i))}
		}
		if n > 0 {
			all[n/3].Y, all[n/2].Y = 5, -5
		}
		few := thinned(all)
		if len(few) > mostPoints || n <= mostPoints && len(few) != n {
			t.Errorf("%d points became %d", n, len(few))
		}
		low, high := 0.0, 0.0
		for i, v := range few {
			if low, high = min(low, v.Y), max(high, v.Y); v != all[int(v.X)] || i > 0 && few[i-1].X >= v.X {
				t.Fatalf("of %d points, number %d is %v", n, i, v)
			}
		}
		if n > 2 && (low != -5 || high != 5) {
			t.Errorf("of %d points the lowest and highest are %v and %v", n, low, high)
		}
	}
}
