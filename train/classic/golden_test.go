package classic

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden mirrors testdata/scikit-learn.json, which scripts/goldens/classic.py
// writes.
type golden struct {
	Minima []struct {
		Name        string
		Start, X    []float64
		Iterations  int
		Evaluations int
	}
	Logistic []struct {
		Name                      string
		Seed                      uint64
		Rows, Cols, Classes, Drop int
		C, Tolerance              float64
		Coef                      [][]float64
		Intercept                 []float64
		Iterations                int
		Proba                     [][]float64
		Seen                      []int
	}
	Forest []struct {
		Name                      string
		Seed                      uint64
		Rows, Test, Cols, Classes int
		Accuracies                []float64
		NodesPerTree              float64 `json:"nodes_per_tree"`
	}
}

func readGolden(t *testing.T) golden {
	t.Helper()
	content, err := os.ReadFile("testdata/scikit-learn.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(content, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// testData is the script's data(): integers up to the last division.
func testData(seed uint64, rows, cols, classes int) (Matrix, []int) {
	state := seed
	draw := func() int64 {
		state += 0x9E3779B97F4A7C15
		z := state
		z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
		z = (z ^ (z >> 27)) * 0x94D049BB133111EB
		z ^= z >> 31
		return int64(z&1023+z>>10&1023+z>>20&1023+z>>30&1023) - 2046
	}
	floorDiv := func(a, b int64) int64 { return int64(math.Floor(float64(a) / float64(b))) }
	const factors = 6
	var mix [factors][]int64
	for k := range mix {
		for range cols {
			mix[k] = append(mix[k], floorDiv(draw(), int64(k+1)))
		}
	}
	offset := make([]int64, cols)
	for c := range offset {
		offset[c] = draw()
	}
	x, y := NewMatrix(rows, cols), make([]int, rows)
	for r := range rows {
		var z [factors]int64
		for k := range z {
			z[k] = draw()
		}
		for c := range cols {
			total := 512*draw() + 1024*offset[c]
			for k := range z {
				total += z[k] * mix[k][c]
			}
			x.Row(r)[c] = float32(total) / (1 << 20)
		}
		scores := make([]int64, classes)
		for k := range scores {
			scores[k] = z[k%factors]*2048 + z[k%factors]*z[(k+1)%factors] + draw()*1024
			if scores[k] > scores[y[r]] {
				y[r] = k
			}
		}
		if classes == 2 {
			y[r] = 0
			if scores[1] > 0 {
				y[r] = 1
			}
		}
	}
	return x, y
}

func without(x Matrix, y []int, class int) (Matrix, []int) {
	out, labels := Matrix{Cols: x.Cols}, []int(nil)
	for r, l := range y {
		if l != class {
			out.Data = append(out.Data, x.Row(r)...)
			labels = append(labels, l)
			out.Rows++
		}
	}
	return out, labels
}

func TestMinimizeTakesSciPysPath(t *testing.T) {
	rosenbrock := func(_ context.Context, x, g []float64) (float64, error) {
		f := 0.0
		clear(g)
		for i := range x[1:] {
			a, b := x[i+1]-x[i]*x[i], 1-x[i]
			f += 100*a*a + b*b
			g[i] += -400*a*x[i] - 2*b
			g[i+1] += 200 * a
		}
		return f, nil
	}
	powers := func(_ context.Context, x, g []float64) (float64, error) {
		f := 0.0
		for i, v := range x {
			k, r := float64(i+1), math.Sqrt(math.Abs(v))
			f += k*v*v*v*v + r*r*r
			g[i] = 4*k*v*v*v + math.Copysign(1.5*r, v)
		}
		return f, nil
	}
	for i, want := range readGolden(t).Minima {
		t.Run(want.Name, func(t *testing.T) {
			f, o := rosenbrock, lbfgsOptions{maxIterations: 1000, maxEvaluations: 50, gradient: 1e-8, decrease: 1e-15, history: 10}
			if i == 3 {
				f, o.gradient = powers, 1e-3
			}
			x := append([]float64(nil), want.Start...)
			r, err := minimize(t.Context(), f, x, o)
			if err != nil || !r.converged {
				t.Fatal(r, err)
			}
			// The last iterations are decided by the last bits.
			if math.Abs(float64(r.iterations-want.Iterations)) > 2 || math.Abs(float64(r.evaluations-want.Evaluations)) > 4 {
				t.Errorf("%d iterations, %d evaluations, want %d, %d", r.iterations, r.evaluations, want.Iterations, want.Evaluations)
			}
			for i := range x {
				if math.Abs(x[i]-want.X[i]) > 1e-6 {
					t.Errorf("x[%d] = %v, want %v", i, x[i], want.X[i])
				}
			}
		})
	}
}

func TestLogisticRegressionEqualsScikitLearn(t *testing.T) {
	for _, want := range readGolden(t).Logistic {
		t.Run(want.Name, func(t *testing.T) {
			x, y := testData(want.Seed, want.Rows, want.Cols, want.Classes)
			x, y = without(x, y, want.Drop)
			m, err := FitLogisticRegression(t.Context(), x, y, want.Classes, LogisticOptions{C: want.C, Tolerance: want.Tolerance})
			if err != nil {
				t.Fatal(err)
			}
			if !m.Fit.Converged || math.Abs(float64(m.Fit.Iterations-want.Iterations)) > 2 {
				t.Errorf("fit %+v, want %d iterations", m.Fit, want.Iterations)
			}
			worst := 0.0
			coefficients, intercepts := m.Coefficients()
			if len(coefficients) != len(want.Coef) {
				t.Fatalf("%d outputs, want %d", len(coefficients), len(want.Coef))
			}
			for k, row := range coefficients {
				for c, v := range row {
					worst = max(worst, math.Abs(v-want.Coef[k][c]))
				}
				worst = max(worst, math.Abs(intercepts[k]-want.Intercept[k]))
			}
			if worst > 1e-5 {
				t.Errorf("coefficients differ by %.2g", worst)
			}

			p, err := m.PredictProba(t.Context(), Matrix{Rows: 5, Cols: x.Cols, Data: x.Data[:5*x.Cols]})
			if err != nil {
				t.Fatal(err)
			}
			for r := range want.Proba {
				full := make([]float32, want.Classes)
				for k, c := range want.Seen {
					full[c] = float32(want.Proba[r][k])
				}
				if diff := cmp.Diff(full, p.Row(r), cmp.Comparer(func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-5 })); diff != "" {
					t.Errorf("probabilities of row %d (-want +got):\n%s", r, diff)
				}
			}
		})
	}
}

func TestForestIsAsGoodAsScikitLearns(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, want := range readGolden(t).Forest {
		t.Run(want.Name, func(t *testing.T) {
			x, y := testData(want.Seed, want.Rows+want.Test, want.Cols, want.Classes)
			train := Matrix{Rows: want.Rows, Cols: x.Cols, Data: x.Data[:want.Rows*x.Cols]}
			test := Matrix{Rows: want.Test, Cols: x.Cols, Data: x.Data[want.Rows*x.Cols:]}
			accuracy, nodes := 0.0, 0.0
			const seeds = 5
			for seed := range uint64(seeds) {
				f, err := FitForest(t.Context(), train, y[:want.Rows], want.Classes, ForestOptions{Seed: seed})
				if err != nil {
					t.Fatal(err)
				}
				predicted, err := f.Predict(t.Context(), test)
				if err != nil {
					t.Fatal(err)
				}
				accuracy += share(predicted, y[want.Rows:]) / seeds
				nodes += float64(f.Nodes()) / float64(f.Trees()) / seeds
			}
			wantAccuracy := 0.0
			for _, a := range want.Accuracies {
				wantAccuracy += a / float64(len(want.Accuracies))
			}
			t.Logf("accuracy %.4f, scikit-learn %.4f; nodes per tree %.1f, scikit-learn %.1f", accuracy, wantAccuracy, nodes, want.NodesPerTree)
			if math.Abs(accuracy-wantAccuracy) > 0.01 {
				t.Errorf("accuracy %.4f, scikit-learn has %.4f", accuracy, wantAccuracy)
			}
			if math.Abs(nodes/want.NodesPerTree-1) > 0.02 {
				t.Errorf("%.1f nodes per tree, scikit-learn has %.1f", nodes, want.NodesPerTree)
			}
		})
	}
}

func share(predicted, labels []int) float64 {
	n := 0
	for i, p := range predicted {
		if p == labels[i] {
			n++
		}
	}
	return float64(n) / float64(len(labels))
}
