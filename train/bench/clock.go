package bench

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// clockTicks is the kernel's USER_HZ, which is 100 on every architecture that Go runs on.
const clockTicks = 100

// sinceProcessStart is the time since the kernel started this process, libraries' loading included, to a
// hundredth of a second.
func sinceProcessStart() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, err
	}
	up, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	// The process's name, in parentheses, may hold anything; start is the 20th field behind it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	uptime := bytes.Fields(up)
	if len(fields) < 20 || len(uptime) == 0 {
		return 0, fmt.Errorf("/proc/self/stat: %d fields behind the name", len(fields))
	}
	started, err := strconv.ParseInt(string(fields[19]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/self/stat: %w", err)
	}
	now, err := strconv.ParseFloat(string(uptime[0]), 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/uptime: %w", err)
	}
	return time.Duration((now - float64(started)/clockTicks) * float64(time.Second)), nil
}

// clock times steps. The time of a step runs from the end of the one before, so that nothing between them is
// left out.
type clock struct {
	warmup  int
	steps   []step
	last    time.Time
	first   time.Duration // from the process's start to the first result
	mallocs uint64        // before the first step that counts
}

type step struct {
	took            time.Duration
	samples, tokens int
}

// start begins the first step.
func (c *clock) start() {
	c.last = time.Now()
	if c.warmup == 0 {
		c.mallocs = mallocs()
	}
}

// end ends a step that computed as many samples and tokens.
func (c *clock) end(samples, tokens int) error {
	c.steps = append(c.steps, step{time.Since(c.last), samples, tokens})
	if err := c.firstDone(); err != nil {
		return err
	}
	if len(c.steps) == c.warmup {
		c.mallocs = mallocs()
	}
	c.last = time.Now()
	return nil
}

// firstDone notes when the first result was there; later calls change nothing.
func (c *clock) firstDone() (err error) {
	if c.first == 0 {
		c.first, err = sinceProcessStart()
	}
	return err
}

// counted are the steps behind the warm-up, at least the last one.
func (c *clock) counted() []step { return c.steps[min(c.warmup, len(c.steps)-1):] }

// report fills in the figures that every mode has.
func (c *clock) report(r *Result) error {
	if len(c.steps) == 0 {
		return fmt.Errorf("bench: no step was taken")
	}
	var took []float64
	var total time.Duration
	samples, tokens := 0, 0
	for _, s := range c.counted() {
		took = append(took, s.took.Seconds())
		total += s.took
		samples, tokens = samples+s.samples, tokens+s.tokens
	}
	r.Steps, r.Warmup = len(c.steps), len(c.steps)-len(took)
	r.StepS = Spread{Min: slices.Min(took), Median: median(took), Max: slices.Max(took)}
	r.SamplesPerS, r.TokensPerS = float64(samples)/total.Seconds(), float64(tokens)/total.Seconds()
	r.FirstStepS = c.first.Seconds()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.GoHeapMB = float64(m.HeapSys) / (1 << 20)
	if c.mallocs > 0 {
		r.GoAllocsPerStep = float64(m.Mallocs-c.mallocs) / float64(len(took))
	}
	return nil
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[n/2] + v[(n-1)/2]) / 2
}
