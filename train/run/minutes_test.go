package run_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"gopeft/train"
	"gopeft/train/run"
)

// A run killed after a step has the checkpoint that its age called for; and a resumed run may have another such setting.
func TestCheckpointsByTheClock(t *testing.T) {
	for _, c := range []struct {
		minutes float64
		want    int
	}{{1e-9, 3}, {0, 0}, {60, 0}} {
		cfg := tinyConfig(t, "bitfit")
		cfg.Output.Minutes = c.minutes
		at := 0
		ui := &stepUI{n: 4, do: func() {
			if p, err := train.ReadProgress(filepath.Join(cfg.Output.Out, "last", "state")); err == nil {
				at = p.Step
			}
		}}
		ctx, cancel := context.WithCancel(context.Background())
		ui.stop = cancel
		if _, err := run.Run(ctx, cfg, run.Refuse, ui); !errors.Is(err, run.ErrInterrupted) {
			t.Fatal(err)
		}
		if at != c.want {
			t.Errorf("%v minutes: at step 4 the checkpoint is of step %d, want %d", c.minutes, at, c.want)
		}
		cfg.Output.Minutes++
		mustRun(t, cfg, run.Resume)
	}
	cfg := tinyConfig(t, "bitfit")
	cfg.Output.Minutes = -1
	if err := cfg.Check(); err == nil {
		t.Error("a negative age is taken")
	}
}

// stepUI does something at a step and stops the run there.
type stepUI struct {
	train.Quiet
	n    int
	do   func()
	stop func()
}

func (u *stepUI) Progress(phase string, done, _ int, _ string) {
	if phase == "train" && done == u.n {
		u.do()
		u.stop()
	}
}
