package run

import (
	"context"
	"testing"

	"gopeft/train/dist"
)

// Processes that go on take the GPU that their run chose for itself for its kind; only one that was asked for is refused.
func TestProcessesResumeOnAChosenGPU(t *testing.T) {
	cfg := Defaults()
	cfg.Machine.Device, cfg.Machine.Group = "cuda:0", &dist.Group{}
	if err := cfg.sameEverywhere(context.Background(), Resume); err == nil {
		t.Error("a GPU that was asked for: no error")
	}
	cfg.Automatic = []string{"device"}
	if err := cfg.sameEverywhere(context.Background(), Resume); err != nil {
		t.Errorf("one that the run chose: %v", err)
	}
}
