package run_test

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/train"
	"gopeft/train/run"
)

// noMemory fails a step as libtorch does where a GPU has no memory left.
type noMemory struct {
	train.Quiet
	step int
}

func (u *noMemory) Progress(phase string, done, _ int, _ string) {
	if phase == "train" && done == u.step {
		panic(&bindings.OpError{Op: "mm", Message: "CUDA out of memory. Tried to allocate 2.00 GiB."})
	}
}

func TestRunWithoutMemoryKeepsWhatItTrained(t *testing.T) {
	whole := tinyConfig(t, "lora")
	mustRun(t, whole, run.Refuse)
	cfg, base := whole, bindings.Live()
	cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
	_, err := run.Run(t.Context(), cfg, run.Refuse, &noMemory{step: 5})
	if err == nil || !strings.Contains(err.Error(), "out of memory") || !strings.Contains(err.Error(), "--checkpoint-activations") {
		t.Errorf("got %v", err)
	}
	if n := bindings.Live() - base; n != 0 {
		t.Errorf("%d tensors left alive", n)
	}
	if p, err := train.ReadProgress(filepath.Join(cfg.Output.Out, "last", "state")); err != nil || p.Step != 5 {
		t.Fatalf("the checkpoint is of step %d, %v", p.Step, err)
	}
	mustRun(t, cfg, run.Resume)
	if !maps.Equal(comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out)) {
		t.Error("resumed, the run ends with other files than one that never stopped")
	}
}
