package train

import (
	"time"

	"gopeft/bindings"
)

// Phase is a part of a training step.
type Phase int

// The phases: waiting for the batch; copying it to the device and the forward pass; the backward pass; checking
// and applying the gradients.
const (
	PhaseData Phase = iota
	PhaseForward
	PhaseBackward
	PhaseOptimizer
	Phases // how many there are
)

func (p Phase) String() string {
	return [Phases]string{"data", "forward", "backward", "optimizer"}[p]
}

// Laps sums the time a Trainer spends in each phase. A nil Laps measures nothing; on a GPU a Laps that measures
// waits for the queued work at the end of every phase.
type Laps struct {
	Spent [Phases]time.Duration
	last  time.Time
}

// restart begins a lap without counting the time since the last one.
func (l *Laps) restart() {
	if l != nil {
		l.last = time.Now()
	}
}

// end counts the time since the last lap to a phase.
func (l *Laps) end(s *bindings.Scope, dev bindings.Device, p Phase) {
	if l == nil {
		return
	}
	s.Synchronize(dev)
	now := time.Now()
	l.Spent[p] += now.Sub(l.last)
	l.last = now
}
