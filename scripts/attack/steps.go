package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
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
