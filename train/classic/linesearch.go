package classic

import "math"

// Constants of the line search as L-BFGS-B sets them.
const (
	sufficientDecrease = 1e-3 // of the slope, per unit of step
	curvature          = 0.9  // |slope| at the end relative to the start
	intervalWidth      = 0.1  // relative width at which a bracket is given up
	maxStep            = 1e10
)

// lineSearch finds a step along a descent direction that satisfies the strong
// Wolfe conditions, by the method of J. J. Moré and D. J. Thuente, "Line search
// algorithms with guaranteed sufficient decrease", ACM TOMS 20 (1994). The
// caller evaluates the function at step, calls next with value and slope, and
// repeats until next reports done.
type lineSearch struct {
	step float64 // where to evaluate, and in the end the result

	startValue, startSlope float64
	best, other            trial // ends of the interval that holds a minimiser
	bracketed              bool
	lower, upper           float64 // limits of the next step
	width, widthBefore     float64
	positiveSlopeSeen      bool // second stage: no auxiliary function any more
}

// trial is a step with the function's value and slope there.
type trial struct{ step, value, slope float64 }

func newLineSearch(step, value, slope float64) *lineSearch {
	start := trial{0, value, slope}
	return &lineSearch{
		step: step, startValue: value, startSlope: slope,
		best: start, other: start,
		upper: step + 4*step,
		width: maxStep, widthBefore: 2 * maxStep,
	}
}

// next takes value and slope at s.step and either reports done, with s.step
// the step to use, or moves s.step to the next trial.
func (s *lineSearch) next(value, slope float64) (done bool) {
	minSlope := sufficientDecrease * s.startSlope
	limit := s.startValue + s.step*minSlope
	if value <= limit && slope >= 0 {
		s.positiveSlopeSeen = true
	}
	switch {
	case value <= limit && math.Abs(slope) <= curvature*-s.startSlope:
		return true
	case s.bracketed && (s.step <= s.lower || s.step >= s.upper || s.upper-s.lower <= intervalWidth*s.upper):
		return true // rounding leaves nothing better in the bracket
	case s.step == maxStep && value <= limit && slope <= minSlope:
		return true
	}

	t := trial{s.step, value, slope}
	if !s.positiveSlopeSeen && value <= s.best.value && value > limit {
		// A lower value that is no sufficient decrease yet: choose by the
		// auxiliary function ψ(step) = f(step) - f(0) - step·minSlope.
		tilt := func(t trial, sign float64) trial {
			return trial{t.step, t.value - sign*t.step*minSlope, t.slope - sign*minSlope}
		}
		s.best, s.other = tilt(s.best, 1), tilt(s.other, 1)
		s.choose(tilt(t, 1))
		s.best, s.other = tilt(s.best, -1), tilt(s.other, -1)
	} else {
		s.choose(t)
	}

	if s.bracketed {
		span := math.Abs(s.other.step - s.best.step)
		if span >= 0.66*s.widthBefore {
			s.step = s.best.step + 0.5*(s.other.step-s.best.step)
		}
		s.widthBefore, s.width = s.width, span
		s.lower, s.upper = min(s.best.step, s.other.step), max(s.best.step, s.other.step)
	} else {
		s.lower = s.step + 1.1*(s.step-s.best.step)
		s.upper = s.step + 4*(s.step-s.best.step)
	}
	s.step = min(max(s.step, 0), maxStep)
	if s.bracketed && (s.step <= s.lower || s.step >= s.upper || s.upper-s.lower <= intervalWidth*s.upper) {
		s.step = s.best.step
	}
	return false
}

// choose computes the next step from the interval's ends and the trial t, and
// shrinks the interval: the four cases of section 4 of the paper.
func (s *lineSearch) choose(t trial) {
	best, other := s.best, s.other
	opposite := t.slope*math.Copysign(1, best.slope) < 0
	var next float64
	switch {
	case t.value > best.value:
		// The minimum is between: cubic, unless it strays far from the
		// quadratic.
		c := cubicMinimum(best, t)
		q := best.step + 0.5*best.slope/((best.value-t.value)/(t.step-best.step)+best.slope)*(t.step-best.step)
		if math.Abs(c-best.step) <= math.Abs(q-best.step) {
			next = c
		} else {
			next = c + (q-c)/2
		}
		s.bracketed = true
	case opposite:
		// The slope changed sign, the minimum is between again: the step
		// farther from t.
		c, q := cubicMinimum(t, best), secant(t, best)
		if math.Abs(c-t.step) > math.Abs(q-t.step) {
			next = c
		} else {
			next = q
		}
		s.bracketed = true
	case math.Abs(t.slope) < math.Abs(best.slope):
		// Lower and flatter: extrapolate with the cubic if it tends to
		// infinity or bottoms out beyond t, with the secant otherwise.
		c, q := cubicBeyond(t, best, s.lower, s.upper), secant(t, best)
		if s.bracketed {
			next = q
			if math.Abs(c-t.step) < math.Abs(q-t.step) {
				next = c
			}
			bound := t.step + 0.66*(other.step-t.step)
			if t.step > best.step {
				next = min(bound, next)
			} else {
				next = max(bound, next)
			}
		} else {
			next = q
			if math.Abs(c-t.step) > math.Abs(q-t.step) {
				next = c
			}
			next = min(max(next, s.lower), s.upper)
		}
	case s.bracketed:
		next = cubicMinimum(t, other)
	case t.step > best.step:
		next = s.upper
	default:
		next = s.lower
	}

	if t.value > best.value {
		s.other = t
	} else {
		if opposite {
			s.other = best
		}
		s.best = t
	}
	s.step = next
}

// cubicTerms are the coefficients all cubic steps between a and b share.
func cubicTerms(a, b trial) (theta, scale float64) {
	theta = 3*(a.value-b.value)/(b.step-a.step) + a.slope + b.slope
	scale = max(math.Abs(theta), math.Abs(a.slope), math.Abs(b.slope))
	return theta, scale
}

// cubicMinimum minimises the cubic through both trials' values and slopes.
func cubicMinimum(a, b trial) float64 {
	theta, scale := cubicTerms(a, b)
	gamma := scale * math.Sqrt(max(0, theta/scale*(theta/scale)-a.slope/scale*(b.slope/scale)))
	if b.step < a.step {
		gamma = -gamma
	}
	p := gamma - a.slope + theta
	q := gamma - a.slope + gamma + b.slope
	return a.step + p/q*(b.step-a.step)
}

// cubicBeyond is the cubic's minimiser if it lies beyond a, seen from b, and a
// limit otherwise.
func cubicBeyond(a, b trial, lower, upper float64) float64 {
	theta, scale := cubicTerms(a, b)
	gamma := scale * math.Sqrt(max(0, theta/scale*(theta/scale)-a.slope/scale*(b.slope/scale)))
	if a.step > b.step {
		gamma = -gamma
	}
	p := gamma - a.slope + theta
	q := gamma + (b.slope - a.slope) + gamma
	r := p / q
	switch {
	case r < 0 && gamma != 0:
		return a.step + r*(b.step-a.step)
	case a.step > b.step:
		return upper
	default:
		return lower
	}
}

// secant is the root of the line through both slopes.
func secant(a, b trial) float64 {
	return a.step + a.slope/(a.slope-b.slope)*(b.step-a.step)
}
