package run_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/run"
	"gopeft/train/traintest"
)

// writeSequences makes texts of the tiny LLaMA's token ids, several of which fit into a packed row.
func writeSequences(t *testing.T, n int) string {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	for range n {
		ids := make([]string, 4+r.IntN(9))
		for i := range ids {
			ids[i] = fmt.Sprint(3 + r.IntN(45))
		}
		fmt.Fprintf(&b, "{\"input_ids\": [%s]}\n", strings.Join(ids, ", "))
	}
	path := filepath.Join(t.TempDir(), "sequences.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// packedConfig is a short run of a language model on packed rows.
func packedConfig(t *testing.T, method string) run.Config {
	cfg := tinyConfig(t, method)
	cfg.Model.Task, cfg.Model.Path, cfg.Data.Data, cfg.Data.Pack, cfg.Data.MaxLength = "causal", modeltest.Testdata(t, "llama/base"), writeSequences(t, 90), true, 24
	return cfg
}

// bertConfig is a short run on a BERT.
func bertConfig(t *testing.T, method string) run.Config {
	cfg := tinyConfig(t, method)
	cfg.Model.Path = modeltest.Testdata(t, "bert/tiny")
	return cfg
}

// TestEveryMethodResumesToTheSameBits interrupts a run in the middle of an epoch: weights, optimizer, generators
// and files are then those of the run that was never stopped, whatever the method and where its weights are saved.
func TestEveryMethodResumesToTheSameBits(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, family := range []struct {
		name   string
		config func(t *testing.T, method string) run.Config
	}{{"classification", tinyConfig}, {"bert", bertConfig}, {"packed", packedConfig}} {
		for _, c := range traintest.MethodCases() {
			t.Run(family.name+"/"+c.Name, func(t *testing.T) {
				whole := family.config(t, c.Method)
				whole.Peft, whole.Peft.LoRADropout, whole.Model.Dropout = c.Options, 0.1, 0.1
				whole.Loop.LR, whole.Loop.BatchSize, whole.Loop.GradAccum, whole.Loop.Clip, whole.Loop.Schedule, whole.Output.NoTrainEval = 0, 4, 2, 1, "cosine", true
				mustRun(t, whole, run.Refuse)
				cfg := whole
				cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
				interrupt(t, cfg, "train", 2)
				if p, err := train.ReadProgress(filepath.Join(cfg.Output.Out, "last", "state")); err != nil || p.Step != 2 || p.Epoch != 0 || p.Batch != 4 {
					t.Errorf("the checkpoint stands at %+v (%v)", p.Position, err)
				}
				mustRun(t, cfg, run.Resume)
				sameRun(t, comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out))
			})
		}
	}
}

// TestDoRAScoresWhatItTrained: what an evaluation has kept of the weights does not outlive the steps after it, so that a
// run stopped between two evaluations chooses the same best checkpoint as one that never was.
func TestDoRAScoresWhatItTrained(t *testing.T) {
	whole := tinyConfig(t, "dora")
	whole.Loop.Epochs, whole.Model.Dropout, whole.Output.NoTrainEval = 3, 0.1, true
	want := mustRun(t, whole, run.Refuse)
	steps := 0
	if p, err := train.ReadProgress(filepath.Join(whole.Output.Out, "last", "state")); err == nil {
		steps = p.Step
	}
	cfg := whole
	cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
	interrupt(t, cfg, "train", steps/2)
	got := mustRun(t, cfg, run.Resume)
	sameRun(t, comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out))
	if got.Loss.Val != want.Loss.Val || got.Loss.Test != want.Loss.Test {
		t.Errorf("losses %+v, want %+v", got.Loss, want.Loss)
	}
}
