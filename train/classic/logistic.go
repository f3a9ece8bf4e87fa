package classic

import (
	"context"
	"fmt"
	"log/slog"
	"math"

	"gonum.org/v1/gonum/floats"
)

// LogisticOptions adjust FitLogisticRegression; the zero value is
// scikit-learn's LogisticRegression(max_iter=1000).
type LogisticOptions struct {
	C             float64 // inverse strength of the L2 penalty; 0 means 1
	MaxIterations int     // of L-BFGS; 0 means 1000
	Tolerance     float64 // largest gradient component of the mean loss to stop at; 0 means 1e-4
	Workers       int     // threads; 0 means all cores
	Logger        *slog.Logger
}

// LogisticFit tells how the optimisation ended.
type LogisticFit struct {
	Iterations  int
	Evaluations int     // of loss and gradient
	Loss        float64 // mean cross-entropy plus penalty, nats
	GradientMax float64 // largest absolute component
	Converged   bool
	Reason      string
}

// LogisticRegression is a fitted linear classifier with softmax outputs, or
// with a single sigmoid when the training data had two classes.
type LogisticRegression struct {
	// Fit describes the training run; it is not saved.
	Fit LogisticFit

	classes  int       // size of the label space
	seen     []int     // labels that training data had, ascending
	features int       // columns
	weights  []float64 // outputs × (features + 1), the intercept last in a row
}

// FitLogisticRegression minimises
//
//	mean cross-entropy + |coefficients|² / (2·C·rows)
//
// over coefficients and an unpenalised intercept. labels are in [0, classes);
// a class without a training row gets probability 0 ever after, and with fewer
// than two classes in the data there is nothing to fit: an error. Running into
// the iteration limit is no error: the model is returned, a warning logged and
// Fit.Converged false.
func FitLogisticRegression(ctx context.Context, x Matrix, labels []int, classes int, o LogisticOptions) (*LogisticRegression, error) {
	m, err := fitLogistic(ctx, x, labels, classes, o)
	if err != nil {
		return nil, fmt.Errorf("logistic regression: %w", err)
	}
	return m, nil
}

func fitLogistic(ctx context.Context, x Matrix, labels []int, classes int, o LogisticOptions) (*LogisticRegression, error) {
	if o.C == 0 {
		o.C = 1
	}
	if o.MaxIterations == 0 {
		o.MaxIterations = 1000
	}
	if o.Tolerance == 0 {
		o.Tolerance = 1e-4
	}
	if !(o.C > 0) || o.MaxIterations < 0 || !(o.Tolerance > 0) {
		return nil, fmt.Errorf("with C %v, %d iterations, tolerance %v: all must be positive", o.C, o.MaxIterations, o.Tolerance)
	}
	if err := checkTraining(ctx, x, labels, classes, o.Workers); err != nil {
		return nil, err
	}
	seen := distinct(labels)
	if len(seen) < 2 {
		return nil, fmt.Errorf("all %d training rows have label %d: two classes are needed", x.Rows, seen[0])
	}

	m := &LogisticRegression{classes: classes, seen: seen, features: x.Cols}
	m.weights = make([]float64, m.outputs()*(x.Cols+1))
	loss := newLogisticLoss(m, x, labels, o)
	r, err := minimize(ctx, loss.evaluate, m.weights, lbfgsOptions{
		maxIterations:  o.MaxIterations,
		maxEvaluations: 50,
		gradient:       o.Tolerance,
		decrease:       64 * 0x1p-52,
		history:        10,
	})
	if err != nil {
		return nil, err
	}
	m.Fit = LogisticFit{
		Iterations: r.iterations, Evaluations: r.evaluations, Loss: r.value,
		GradientMax: r.gradientMax, Converged: r.converged, Reason: r.reason,
	}
	if !r.converged && o.Logger != nil {
		o.Logger.Warn("logistic regression did not converge: scale the features or allow more iterations",
			"reason", r.reason, "iterations", r.iterations, "gradient", r.gradientMax, "tolerance", o.Tolerance)
	}
	return m, nil
}

// outputs is the number of linear functions: one is enough for two classes.
func (m *LogisticRegression) outputs() int {
	if len(m.seen) == 2 {
		return 1
	}
	return len(m.seen)
}

// logisticLoss evaluates the objective over fixed chunks of rows. Chunks, not
// workers, own the partial sums, so the result does not depend on how many
// workers there are.
type logisticLoss struct {
	m       *LogisticRegression
	x       Matrix
	target  []int32 // index into seen
	penalty float64
	workers int

	chunkRows int
	loss      []float64   // per chunk
	gradient  [][]float64 // per chunk, outputs × (features + 1)
	scores    [][]float64 // per chunk, outputs
}

func newLogisticLoss(m *LogisticRegression, x Matrix, labels []int, o LogisticOptions) *logisticLoss {
	l := &logisticLoss{
		m: m, x: x, workers: o.Workers,
		penalty: 1 / (o.C * float64(x.Rows)),
		target:  make([]int32, len(labels)),
	}
	index := make([]int32, m.classes)
	for i, c := range m.seen {
		index[c] = int32(i)
	}
	for i, c := range labels {
		l.target[i] = index[c]
	}
	// Enough chunks to keep many cores busy, as long as they are worth a
	// thread's while and their gradients stay small beside the data.
	const minRows, maxChunks, maxGradientBytes = 64, 64, 64 << 20
	chunks := min(maxChunks, (x.Rows+minRows-1)/minRows, max(1, maxGradientBytes/(8*len(m.weights))))
	l.chunkRows = (x.Rows + chunks - 1) / chunks
	chunks = (x.Rows + l.chunkRows - 1) / l.chunkRows
	l.loss = make([]float64, chunks)
	for range chunks {
		l.gradient = append(l.gradient, make([]float64, len(m.weights)))
		l.scores = append(l.scores, make([]float64, m.outputs()))
	}
	return l
}

// evaluate is the objective given to the minimiser.
func (l *logisticLoss) evaluate(ctx context.Context, weights, gradient []float64) (float64, error) {
	chunk := l.chunk
	if l.m.outputs() == 1 {
		chunk = l.binaryChunk
	}
	err := forEach(ctx, l.workers, len(l.loss), func(_, c int) error {
		clear(l.gradient[c])
		from := c * l.chunkRows
		l.loss[c] = chunk(c, from, min(l.x.Rows, from+l.chunkRows), weights)
		return nil
	})
	if err != nil {
		return 0, err
	}

	total, rows := 0.0, float64(l.x.Rows)
	clear(gradient)
	for c, part := range l.gradient {
		total += l.loss[c]
		floats.Add(gradient, part)
	}
	squares := 0.0
	stride := l.m.features + 1
	for i, w := range weights {
		gradient[i] /= rows
		if i%stride != l.m.features {
			gradient[i] += l.penalty * w
			squares += w * w
		}
	}
	return total/rows + 0.5*l.penalty*squares, nil
}

// binaryChunk sums loss and gradient of the sigmoid form over rows [from, to).
// A row is used for both while it is in the cache: the data passes once.
func (l *logisticLoss) binaryChunk(c, from, to int, weights []float64) float64 {
	d := l.m.features
	gradient := l.gradient[c]
	loss := 0.0
	for r := from; r < to; r++ {
		row := l.x.Row(r)
		z := dot(row, weights) + weights[d]
		e := math.Exp(-math.Abs(z))
		loss += math.Log1p(e) // log(1+exp(z)) = max(z,0) + log1p(exp(-|z|))
		p := 1 / (1 + e)
		if z < 0 {
			p = e / (1 + e)
		} else {
			loss += z
		}
		if l.target[r] == 1 {
			loss -= z
			p -= 1
		}
		axpy(p, row, gradient)
		gradient[d] += p
	}
	return loss
}

// chunk is binaryChunk for the softmax form.
func (l *logisticLoss) chunk(c, from, to int, weights []float64) float64 {
	d := l.m.features
	gradient, scores := l.gradient[c], l.scores[c]
	loss := 0.0
	for r := from; r < to; r++ {
		row := l.x.Row(r)
		target := int(l.target[r])
		highest := math.Inf(-1)
		for k := range scores {
			w := weights[k*(d+1) : (k+1)*(d+1)]
			scores[k] = dot(row, w) + w[d]
			highest = max(highest, scores[k])
		}
		loss += highest - scores[target]
		sum := 0.0
		for k, s := range scores {
			scores[k] = math.Exp(s - highest)
			sum += scores[k]
		}
		loss += math.Log(sum)
		for k, e := range scores {
			p := e / sum
			if k == target {
				p -= 1
			}
			g := gradient[k*(d+1) : (k+1)*(d+1)]
			axpy(p, row, g)
			g[d] += p
		}
	}
	return loss
}

// Kind returns "logreg".
func (m *LogisticRegression) Kind() string { return KindLogistic }

// Close has nothing to free.
func (m *LogisticRegression) Close() error { return nil }

// Features returns the number of columns the model takes.
func (m *LogisticRegression) Features() int { return m.features }

// Classes returns the size of the label space.
func (m *LogisticRegression) Classes() int { return m.classes }

// Coefficients returns copies of the coefficients, one row per linear output,
// and of the intercepts. Outputs are the classes seen in training, ascending;
// with two of them there is one output, that of the higher label.
func (m *LogisticRegression) Coefficients() (coefficients [][]float64, intercepts []float64) {
	for k := range m.outputs() {
		row := m.weights[k*(m.features+1) : (k+1)*(m.features+1)]
		coefficients = append(coefficients, append([]float64(nil), row[:m.features]...))
		intercepts = append(intercepts, row[m.features])
	}
	return coefficients, intercepts
}

// Decision returns rows × classes scores whose softmax is PredictProba. In the
// form for two classes the lower label's score is 0. A class that training
// data did not have scores the lowest finite float32.
func (m *LogisticRegression) Decision(ctx context.Context, x Matrix) (Matrix, error) {
	if err := checkPrediction(ctx, x, m.features, 0); err != nil {
		return Matrix{}, fmt.Errorf("logistic regression: %w", err)
	}
	out := NewMatrix(x.Rows, m.classes)
	const block = 64
	err := forEachBlock(ctx, 0, x.Rows, block, func(_, from, to int) error {
		for r := from; r < to; r++ {
			row, scores := x.Row(r), out.Row(r)
			for c := range scores {
				scores[c] = -math.MaxFloat32
			}
			first := 0
			if m.outputs() == 1 {
				scores[m.seen[0]] = 0
				first = 1
			}
			for k, c := range m.seen[first:] {
				w := m.weights[k*(m.features+1) : (k+1)*(m.features+1)]
				scores[c] = float32(dot(row, w) + w[m.features])
			}
		}
		return nil
	})
	return out, err
}

// PredictProba returns rows × classes probabilities.
func (m *LogisticRegression) PredictProba(ctx context.Context, x Matrix) (Matrix, error) {
	out, err := m.Decision(ctx, x)
	if err != nil {
		return Matrix{}, err
	}
	for r := range out.Rows {
		softmax(out.Row(r))
	}
	return out, nil
}

// Predict returns the most probable label of every row, the lowest of equals.
func (m *LogisticRegression) Predict(ctx context.Context, x Matrix) ([]int, error) {
	scores, err := m.Decision(ctx, x)
	if err != nil {
		return nil, err
	}
	return argmaxRows(scores), nil
}

// softmax replaces scores by probabilities.
func softmax(scores []float32) {
	highest := scores[0]
	for _, s := range scores {
		highest = max(highest, s)
	}
	sum := 0.0
	for _, s := range scores {
		sum += math.Exp(float64(s) - float64(highest))
	}
	for i, s := range scores {
		scores[i] = float32(math.Exp(float64(s)-float64(highest)) / sum)
	}
}
