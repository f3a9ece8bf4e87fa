package classic

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// gini is the weighted impurity of a split, by definition.
func gini(samples []sample, x Matrix, feature int, threshold float32, classes int) float64 {
	sides := [2][]float64{make([]float64, classes), make([]float64, classes)}
	sums := [2]float64{}
	for _, s := range samples {
		side := 0
		if !(x.Row(int(s.row))[feature] <= threshold) {
			side = 1
		}
		sides[side][s.class] += float64(s.weight)
		sums[side] += float64(s.weight)
	}
	impurity := 0.0
	for side, counts := range sides {
		squares := 0.0
		for _, n := range counts {
			squares += n * n
		}
		impurity += sums[side] - squares/sums[side]
	}
	return impurity
}

// bestGini tries every midpoint of every feature.
func bestGini(samples []sample, x Matrix, classes int) float64 {
	best := math.Inf(1)
	for f := range x.Cols {
		var values []float32
		for _, s := range samples {
			values = append(values, x.Row(int(s.row))[f])
		}
		slices.Sort(values)
		values = slices.Compact(values)
		for _, v := range values[:len(values)-1] {
			best = min(best, gini(samples, x, f, v, classes))
		}
	}
	return best
}

func TestSplitsAreTheBestOnes(t *testing.T) {
	// Sizes on all sides of rowNode, insertionKeys and the histogram's share
	// of the rows; coarse values, so that there are ties.
	for _, classes := range []int{2, 3} {
		for _, size := range []int{2, 5, 30, 100, 200, 1500} {
			r := rand.New(rand.NewPCG(uint64(size), uint64(classes)))
			x, y := NewMatrix(1600, 3), make([]int, 1600)
			for i := range x.Data {
				x.Data[i] = float32(math.Round(r.NormFloat64()*40) / 8)
			}
			for i := range y {
				y[i] = r.IntN(classes)
			}
			ranks, err := rankColumns[uint16](t.Context(), x, 1)
			if err != nil {
				t.Fatal(err)
			}
			g := newGrower(x, ranks, y, classes, ForestOptions{MaxFeatures: 3, MinSamplesSplit: 2})
			g.random = r
			copy(g.features, []int32{0, 1, 2})
			var samples []sample
			total := int64(0)
			for _, row := range r.Perm(1600)[:size] {
				s := sample{uint32(row), uint16(y[row]), uint16(1 + r.IntN(3))}
				samples = append(samples, s)
				g.counts[s.class] += int64(s.weight)
				total += int64(s.weight)
			}
			before := slices.Clone(samples)
			s := g.findSplit(samples, total)
			threshold, left := g.partition(samples, s)
			got, want := gini(before, x, int(s.feature), threshold, classes), bestGini(before, x, classes)
			if math.Abs(got-want) > 1e-9*want {
				t.Errorf("%d classes, %d samples: impurity %v, the best is %v", classes, size, got, want)
			}
			for i, m := range samples {
				if (x.Row(int(m.row))[s.feature] <= threshold) != (i < left) {
					t.Fatalf("%d classes, %d samples: sample %d is on the wrong side", classes, size, i)
				}
			}
			if slices.Max(g.histo) != 0 {
				t.Errorf("%d classes, %d samples: histogram not cleared", classes, size)
			}
		}
	}
}

func TestForestDependsOnTheSeedAlone(t *testing.T) {
	x, y := testData(11, 400, 12, 3)
	grow := func(seed uint64, workers int) []tree {
		f, err := FitForest(t.Context(), x, y, 3, ForestOptions{Trees: 9, Seed: seed, Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		return f.trees
	}
	same := cmp.AllowUnexported(tree{}, node{})
	first := grow(1, 1)
	for _, workers := range []int{2, 5} {
		if diff := cmp.Diff(first, grow(1, workers), same); diff != "" {
			t.Errorf("%d workers grow another forest", workers)
		}
	}
	if cmp.Equal(first, grow(2, 1), same) {
		t.Error("another seed grows the same forest")
	}
	if cmp.Equal(first[0], first[1], same) {
		t.Error("two trees of a forest are the same")
	}
}

func TestForestAgreesAcrossRankWidths(t *testing.T) {
	x, y := testData(12, 700, 9, 2)
	o := ForestOptions{Trees: 3, MaxFeatures: 3, MinSamplesSplit: 2}
	narrow, wide := make([]tree, 3), make([]tree, 3)
	if err := growTrees[uint16](t.Context(), narrow, x, y, 2, o); err != nil {
		t.Fatal(err)
	}
	if err := growTrees[uint32](t.Context(), wide, x, y, 2, o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(narrow, wide, cmp.AllowUnexported(tree{}, node{})); diff != "" {
		t.Error("16- and 32-bit ranks grow different trees")
	}
}

func TestForestOnDegenerateData(t *testing.T) {
	tests := []struct {
		name string
		x    Matrix
		y    []int
		want []float32 // probabilities of the first row, to 0.1
	}{
		{"one class", Matrix{3, 1, []float32{1, 2, 3}}, []int{1, 1, 1}, []float32{0, 1}},
		{"one row", Matrix{1, 1, []float32{1}}, []int{0}, []float32{1, 0}},
		{"constant features", NewMatrix(200, 2), slices.Repeat([]int{0, 0, 0, 1}, 50), []float32{0.75, 0.25}},
		{"zeros of both signs", Matrix{200, 1, slices.Repeat([]float32{0, float32(math.Copysign(0, -1))}, 100)},
			slices.Repeat([]int{0, 1}, 100), []float32{0.5, 0.5}},
		{"neighbouring floats", Matrix{60, 1, slices.Repeat([]float32{1, math.Nextafter32(1, 2)}, 30)},
			slices.Repeat([]int{0, 1}, 30), []float32{1, 0}},
		{"extremes", Matrix{60, 1, slices.Repeat([]float32{-math.MaxFloat32, math.MaxFloat32}, 30)},
			slices.Repeat([]int{0, 1}, 30), []float32{1, 0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, err := FitForest(t.Context(), test.x, test.y, 2, ForestOptions{Trees: 200})
			if err != nil {
				t.Fatal(err)
			}
			p, err := f.PredictProba(t.Context(), test.x)
			if err != nil {
				t.Fatal(err)
			}
			for c, want := range test.want {
				if math.Abs(float64(p.Row(0)[c]-want)) > 0.1 {
					t.Errorf("probabilities %v, want about %v", p.Row(0), test.want)
				}
			}
		})
	}
}

func TestForestLimits(t *testing.T) {
	x, y := testData(13, 300, 6, 2)
	stump, err := FitForest(t.Context(), x, y, 2, ForestOptions{Trees: 4, MaxDepth: 1})
	if err != nil {
		t.Fatal(err)
	}
	if n := stump.Nodes(); n != 4*3 {
		t.Errorf("depth 1: %d nodes in 4 trees, want 12", n)
	}
	whole, err := FitForest(t.Context(), x, y, 2, ForestOptions{Trees: 4, MinSamplesSplit: 301})
	if err != nil {
		t.Fatal(err)
	}
	if n := whole.Nodes(); n != 4 {
		t.Errorf("no node large enough to split: %d nodes in 4 trees, want 4", n)
	}
	if _, err := FitForest(t.Context(), x, y, 2, ForestOptions{Trees: -1}); err == nil || !strings.Contains(err.Error(), "-1 trees") {
		t.Errorf("error %v", err)
	}
}

func TestForestReportsProgress(t *testing.T) {
	x, y := testData(13, 50, 3, 2)
	var seen []int
	_, err := FitForest(t.Context(), x, y, 2, ForestOptions{Trees: 6, Progress: func(done, total int) { seen = append(seen, done) }})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1, 2, 3, 4, 5, 6}, seen); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
}

func TestRanksOrderAsTheValuesDo(t *testing.T) {
	x := Matrix{6, 1, []float32{0, -1e-40, 3, float32(math.Copysign(0, -1)), -math.MaxFloat32, 3}}
	table, err := rankColumns[uint16](t.Context(), x, 1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint16{2, 1, 3, 2, 0, 3}, table.column(0)); diff != "" {
		t.Errorf("ranks (-want +got):\n%s", diff)
	}
}

func TestSorts(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{1, 2, 33, 500} {
		keys := make([]uint64, n)
		for i := range keys {
			keys[i] = uint64(r.IntN(50000))<<32 | uint64(i)
		}
		want := slices.Sorted(slices.Values(keys))
		inserted := slices.Clone(keys)
		insertionSort(inserted)
		if !slices.Equal(want, inserted) {
			t.Errorf("insertion sort of %d keys failed", n)
		}
		if got := radixSort(keys, make([]uint64, n), 32, 16); !slices.Equal(want, got) {
			t.Errorf("radix sort of %d keys failed", n)
		}
	}
}

func BenchmarkFitForest(b *testing.B) {
	x, y := testData(14, 2000, 64, 2)
	for b.Loop() {
		if _, err := FitForest(b.Context(), x, y, 2, ForestOptions{Trees: 10}); err != nil {
			b.Fatal(err)
		}
	}
}
