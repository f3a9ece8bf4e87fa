package run_test

import (
	"path/filepath"
	"testing"

	"gopeft/bindings"
	"gopeft/train/run"
)

const tiedLLaMA = `{"tie_word_embeddings": true, "model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
	"num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.1}`

// divided is a run that trains a model's own weights.
func divided(t *testing.T, method, config, task string) run.Config {
	cfg := tinyConfig(t, method)
	cfg.Model.Path, cfg.Model.Task = writeModel(t, config, task == "classify", bindings.Float), task
	cfg.Loop.Epochs, cfg.Loop.LR, cfg.Loop.BatchSize, cfg.Loop.LogEvery, cfg.Data.Limit, cfg.Model.Dropout = 1, 1e-3, 5, 1, 20, 0
	if task == "causal" {
		cfg.Data.Data, cfg.Data.MaxLength = writeSequences(t, 20), 24
	}
	return cfg
}

// Weights, gradients and the optimizer's state that processes hold in parts are trained to the bits of those that each holds
// whole, and leave the same files: with rows that are fewer than processes, recomputation, dropout, heads that are tables of
// their own and tied ones, and weights that stay frozen.
func TestDividedWeightsTrainToTheSameBits(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for i, c := range []struct {
		name, method, config, task string
		procs                      int
		change                     func(*run.Config)
	}{
		{"adam", "full", streamedDistilBERT, "classify", 2, func(c *run.Config) { c.Model.Dropout, c.Loop.WeightDecay = 0.1, 0.01 }},
		{"recomputed", "full", streamedLLaMA, "causal", 3, func(c *run.Config) {
			c.Loop.Optimizer, c.Loop.Momentum, c.Loop.Recompute, c.Loop.LR = "sgd", 0.9, true, 1e-2
		}},
		{"tied", "full", tiedLLaMA, "causal", 3, func(c *run.Config) { c.Loop.BatchSize, c.Loop.Optimizer = 2, "adamw" }},
		{"bf16", "full", streamedLLaMA, "classify", 2, func(c *run.Config) { c.Machine.AMP, c.Loop.Recompute = "bf16", true }},
		{"last", "last", streamedDistilBERT, "classify", 2, func(*run.Config) {}},
		{"head", "last", streamedLLaMA, "causal", 3, func(*run.Config) {}},
		{"some", "full", streamedLLaMA, "causal", 2, func(c *run.Config) { c.Peft.Unfreeze = []string{"layers.1", "q_proj", "lm_head"} }},
	} {
		if testing.Short() && i > 2 {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			cfg := divided(t, c.method, c.config, c.task)
			c.change(&cfg)
			t.Parallel() // behind what counts tensors
			inRanks(t, cfg, c.procs, rankPlan{})
			shared := cfg
			shared.Machine.Shard, shared.Output.Out = true, filepath.Join(t.TempDir(), "shared")
			inRanks(t, shared, c.procs, rankPlan{Says: "MiB of weights that they share"})
			sameRun(t, comparable(t, shared.Output.Out), comparable(t, cfg.Output.Out))
		})
	}
}

// One process trains to the same figures, also where passes are accumulated and gradients clipped, whose sums and norms are
// made of the parts.
func TestDividedWeightsTrainAsOneProcessDoes(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, c := range []struct {
		name        string
		procs       int
		weightTol   float64
		config, amp string
		change      func(*run.Config)
	}{
		{"sgd", 3, 1e-6, streamedDistilBERT, "none", func(c *run.Config) { c.Loop.Optimizer, c.Loop.LR = "sgd", 0.05 }},
		{"accumulated and clipped", 2, 1e-6, streamedDistilBERT, "none", func(c *run.Config) {
			c.Loop.Optimizer, c.Loop.LR, c.Loop.GradAccum, c.Loop.Clip = "sgd", 0.05, 2, 0.5
		}},
		{"adam", 2, 2e-5, streamedLLaMA, "none", func(c *run.Config) { c.Loop.GradAccum, c.Loop.Clip, c.Loop.LR = 2, 1, 1e-4 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := divided(t, "full", c.config, "classify")
			c.change(&cfg)
			mustRun(t, cfg, run.Refuse)
			shared := cfg
			shared.Machine.Shard, shared.Output.Out = true, filepath.Join(t.TempDir(), "shared")
			inRanks(t, shared, c.procs, rankPlan{})
			sameFigures(t, shared.Output.Out, cfg.Output.Out, 2e-6, c.weightTol)
		})
	}
}

// A run whose weights are divided goes on to the same bits by as many processes, and to the same figures by others, by one, or
// with its weights whole.
func TestDividedRunsResume(t *testing.T) {
	whole := divided(t, "full", streamedDistilBERT, "classify")
	whole.Machine.Shard, whole.Model.Dropout, whole.Loop.Epochs = true, 0.1, 2
	inRanks(t, whole, 2, rankPlan{})
	for i, shards := range [][2]bool{{true, true}, {true, false}, {false, true}} {
		cfg := whole
		cfg.Machine.Shard, cfg.Output.Out = shards[0], filepath.Join(t.TempDir(), "stopped")
		inRanks(t, cfg, 2, rankPlan{StopRank: i % 2, StopStep: 3})
		cfg.Machine.Shard = shards[1]
		inRanks(t, cfg, 2, rankPlan{Mode: run.Resume, Blind: true})
		sameRun(t, comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out))
	}
	whole.Model.Dropout, whole.Loop.Optimizer, whole.Loop.LR, whole.Output.Out = 0, "sgd", 0.05, filepath.Join(t.TempDir(), "alone")
	whole.Machine.Shard = false
	mustRun(t, whole, run.Refuse)
	cfg := whole
	cfg.Machine.Shard, cfg.Output.Out = true, filepath.Join(t.TempDir(), "changed")
	inRanks(t, cfg, 3, rankPlan{StopStep: 2})
	inRanks(t, cfg, 2, rankPlan{Mode: run.Resume, StopStep: 4})
	cfg.Machine.Shard = false
	mustRun(t, cfg, run.Resume)
	sameFigures(t, cfg.Output.Out, whole.Output.Out, 2e-6, 1e-6)
}

// A gradient that is not finite in the part of one process ends all, and no checkpoint is made of it.
func TestDividedGradientsThatAreNotFinite(t *testing.T) {
	cfg := divided(t, "full", streamedDistilBERT, "classify")
	cfg.Machine.Shard, cfg.Loop.Optimizer, cfg.Loop.LR = true, "sgd", 1e30
	inRanks(t, cfg, 2, rankPlan{Fails: "training is not finite"})
}

// What is refused to be divided, with the way out.
func TestWhatCannotBeDividedIsRefused(t *testing.T) {
	cfg := divided(t, "full", streamedDistilBERT, "classify")
	cfg.Model.Path, cfg.Machine.Shard = writeModel(t, streamedDistilBERT, true, bindings.BFloat16), true
	inRanks(t, cfg, 2, rankPlan{Refused: "save the model in fp32"})
}
