package train

import (
	"fmt"
	"math"
)

// Schedule gives the learning rate of each step.
type Schedule struct {
	Name   string // "constant", "linear" or "cosine"
	Peak   float64
	Warmup int // steps over which the rate rises linearly from 0
	Total  int // steps of the whole run; linear and cosine reach 0 after the last
}

// NewSchedule checks the name. warmup counts steps, or is a share of total when below 1.
func NewSchedule(name string, peak, warmup float64, total int) (Schedule, error) {
	s := Schedule{Name: name, Peak: peak, Total: total}
	switch name {
	case "constant", "linear", "cosine":
	default:
		return s, fmt.Errorf("schedule %q is not known (constant, linear, cosine)", name)
	}
	if !(warmup >= 0 && warmup <= math.MaxInt32) { // NaN fails too
		return s, fmt.Errorf("warmup is %v, want steps, or a share of the run below 1", warmup)
	}
	if warmup < 1 {
		warmup *= float64(total)
	}
	s.Warmup = int(math.Round(warmup))
	return s, nil
}

// Rate is the learning rate of a step, counted from 0, as transformers' schedulers give it.
func (s Schedule) Rate(step int) float64 {
	if step < s.Warmup {
		return s.Peak * float64(step) / float64(s.Warmup)
	}
	done := float64(step-s.Warmup) / math.Max(1, float64(s.Total-s.Warmup))
	switch s.Name {
	case "linear":
		return s.Peak * math.Max(0, 1-done)
	case "cosine":
		return s.Peak * math.Max(0, 0.5*(1+math.Cos(math.Pi*done)))
	}
	return s.Peak
}
