package run_test

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"gopeft/train"
	"gopeft/train/report"
	"gopeft/train/run"
)

// evaluations are the steps of a run's rows with a validation loss, and those losses.
func evaluations(rows []report.Row) (steps []int, losses []float64) {
	for _, r := range rows {
		if !math.IsNaN(r.ValLoss) {
			steps, losses = append(steps, r.Step), append(losses, r.ValLoss)
		}
	}
	return steps, losses
}

// Evaluating inside epochs changes nothing of the training, and the best checkpoint is the best of all evaluations.
func TestEvaluatesInsideEpochs(t *testing.T) {
	plain := manyToScore(t) // epochs of 8 steps
	plain.Loop.Monitor = "val_loss"
	mustRun(t, plain, run.Refuse)
	cfg := plain
	cfg.Loop.EvalEvery, cfg.Output.Out = 3, filepath.Join(t.TempDir(), "steps")
	sum := mustRun(t, cfg, run.Refuse)
	rows := readMetrics(t, cfg.Output.Out)
	steps, losses := evaluations(rows)
	if want := []int{3, 6, 8, 9, 12, 15, 16, 18, 21, 24}; !slices.Equal(steps, want) {
		t.Fatalf("evaluated after steps %v, want %v", steps, want)
	}
	if best := steps[slices.Index(losses, slices.Min(losses))]; sum.BestStep != best {
		t.Errorf("the best step is %d, of losses %v after %v", sum.BestStep, losses, steps)
	}
	if got := sum.Loss.Val; math.Abs(float64(got)-slices.Min(losses)) > 1e-6 {
		t.Errorf("the best checkpoint's loss is %v, the least seen %v", got, slices.Min(losses))
	}
	before, _ := evaluations(readMetrics(t, plain.Output.Out))
	var after []int
	for _, r := range rows {
		if !math.IsNaN(r.EpochTrainLoss) {
			after = append(after, r.Step)
		}
	}
	if !slices.Equal(before, after) {
		t.Errorf("epochs end after steps %v, without evaluations inside after %v", after, before)
	}
	got, want := comparable(t, cfg.Output.Out), comparable(t, plain.Output.Out)
	name := filepath.Join("last", "state", "state.safetensors")
	if got[name] == "" || got[name] != want[name] {
		t.Errorf("%s is not that of the run without evaluations inside epochs", name)
	}
}

// Patience counts evaluations: with a learning rate of nothing the first is the best.
func TestPatienceCountsEvaluations(t *testing.T) {
	cfg := manyToScore(t)
	cfg.Loop.EvalEvery, cfg.Loop.EarlyStop, cfg.Loop.LR = 2, 4, 1e-30
	sum := mustRun(t, cfg, run.Refuse)
	steps, _ := evaluations(readMetrics(t, cfg.Output.Out))
	if want := []int{2, 4, 6, 8, 10}; !slices.Equal(steps, want) || sum.BestStep != 2 {
		t.Errorf("evaluated after steps %v, want %v; the best is of step %d", steps, want, sum.BestStep)
	}
	p, err := train.ReadProgress(filepath.Join(cfg.Output.Out, "last", "state"))
	if err != nil || p.Step != 10 || p.Stale != 4 {
		t.Errorf("stands at %+v (%v)", p, err)
	}
}

// A run goes on to the same bits from a stop between, in and right after evaluations, with checkpoints that meet them.
func TestResumesBetweenEvaluations(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, c := range []struct {
		name string
		set  func(*run.Config)
	}{
		{"rows", func(*run.Config) {}},
		{"tokens", func(c *run.Config) { c.Loop.MaxTokens, c.Loop.GradAccum = 70, 2 }},
		{"early stop", func(c *run.Config) { c.Loop.EarlyStop, c.Loop.LR, c.Loop.Epochs = 5, 1e-30, 9 }},
		{"checkpoints", func(c *run.Config) { c.Output.Checkpoints = 3 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := manyToScore(t)
			whole.Loop.EvalEvery, whole.Output.NoTrainEval = 3, true
			c.set(&whole)
			mustRun(t, whole, run.Refuse)
			want := comparable(t, whole.Output.Out)
			for _, at := range []struct {
				phase string
				n     int
			}{{"train", 2}, {"train", 3}, {"train", 4}, {"validate", 1}, {"validate", 2}, {"validate", 8}, {"validate", 9}, {"train", 9}} {
				cfg := whole
				cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
				interrupt(t, cfg, at.phase, at.n)
				mustRun(t, cfg, run.Resume)
				sameRun(t, comparable(t, cfg.Output.Out), want)
				if t.Failed() {
					t.Fatalf("when interrupted in %q, %d", at.phase, at.n)
				}
			}
		})
	}
}

// Several processes evaluate as one does, and go on to the same bits.
func TestProcessesEvaluateInsideEpochs(t *testing.T) {
	cfg := manyToScore(t)
	cfg.Loop.EvalEvery, cfg.Loop.Monitor, cfg.Output.NoTrainEval = 3, "val_loss", true
	cfg.Model.Dropout, cfg.Peft.LoRADropout, cfg.Loop.Optimizer, cfg.Loop.LR = 0, 0, "sgd", 0.05
	mustRun(t, cfg, run.Refuse)
	shared := cfg
	shared.Output.Out = filepath.Join(t.TempDir(), "shared")
	inRanks(t, shared, 2, rankPlan{})
	sameFigures(t, shared.Output.Out, cfg.Output.Out, 2e-6, 1e-6)

	stopped := shared
	stopped.Output.Out = filepath.Join(t.TempDir(), "stopped")
	inRanks(t, stopped, 2, rankPlan{StopRank: 1, StopStep: 6})
	inRanks(t, stopped, 2, rankPlan{Mode: run.Resume, Blind: true})
	sameRun(t, comparable(t, stopped.Output.Out), comparable(t, shared.Output.Out))
}
