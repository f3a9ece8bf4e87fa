package run_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/train"
	"gopeft/train/run"
)

// writeQuantised is a model whose maps are quantised in its files.
func writeQuantised(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m, err := model.Load(s, path, model.Options{Quantise: hf.NF4})
		if err != nil {
			return err
		}
		return errors.Join(model.Save(s, dir, m), m.Close())
	})
	return dir
}

// What processes hold together is trained to the same bits as what each holds whole: with rows that do not divide by their
// number or are fewer, accumulation, recomputation, dropout, evaluations of any number of batches, and a head of its own.
func TestSharedWeightsTrainToTheSameBits(t *testing.T) {
	for _, c := range []struct {
		procs        int
		config, task string
		method       string
		file         bindings.DType
		amp          string
		nf4          bool
		batch, accum int
		recompute    bool
	}{
		{2, streamedDistilBERT, "classify", "lora", bindings.Float, "none", false, 5, 2, false},
		{3, streamedDistilBERT, "classify", "prefix", bindings.Float, "bf16", false, 2, 2, true},
		{3, streamedDistilBERT, "classify", "lora", bindings.Float, "none", true, 1, 3, false},
		{2, streamedLLaMA, "causal", "lora", bindings.BFloat16, "bf16", false, 3, 1, true},
		{3, streamedLLaMA, "causal", "llama-adapter", bindings.Float, "none", false, 4, 2, false},
		{2, streamedLLaMA, "causal", "lora", bindings.BFloat16, "bf16", true, 1, 2, true},
		{2, streamedLLaMA, "classify", "houlsby", bindings.Half, "bf16", false, 5, 1, true},
		{2, strings.Replace(streamedLLaMA, "{", `{"tie_word_embeddings": true, `, 1), "causal", "bitfit", bindings.Float, "none", false, 3, 1, false},
	} {
		if testing.Short() && c.procs == 2 && c.task == "classify" {
			continue
		}
		t.Run(fmt.Sprintf("%+v", c)[:60], func(t *testing.T) {
			cfg := tinyConfig(t, c.method)
			cfg.Model.Path, cfg.Model.Task, cfg.Model.BaseDType, cfg.Machine.AMP = writeModel(t, c.config, c.task == "classify", c.file), c.task, train.BaseDTypeName(c.file), c.amp
			if c.nf4 {
				cfg.Model.Path = writeQuantised(t, cfg.Model.Path)
				cfg.Model.BaseDType = "auto"
			}
			t.Parallel() // behind what counts tensors
			cfg.Loop.BatchSize, cfg.Loop.Epochs, cfg.Loop.GradAccum, cfg.Loop.Recompute, cfg.Loop.LogEvery = c.batch, 1, c.accum, c.recompute, 1
			cfg.Data.Limit, cfg.Model.Dropout = 20, 0.1
			if c.task == "causal" {
				cfg.Data.Data, cfg.Data.MaxLength = writeSequences(t, 20), 24
			}
			inRanks(t, cfg, c.procs, rankPlan{})
			shared := cfg
			shared.Machine.Shard, shared.Output.Out = true, filepath.Join(t.TempDir(), "shared")
			inRanks(t, shared, c.procs, rankPlan{Says: "frozen weights that they share"})
			sameRun(t, comparable(t, shared.Output.Out), comparable(t, cfg.Output.Out))
		})
	}
}

// A run goes on with its weights held together, or no longer, by any number of processes.
func TestSharedRunsResume(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	whole := tinyConfig(t, "lora")
	whole.Model.Path, whole.Model.Dropout, whole.Loop.BatchSize, whole.Loop.ShardState = writeModel(t, streamedDistilBERT, true, bindings.Float), 0.1, 5, true
	inRanks(t, whole, 2, rankPlan{})
	for i, shards := range [][2]bool{{true, false}, {false, true}} {
		cfg := whole
		cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
		cfg.Machine.Shard, cfg.Loop.ShardState = shards[0], shards[0]
		inRanks(t, cfg, 2, rankPlan{StopRank: i, StopStep: 3})
		cfg.Machine.Shard, cfg.Loop.ShardState = shards[1], shards[1]
		inRanks(t, cfg, 2, rankPlan{Mode: run.Resume, Blind: true})
		sameRun(t, comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out))
	}
	// By SGD: Adam makes steps of a gradient's last digits where it is all but zero.
	whole.Model.Dropout, whole.Loop.Optimizer, whole.Loop.LR, whole.Output.Out = 0, "sgd", 0.05, filepath.Join(t.TempDir(), "alone")
	mustRun(t, whole, run.Refuse)
	cfg := whole
	cfg.Machine.Shard, cfg.Output.Out = true, filepath.Join(t.TempDir(), "changed")
	inRanks(t, cfg, 3, rankPlan{StopStep: 3})
	inRanks(t, cfg, 2, rankPlan{Mode: run.Resume})
	sameFigures(t, cfg.Output.Out, whole.Output.Out, 2e-6, 1e-6)
}

// With the optimizer's state in parts, weights and checkpoints are the same bits, whatever the optimizer.
func TestSharedOptimizerTrainsToTheSameBits(t *testing.T) {
	for i, c := range []struct {
		procs             int
		method, optimizer string
		change            func(*run.Config)
	}{
		{2, "full", "adam", func(c *run.Config) { c.Loop.Clip, c.Loop.WeightDecay = 1, 0.01 }},
		{3, "full", "sgd", func(c *run.Config) { c.Loop.Momentum = 0.9 }},
		{3, "lora", "adamw", func(c *run.Config) { c.Machine.Without, c.Loop.WeightDecay = train.Levers{train.LeverOptimizer}, 0.1 }},
		{2, "last", "sgd", func(*run.Config) {}},
	} {
		if testing.Short() && i > 1 {
			continue
		}
		t.Run(c.method+"/"+c.optimizer, func(t *testing.T) {
			t.Parallel()
			cfg := tinyConfig(t, c.method)
			cfg.Loop.Optimizer, cfg.Loop.BatchSize, cfg.Loop.LR, cfg.Output.NoTrainEval = c.optimizer, 5, 1e-3, true
			c.change(&cfg)
			inRanks(t, cfg, c.procs, rankPlan{})
			shared := cfg
			shared.Loop.ShardState, shared.Output.Out = true, filepath.Join(t.TempDir(), "shared")
			inRanks(t, shared, c.procs, rankPlan{})
			sameRun(t, comparable(t, shared.Output.Out), comparable(t, cfg.Output.Out))
			stopped := shared
			stopped.Output.Out = filepath.Join(t.TempDir(), "stopped")
			inRanks(t, stopped, c.procs, rankPlan{StopRank: 1, StopStep: 4})
			inRanks(t, stopped, c.procs, rankPlan{Mode: run.Resume, Blind: true})
			sameRun(t, comparable(t, stopped.Output.Out), comparable(t, cfg.Output.Out))
		})
	}
}

func TestWhatCannotBeSharedIsRefused(t *testing.T) {
	float := writeModel(t, streamedDistilBERT, true, bindings.Float)
	for _, c := range []struct {
		name   string
		change func(*run.Config)
		says   string
	}{
		{"other dtype", func(c *run.Config) { c.Model.BaseDType = "bf16" }, "--base-dtype fp32"},
		{"quantised at load", func(c *run.Config) { c.Model.Quantize = "nf4" }, "--quantize nf4"},
		{"copied", func(c *run.Config) { c.Machine.Without = train.Levers{train.LeverMapping} }, "--without mapping"},
		{"streamed too", func(c *run.Config) { c.Machine.Stream = true }, "--stream-weights"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := tinyConfig(t, "lora")
			cfg.Model.Path, cfg.Machine.Shard = float, true
			c.change(&cfg)
			inRanks(t, cfg, 2, rankPlan{Refused: c.says})
		})
	}
	alone := tinyConfig(t, "lora")
	alone.Machine.Shard, alone.Loop.ShardState, alone.Loop.MaxSteps = true, true, 1
	ui := &notes{}
	if _, err := run.Run(t.Context(), alone, run.Refuse, ui); err != nil || strings.Count(ui.text, "there are no other processes") != 2 {
		t.Errorf("%v: %s", err, ui.text)
	}
}
