package run_test

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/report"
	"gopeft/train/run"
)

// lossConfig is a run whose steps are sums: without dropout, with SGD, in the data's order.
func lossConfig(t *testing.T, task string) run.Config {
	cfg := tinyConfig(t, "lora")
	if task == "causal" {
		cfg = packedConfig(t, "lora")
	}
	cfg.Model.Dropout, cfg.Loop.Optimizer, cfg.Loop.LR, cfg.Output.NoTrainEval = 0, "sgd", 0.05, true
	cfg.Loop.NoShuffle, cfg.Loop.NoBucket, cfg.Loop.LogEvery = true, true, 1
	return cfg
}

// With weights of classes and smoothed targets a step is one of its whole batch: divided by processes or accumulated.
func TestWeightedStepsAreOfWholeBatches(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, task := range []string{"classify", "causal"} {
		t.Run(task, func(t *testing.T) {
			cfg := lossConfig(t, task)
			cfg.Loop.Smoothing = 0.1
			if task == "classify" {
				cfg.Loop.Weights = "0=0.2,2=7"
			}
			mustRun(t, cfg, run.Refuse)
			parts := cfg
			parts.Loop.BatchSize, parts.Loop.GradAccum, parts.Output.Out = 4, 2, filepath.Join(t.TempDir(), "accumulated")
			mustRun(t, parts, run.Refuse)
			for i, r := range readMetrics(t, parts.Output.Out) { // which has other fractions of epochs
				if want := readMetrics(t, cfg.Output.Out)[i]; r.Step != want.Step || !math.IsNaN(want.TrainLoss) && math.Abs(r.TrainLoss-want.TrainLoss) > 2e-6 {
					t.Errorf("accumulated, line %d is %+v, want %+v", i, r, want)
				}
			}
			closeWeights(t, parts.Output.Out, cfg.Output.Out, 1e-6)
			for _, n := range []int{2, 3} {
				shared := cfg
				shared.Output.Out = filepath.Join(t.TempDir(), "shared")
				inRanks(t, shared, n, rankPlan{})
				sameFigures(t, shared.Output.Out, cfg.Output.Out, 2e-6, 1e-6)
			}
			plain := cfg
			plain.Loop.Smoothing, plain.Loop.Weights, plain.Output.Out = 0, "", filepath.Join(t.TempDir(), "plain")
			mustRun(t, plain, run.Refuse)
			if a, b := readMetrics(t, cfg.Output.Out)[0], readMetrics(t, plain.Output.Out)[0]; a.TrainLoss == b.TrainLoss {
				t.Errorf("the first loss is %v with and without", a.TrainLoss)
			}
		})
	}
}

// Balanced is by the training part's rows, in memory as in a file of tokens.
func TestBalancedIsByTheTrainingPart(t *testing.T) {
	cfg := lossConfig(t, "classify")
	cfg.Loop.Weights, cfg.Data.CacheDir = "balanced", "none"
	mustRun(t, cfg, run.Refuse)
	kept := cfg
	kept.Data.CacheDir, kept.Output.Out = t.TempDir(), filepath.Join(t.TempDir(), "kept")
	mustRun(t, kept, run.Refuse)
	sameFigures(t, kept.Output.Out, cfg.Output.Out, 0, 0)
}

// Scores are of the targets as they are, and without noise: they are those of a run without any of it.
func TestScoresAreOfTheTargetsAsTheyAre(t *testing.T) {
	for _, task := range []string{"classify", "causal"} {
		t.Run(task, func(t *testing.T) {
			plain := lossConfig(t, task)
			plain.Loop.LR = 1e-30
			plain.Output.NoTrainEval = false
			want := mustRun(t, plain, run.Refuse)
			cfg := plain
			cfg.Output.Out = filepath.Join(t.TempDir(), "changed")
			cfg.Loop.Smoothing, cfg.Loop.NEFTune = 0.2, 5
			if task == "classify" {
				cfg.Loop.Weights = "1=3"
			}
			got := mustRun(t, cfg, run.Refuse)
			if got.Loss.Val != want.Loss.Val || got.Loss.Train != want.Loss.Train || math.IsNaN(float64(got.Loss.Val)) {
				t.Errorf("losses %+v, want %+v", got.Loss, want.Loss)
			}
			a, b := readMetrics(t, cfg.Output.Out), readMetrics(t, plain.Output.Out)
			val := func(r report.Row) float64 { return r.ValLoss }
			if !slices.Equal(finite(a, val), finite(b, val)) {
				t.Error("the losses on the validation part differ")
			}
		})
	}
}

func finite(rows []report.Row, get func(report.Row) float64) (out []float64) {
	for _, r := range rows {
		if v := get(r); !math.IsNaN(v) {
			out = append(out, v)
		}
	}
	return out
}

// Noise on embeddings goes on to the same bits, alone and in processes, and a setting of it cannot be changed midway.
func TestNoiseResumesToTheSameBits(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, config := range []func(*testing.T, string) run.Config{tinyConfig, packedConfig} {
		whole := config(t, "lora")
		whole.Loop.NEFTune, whole.Loop.GradAccum, whole.Output.NoTrainEval = 5, 2, true
		whole.Model.Dropout, whole.Peft.LoRADropout = 0.1, 0.1
		mustRun(t, whole, run.Refuse)
		cfg := whole
		cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
		interrupt(t, cfg, "train", 2)
		other := cfg
		other.Loop.NEFTune = 6
		if _, err := run.Run(context.Background(), other, run.Resume, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "neftune") {
			t.Errorf("resumed with other noise: %v", err)
		}
		mustRun(t, cfg, run.Resume)
		sameRun(t, comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out))

		shared := whole
		shared.Output.Out = filepath.Join(t.TempDir(), "shared")
		inRanks(t, shared, 2, rankPlan{})
		stopped := whole
		stopped.Output.Out = filepath.Join(t.TempDir(), "sharedstopped")
		inRanks(t, stopped, 2, rankPlan{StopRank: 1, StopStep: 2})
		inRanks(t, stopped, 2, rankPlan{Mode: run.Resume})
		sameRun(t, comparable(t, stopped.Output.Out), comparable(t, shared.Output.Out))
	}
}

func TestLossSettingsThatCannotBeRight(t *testing.T) {
	for _, c := range []struct {
		want string
		set  func(*run.Config)
	}{
		{"--label-smoothing is 1", func(c *run.Config) { c.Loop.Smoothing = 1 }},
		{"--label-smoothing is -0.1", func(c *run.Config) { c.Loop.Smoothing = -0.1 }},
		{"--label-smoothing is NaN", func(c *run.Config) { c.Loop.Smoothing = math.NaN() }},
		{"--neftune is -5", func(c *run.Config) { c.Loop.NEFTune = -5 }},
		{"--eval-every is -1", func(c *run.Config) { c.Loop.EvalEvery = -1 }},
		{"--eval-every needs validation data", func(c *run.Config) {
			c.Loop.EvalEvery, c.Data.Train, c.Data.Data, c.Data.Split = 1, c.Data.Data, "", nil
		}},
		{"--class-weights: the weight of", func(c *run.Config) { c.Loop.Weights = "1=0" }},
		{"--class-weights: label", func(c *run.Config) { c.Loop.Weights = "7=2" }},
		{"--class-weights goes with --task classify", func(c *run.Config) {
			c.Model.Task, c.Model.Path, c.Loop.Weights = "causal", modeltest.Testdata(t, "llama/base"), "balanced"
		}},
		{"--cache-features", func(c *run.Config) { c.Model.Method, c.Model.CacheStates, c.Loop.NEFTune = "last", true, 5 }},
		{"--class-weights: --method features", func(c *run.Config) { c.Model.Method, c.Loop.Weights = train.Features, "balanced" }},
	} {
		cfg := tinyConfig(t, "lora")
		c.set(&cfg)
		_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
		if usage := (*train.UsageError)(nil); !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one line of usage with %q", err, c.want)
		}
	}
}
