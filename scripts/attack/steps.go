package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stopAtStep runs a command that trains, and tells it to end once its checkpoint is of a step.
func (c *attempt) stopAtStep(step int, args ...string) result {
	out := ""
	if at := slices.Index(args, "--out"); at >= 0 {
		out = args[at+1]
	}
	return c.start(usual, func(p *os.Process, ended <-chan struct{}) {
		for {
			select {
			case <-ended:
				return
			case <-time.After(2 * time.Millisecond):
			}
			if c.step(out) >= step {
				_ = p.Signal(syscall.SIGTERM)
				return
			}
		}
	}, args...)
}

// settled returns once a command waits: none of its threads has worked for a while. How soon that is depends on how busy the
// machine is.
func settled(p *os.Process, ended <-chan struct{}) {
	const often = 20
	quiet, last := 0, ""
	for range 20 * often {
		select {
		case <-ended:
			return
		case <-time.After(time.Second / often):
		}
		used, working := ticks(p.Pid)
		if quiet++; working || used != last {
			quiet, last = 0, used
		}
		if quiet > often/2 {
			return
		}
	}
}

// ticks is the processor time that a process has taken, and whether one of its threads is at work or about to be.
func ticks(pid int) (used string, working bool) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is right
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			continue // that thread has ended
		}
		_, after, _ := strings.Cut(string(raw), ") ") // behind the name, which may hold anything
		fields := strings.Fields(after)
		if len(fields) < 13 {
			continue
		}
		working = working || fields[0] == "R" || fields[0] == "D"
		used += fields[11] + "+" + fields[12] + " "
	}
	return used, working
}

// step is that of a run's last checkpoint.
func (c *attempt) step(run string) int {
	var state struct {
		Step int `json:"step"`
	}
	raw, err := os.ReadFile(filepath.Join(c.in(run), "last", "state", "state.json"))
	if err != nil || json.Unmarshal(raw, &state) != nil {
		return 0
	}
	return state.Step
}
