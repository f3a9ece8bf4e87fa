package classic

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
)

// fits runs a check against both trainers.
func fits(t *testing.T, check func(t *testing.T, fit func(context.Context, Matrix, []int, int) (Classifier, error))) {
	t.Run("logreg", func(t *testing.T) {
		check(t, func(ctx context.Context, x Matrix, y []int, classes int) (Classifier, error) {
			return FitLogisticRegression(ctx, x, y, classes, LogisticOptions{})
		})
	})
	t.Run("forest", func(t *testing.T) {
		check(t, func(ctx context.Context, x Matrix, y []int, classes int) (Classifier, error) {
			return FitForest(ctx, x, y, classes, ForestOptions{Trees: 5})
		})
	})
}

func TestBadTrainingDataIsNamed(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	tests := []struct {
		name    string
		x       Matrix
		y       []int
		classes int
		want    string
	}{
		{"no rows", Matrix{Cols: 2}, nil, 2, "no training rows"},
		{"no columns", Matrix{Rows: 2}, []int{0, 1}, 2, "2 × 0"},
		{"data too short", Matrix{2, 2, make([]float32, 3)}, []int{0, 1}, 2, "hold 3 values"},
		{"data too long", Matrix{2, 2, make([]float32, 6)}, []int{0, 1}, 2, "hold 6 values"},
		{"too few labels", NewMatrix(2, 2), []int{0}, 2, "1 labels for 2 rows"},
		{"label too high", NewMatrix(2, 2), []int{0, 2}, 2, "label 2 in row 1"},
		{"label negative", NewMatrix(2, 2), []int{-1, 0}, 2, "label -1 in row 0"},
		{"no classes", NewMatrix(2, 2), []int{0, 0}, 0, "0 classes"},
		{"too many classes", NewMatrix(2, 2), []int{0, 0}, 1 << 20, "1048576 classes"},
		{"NaN", Matrix{2, 2, []float32{0, 1, nan, 2}}, []int{0, 1}, 2, "row 1, column 0 is NaN"},
		{"infinite", Matrix{2, 2, []float32{0, 1, 2, inf}}, []int{0, 1}, 2, "row 1, column 1 is +Inf"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fits(t, func(t *testing.T, fit func(context.Context, Matrix, []int, int) (Classifier, error)) {
				_, err := fit(t.Context(), test.x, test.y, test.classes)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want one with %q", err, test.want)
				}
			})
		})
	}
}

func TestBadFeaturesToPredictAreNamed(t *testing.T) {
	x, y := testData(8, 60, 3, 2)
	fits(t, func(t *testing.T, fit func(context.Context, Matrix, []int, int) (Classifier, error)) {
		m, err := fit(t.Context(), x, y, 2)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Predict(t.Context(), NewMatrix(2, 4)); err == nil || !strings.Contains(err.Error(), "4 columns, the classifier was trained on 3") {
			t.Errorf("wrong width: error %v", err)
		}
		bad := NewMatrix(1, 3)
		bad.Data[2] = float32(math.NaN())
		if _, err := m.PredictProba(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "row 0, column 2") {
			t.Errorf("NaN: error %v", err)
		}
		if got, err := m.Predict(t.Context(), Matrix{}); err != nil || len(got) != 0 {
			t.Errorf("no rows: %v, %v", got, err)
		}
	})
}

func TestFittingAndPredictingStopWithTheContext(t *testing.T) {
	x, y := testData(8, 60, 3, 2)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	fits(t, func(t *testing.T, fit func(context.Context, Matrix, []int, int) (Classifier, error)) {
		if _, err := fit(done, x, y, 2); !errors.Is(err, context.Canceled) {
			t.Errorf("fit: error %v", err)
		}
		m, err := fit(t.Context(), x, y, 2)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Predict(done, x); !errors.Is(err, context.Canceled) {
			t.Errorf("predict: error %v", err)
		}
	})
}

func TestForEachReturnsTheFirstTasksError(t *testing.T) {
	early, late := errors.New("early"), errors.New("late")
	for _, workers := range []int{1, 4} {
		started := make(chan struct{})
		err := forEach(t.Context(), workers, 2, func(_, i int) error {
			if i == 1 {
				close(started)
				return late
			}
			if workers > 1 {
				<-started // the later task fails first
			}
			return early
		})
		if !errors.Is(err, early) {
			t.Errorf("%d workers: error %v", workers, err)
		}
	}
}
