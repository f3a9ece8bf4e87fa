package train

// What a run takes: memory, and time, phase by phase.

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"gopeft/bindings"
)

// PeakRSSMB is the most memory this process has held resident, in MiB.
func PeakRSSMB() float64 {
	if kb, ok := statusKB("VmHWM:"); ok {
		return kb / 1024
	}
	// Elsewhere, and where /proc is hidden. On Linux this figure outlives exec: it may be that of the parent process.
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Maxrss) / 1024
}

// RSSMB is the memory this process holds resident now, in MiB; 0 where that is not told.
func RSSMB() float64 {
	kb, _ := statusKB("VmRSS:")
	return kb / 1024
}

// statusKB reads a figure of /proc/self/status, in kB.
func statusKB(name string) (kb float64, ok bool) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	return figureKB(status, name)
}

func figureKB(status []byte, name string) (kb float64, ok bool) {
	for line := range bytes.Lines(status) {
		if rest, found := bytes.CutPrefix(line, []byte(name)); found {
			kb, err := strconv.ParseFloat(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 64)
			return kb, err == nil
		}
	}
	return 0, false
}

// Phase is a part of a training step.
type Phase int

// The phases: waiting for the batch; copying it to the device and the forward pass; the backward pass; waiting for what
// the other processes computed; checking and applying the gradients.
const (
	PhaseData Phase = iota
	PhaseForward
	PhaseBackward
	PhaseOthers
	PhaseOptimizer
	Phases // how many there are
)

func (p Phase) String() string {
	return [Phases]string{"data", "forward", "backward", "others", "optimizer"}[p]
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
