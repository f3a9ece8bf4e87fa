package classic

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/optimize"
)

// objective returns the function's value at x and writes its gradient.
type objective func(ctx context.Context, x, gradient []float64) (float64, error)

// lbfgsOptions are the stopping rules of SciPy's L-BFGS-B.
type lbfgsOptions struct {
	maxIterations  int
	maxEvaluations int     // per line search
	gradient       float64 // stop when no component of the gradient is as large as this
	decrease       float64 // stop when an iteration lowers the value by no more than this share of it
	history        int     // steps that the Hessian is estimated from
}

// lbfgsResult says how a minimisation ended.
type lbfgsResult struct {
	value       float64
	gradientMax float64
	iterations  int
	evaluations int
	converged   bool
	reason      string
}

// minimize moves x to a minimum of f by gonum's limited-memory BFGS. Line search, first step and stopping rules are set
// to those of L-BFGS-B 3.0 without bounds, so that it ends where SciPy's minimiser ends.
func minimize(ctx context.Context, f objective, x []float64, o lbfgsOptions) (lbfgsResult, error) {
	var r lbfgsResult
	for {
		s := &supervisor{ctx: ctx, f: f, o: o, gradient: make([]float64, len(x))}
		settings := &optimize.Settings{
			GradientThreshold: o.gradient,
			Converger:         s,
			MajorIterations:   o.maxIterations - r.iterations + 1, // gonum counts the start as one
		}
		method := &optimize.LBFGS{
			Linesearcher:      &optimize.MoreThuente{DecreaseFactor: 1e-3, CurvatureFactor: 0.9, MaximumStep: 1e10},
			Store:             o.history,
			GradStopThreshold: math.NaN(), // off: Settings have the threshold
		}
		problem := optimize.Problem{Func: s.value, Grad: s.slope, Status: s.status}
		found, err := optimize.Minimize(problem, x, settings, method)
		if s.err != nil {
			return r, s.err
		}
		copy(x, found.X)
		r.value, r.gradientMax = found.F, maxAbs(found.Gradient)
		r.iterations += found.MajorIterations - 1
		r.evaluations += found.FuncEvaluations
		switch {
		case found.Status == optimize.GradientThreshold:
			r.converged, r.reason = true, "gradient small enough"
			return r, nil
		case found.Status == optimize.FunctionConvergence:
			r.converged, r.reason = true, "value no longer decreases"
			return r, nil
		case found.Status == optimize.IterationLimit:
			r.reason = "iteration limit reached"
			return r, nil
		case found.MajorIterations <= 1: // not even along the plain gradient
			r.reason = fmt.Sprintf("the line search found no lower value (%v)", err)
			return r, nil
		}
		// The line search failed: once more from here, without the steps so far.
	}
}

// supervisor evaluates an objective for gonum and decides when to stop.
type supervisor struct {
	ctx context.Context
	f   objective
	o   lbfgsOptions

	gradient []float64 // at the point where value was last called
	tried    int       // points since the last iteration's end
	before   float64   // value at the last iteration's end
	started  bool
	err      error
}

// value computes the gradient too: both take one pass over the data.
func (s *supervisor) value(x []float64) float64 {
	value, err := s.f(s.ctx, x, s.gradient)
	if err == nil && (math.IsNaN(value) || math.IsInf(value, 0)) {
		err = fmt.Errorf("the loss became %v: scale the features down", value)
	}
	s.tried++
	s.err = err
	return value
}

// slope is called right after value, with the same point.
func (s *supervisor) slope(gradient, _ []float64) { copy(gradient, s.gradient) }

// status is asked after every evaluation.
func (s *supervisor) status() (optimize.Status, error) {
	switch {
	case s.err != nil:
		return optimize.Failure, s.err
	case s.tried > s.o.maxEvaluations:
		return optimize.Failure, optimize.ErrLinesearcherFailure
	}
	return optimize.NotTerminated, nil
}

// Init implements optimize.Converger.
func (s *supervisor) Init(int) {}

// Converged implements optimize.Converger: it is asked at the start and after every iteration.
func (s *supervisor) Converged(at *optimize.Location) optimize.Status {
	before, started := s.before, s.started
	s.before, s.started, s.tried = at.F, true, 0
	if started && before-at.F <= s.o.decrease*max(math.Abs(before), math.Abs(at.F), 1) {
		return optimize.FunctionConvergence
	}
	return optimize.NotTerminated
}

func maxAbs(v []float64) float64 {
	m := 0.0
	for _, e := range v {
		m = max(m, math.Abs(e)) // keeps NaN
	}
	return m
}
