package classic

import (
	"context"
	"math"
)

// objective returns the function's value at x and writes its gradient.
type objective func(ctx context.Context, x, gradient []float64) (float64, error)

// lbfgsOptions are the stopping rules of SciPy's L-BFGS-B.
type lbfgsOptions struct {
	maxIterations  int
	maxEvaluations int     // per line search
	gradient       float64 // largest absolute component of the gradient to stop at
	decrease       float64 // relative decrease per iteration to stop at
	history        int     // pairs kept
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

// minimize moves x to a minimum of f by limited-memory BFGS (J. Nocedal,
// "Updating quasi-Newton matrices with limited storage", Mathematics of
// Computation 35 (1980)). Its decisions, from the first step's length to the
// stopping rules, are those of L-BFGS-B 3.0 without bounds, so that it visits
// the points that SciPy's minimiser visits.
func minimize(ctx context.Context, f objective, x []float64, o lbfgsOptions) (lbfgsResult, error) {
	n := len(x)
	gradient, gradientBefore := make([]float64, n), make([]float64, n)
	xBefore, direction := make([]float64, n), make([]float64, n)
	pairs := newHistory(o.history, n)

	var r lbfgsResult
	var err error
	if r.value, err = f(ctx, x, gradient); err != nil {
		return r, err
	}
	r.evaluations = 1
	r.gradientMax = maxAbs(gradient)
	if r.gradientMax <= o.gradient {
		r.converged, r.reason = true, "gradient small enough at the start"
		return r, nil
	}

	for r.iterations < o.maxIterations {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		pairs.direction(gradient, direction)
		slope := inner(gradient, direction)
		step := 1.0
		if r.iterations == 0 {
			step = min(1/math.Sqrt(inner(direction, direction)), maxStep)
		}
		copy(xBefore, x)
		copy(gradientBefore, gradient)
		valueBefore := r.value

		found, newSlope := false, 0.0
		var search *lineSearch
		if slope < 0 {
			search = newLineSearch(step, r.value, slope)
			for range o.maxEvaluations {
				for i := range x {
					x[i] = xBefore[i] + search.step*direction[i]
				}
				if r.value, err = f(ctx, x, gradient); err != nil {
					return r, err
				}
				r.evaluations++
				newSlope = inner(gradient, direction)
				if found = search.next(r.value, newSlope); found {
					break
				}
			}
		}
		if !found {
			// No step downhill: back to where it was, and once more along the
			// plain gradient before giving up.
			copy(x, xBefore)
			copy(gradient, gradientBefore)
			r.value = valueBefore
			if pairs.len() == 0 {
				r.reason = "the line search found no lower value"
				return r, nil
			}
			pairs.reset()
			continue
		}

		r.iterations++
		r.gradientMax = maxAbs(gradient)
		if r.gradientMax <= o.gradient {
			r.converged, r.reason = true, "gradient small enough"
			return r, nil
		}
		if valueBefore-r.value <= o.decrease*max(math.Abs(valueBefore), math.Abs(r.value), 1) {
			r.converged, r.reason = true, "value no longer decreases"
			return r, nil
		}
		pairs.add(search.step, direction, gradient, gradientBefore, slope, newSlope)
	}
	r.reason = "iteration limit reached"
	return r, nil
}

// history keeps the latest steps s and gradient differences y.
type history struct {
	s, y  [][]float64 // oldest first
	sy    []float64
	gamma float64 // scale of the initial inverse Hessian: s·y / y·y
	alpha []float64
}

func newHistory(size, n int) *history {
	h := &history{alpha: make([]float64, size), gamma: 1}
	for range size {
		h.s = append(h.s, make([]float64, n))
		h.y = append(h.y, make([]float64, n))
	}
	h.sy = make([]float64, 0, size)
	return h
}

func (h *history) len() int { return len(h.sy) }

func (h *history) reset() {
	h.sy = h.sy[:0]
	h.gamma = 1
}

// add remembers a step, unless the curvature along it is not positive.
func (h *history) add(step float64, direction, gradient, gradientBefore []float64, slopeBefore, slope float64) {
	const epsilon = 0x1p-52
	sy := (slope - slopeBefore) * step
	if sy <= epsilon*-slopeBefore*step {
		return
	}
	last := len(h.sy)
	if last == len(h.s) { // the oldest pair's storage becomes the newest's
		last--
		s, y := h.s[0], h.y[0]
		copy(h.s, h.s[1:])
		copy(h.y, h.y[1:])
		copy(h.sy, h.sy[1:])
		h.s[last], h.y[last] = s, y
		h.sy = h.sy[:last]
	}
	s, y := h.s[last], h.y[last]
	for i := range s {
		s[i] = step * direction[i]
		y[i] = gradient[i] - gradientBefore[i]
	}
	h.sy = append(h.sy, sy)
	h.gamma = sy / inner(y, y)
}

// direction writes minus the approximate inverse Hessian times the gradient:
// the two-loop recursion.
func (h *history) direction(gradient, out []float64) {
	for i, g := range gradient {
		out[i] = -g
	}
	for k := len(h.sy) - 1; k >= 0; k-- {
		h.alpha[k] = inner(h.s[k], out) / h.sy[k]
		addScaled(out, -h.alpha[k], h.y[k])
	}
	for i := range out {
		out[i] *= h.gamma
	}
	for k := range h.sy {
		addScaled(out, h.alpha[k]-inner(h.y[k], out)/h.sy[k], h.s[k])
	}
}

func inner(a, b []float64) float64 {
	b = b[:len(a)]
	var s0, s1 float64
	i := 0
	for ; i+2 <= len(a); i += 2 {
		s0 += a[i] * b[i]
		s1 += a[i+1] * b[i+1]
	}
	if i < len(a) {
		s0 += a[i] * b[i]
	}
	return s0 + s1
}

func addScaled(y []float64, a float64, x []float64) {
	x = x[:len(y)]
	for i := range y {
		y[i] += a * x[i]
	}
}

func maxAbs(v []float64) float64 {
	m := 0.0
	for _, e := range v {
		m = max(m, math.Abs(e)) // keeps NaN
	}
	return m
}
