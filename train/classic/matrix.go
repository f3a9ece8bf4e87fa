package classic

import (
	"context"
	"fmt"
	"math"
	"slices"
)

// Matrix holds one sample per row: the value of sample r, feature c is
// Data[r*Cols+c].
type Matrix struct {
	Rows, Cols int
	Data       []float32
}

// NewMatrix returns a zero matrix.
func NewMatrix(rows, cols int) Matrix {
	return Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}
}

// Row returns row r without copying it.
func (m Matrix) Row(r int) []float32 {
	return m.Data[r*m.Cols : (r+1)*m.Cols : (r+1)*m.Cols]
}

// checkShape reports a Data slice that does not fit Rows and Cols.
func (m Matrix) checkShape() error {
	if m.Rows < 0 || m.Cols <= 0 {
		return fmt.Errorf("features are %d × %d", m.Rows, m.Cols)
	}
	if len(m.Data)/m.Cols != m.Rows || len(m.Data)%m.Cols != 0 {
		return fmt.Errorf("features hold %d values, %d × %d needs another number", len(m.Data), m.Rows, m.Cols)
	}
	return nil
}

// checkFinite names the first value, in row order, that is NaN or infinite.
func (m Matrix) checkFinite(ctx context.Context, workers int) error {
	const block = 256
	return forEachBlock(ctx, workers, m.Rows, block, func(_, from, to int) error {
		for i, v := range m.Data[from*m.Cols : to*m.Cols] {
			const exponent = 0x7f800000
			if math.Float32bits(v)&exponent == exponent {
				return fmt.Errorf("features: row %d, column %d is %v", from+i/m.Cols, i%m.Cols, v)
			}
		}
		return nil
	})
}

// checkTraining checks what both classifiers ask of their training data.
func checkTraining(ctx context.Context, x Matrix, labels []int, classes, workers int) error {
	if err := x.checkShape(); err != nil {
		return err
	}
	if x.Rows == 0 {
		return fmt.Errorf("no training rows")
	}
	if len(labels) != x.Rows {
		return fmt.Errorf("%d labels for %d rows of features", len(labels), x.Rows)
	}
	if classes < 1 || classes > maxClasses {
		return fmt.Errorf("%d classes, want 1 to %d", classes, maxClasses)
	}
	for i, l := range labels {
		if l < 0 || l >= classes {
			return fmt.Errorf("label %d in row %d, want 0 to %d", l, i, classes-1)
		}
	}
	return x.checkFinite(ctx, workers)
}

// checkPrediction checks features given to a fitted model.
func checkPrediction(ctx context.Context, x Matrix, cols, workers int) error {
	if x.Rows == 0 {
		return nil
	}
	if err := x.checkShape(); err != nil {
		return err
	}
	if x.Cols != cols {
		return fmt.Errorf("features have %d columns, the classifier was trained on %d", x.Cols, cols)
	}
	return x.checkFinite(ctx, workers)
}

// distinct returns the labels that occur, ascending.
func distinct(labels []int) []int {
	out := slices.Clone(labels)
	slices.Sort(out)
	return slices.Compact(out)
}

// argmaxRows returns the column of each row's largest value, the first of
// equals.
func argmaxRows(m Matrix) []int {
	out := make([]int, m.Rows)
	for r := range out {
		row := m.Row(r)
		for c, v := range row {
			if v > row[out[r]] {
				out[r] = c
			}
		}
	}
	return out
}
