package classic

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLogisticRegressionNeedsTwoClasses(t *testing.T) {
	_, err := FitLogisticRegression(t.Context(), NewMatrix(3, 2), []int{1, 1, 1}, 2, LogisticOptions{})
	if err == nil || !strings.Contains(err.Error(), "all 3 training rows have label 1") {
		t.Errorf("error %v", err)
	}
}

func TestLogisticRegressionWarnsWhenItDoesNotConverge(t *testing.T) {
	x, y := testData(1, 300, 20, 2)
	var log bytes.Buffer
	m, err := FitLogisticRegression(t.Context(), x, y, 2, LogisticOptions{MaxIterations: 3, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if m.Fit.Converged || m.Fit.Iterations != 3 || !strings.Contains(m.Fit.Reason, "iteration limit") {
		t.Errorf("fit %+v", m.Fit)
	}
	if !strings.Contains(log.String(), "did not converge") {
		t.Errorf("log %q", log.String())
	}
}

func TestMinimizeStopsBetweenEvaluations(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	bowl := func(ctx context.Context, x, g []float64) (float64, error) {
		if calls++; calls == 3 {
			cancel()
		}
		g[0], g[1] = 2*x[0], 200*x[1]
		return x[0]*x[0] + 100*x[1]*x[1], ctx.Err()
	}
	o := lbfgsOptions{maxIterations: 100, maxEvaluations: 50, gradient: 1e-12, history: 10}
	if _, err := minimize(ctx, bowl, []float64{3, 4}, o); !errors.Is(err, context.Canceled) || calls != 3 {
		t.Errorf("%d evaluations, error %v", calls, err)
	}
}

func TestMinimizeRefusesAValueThatIsNoNumber(t *testing.T) {
	cliff := func(_ context.Context, x, g []float64) (float64, error) {
		g[0] = -1
		return math.Log(1 - x[0]), nil // NaN from the first step on
	}
	o := lbfgsOptions{maxIterations: 100, maxEvaluations: 50, gradient: 1e-12, history: 10}
	if _, err := minimize(t.Context(), cliff, []float64{0.5}, o); err == nil || !strings.Contains(err.Error(), "the loss became NaN") {
		t.Errorf("error %v", err)
	}
}

func TestLogisticRegressionDoesNotDependOnWorkers(t *testing.T) {
	for _, classes := range []int{2, 4} {
		x, y := testData(9, 900, 33, classes)
		var first *LogisticRegression
		for _, workers := range []int{1, 2, 7} {
			m, err := FitLogisticRegression(t.Context(), x, y, classes, LogisticOptions{Workers: workers})
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = m
			}
			if diff := cmp.Diff(first.weights, m.weights); diff != "" {
				t.Errorf("%d classes, %d workers: other weights", classes, workers)
			}
		}
	}
}

func TestLogisticGradientIsTheSlopeOfTheLoss(t *testing.T) {
	for _, classes := range []int{2, 4} {
		x, y := testData(10, 70, 5, classes)
		m := &LogisticRegression{classes: classes, seen: distinct(y), features: x.Cols}
		m.weights = make([]float64, m.outputs()*(x.Cols+1))
		loss := newLogisticLoss(m, x, y, LogisticOptions{C: 0.3})
		w, g, ignored := make([]float64, len(m.weights)), make([]float64, len(m.weights)), make([]float64, len(m.weights))
		for i := range w {
			w[i] = math.Sin(float64(i))
		}
		if _, err := loss.evaluate(t.Context(), w, g); err != nil {
			t.Fatal(err)
		}
		const h = 1e-6
		for i := range w {
			keep := w[i]
			w[i] = keep + h
			up, _ := loss.evaluate(t.Context(), w, ignored)
			w[i] = keep - h
			down, _ := loss.evaluate(t.Context(), w, ignored)
			w[i] = keep
			if slope := (up - down) / (2 * h); math.Abs(slope-g[i]) > 1e-7 {
				t.Errorf("%d classes: gradient[%d] = %v, slope %v", classes, i, g[i], slope)
			}
		}
	}
}

func TestLogisticRegressionOnExtremeFeatures(t *testing.T) {
	// Separable and huge: probabilities saturate, nothing overflows.
	x := Matrix{4, 1, []float32{-3e18, -2e18, 2e18, 3e18}}
	m, err := FitLogisticRegression(t.Context(), x, []int{0, 0, 1, 1}, 2, LogisticOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Predict(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{0, 0, 1, 1}, got); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func TestDecisionScoresSoftmaxToTheProbabilities(t *testing.T) {
	x, y := testData(5, 300, 8, 5)
	x, y = without(x, y, 0)
	m, err := FitLogisticRegression(t.Context(), x, y, 5, LogisticOptions{})
	if err != nil {
		t.Fatal(err)
	}
	scores, err := m.Decision(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.PredictProba(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	if scores.Row(0)[0] != -math.MaxFloat32 || p.Row(0)[0] != 0 {
		t.Errorf("unseen class: score %v, probability %v", scores.Row(0)[0], p.Row(0)[0])
	}
	for r := range 5 {
		row, sum := append([]float32(nil), scores.Row(r)...), 0.0
		softmax(row)
		for _, v := range p.Row(r) {
			sum += float64(v)
		}
		if diff := cmp.Diff(p.Row(r), row); diff != "" || math.Abs(sum-1) > 1e-6 {
			t.Errorf("row %d sums to %v:\n%s", r, sum, diff)
		}
	}
}
