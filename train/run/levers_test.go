package run_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/report"
	"gopeft/train/run"
)

// writeClasses makes rows of ids that every tiny model knows, whose class is their first token.
func writeClasses(t *testing.T, n int) string {
	t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"input_ids\": [%d, 5, 6, %d, 7, 8, %d, 9, 10, %d, 11], \"label\": %d}\n", 3+i%3, 12+i%7, 12+i%5, 12+i%11, i%3)
	}
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A run without a means of speed learns what one with it does.
func TestLeversChangeNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	rows := writeClasses(t, 700) // more tokens in a part than a pass takes
	for _, run := range []struct {
		model, task, method, optimizer, amp string
		tol                                 float64
	}{
		{"distilbert/tiny", "classify", "full", "adam", "none", 1e-4},
		{"distilbert/tiny", "classify", "lora", "adam", "none", 1e-4},
		{"distilbert/tiny", "classify", "lora", "adam", "bf16", 0.03},
		{"llama/seqcls", "classify", "full", "adam", "none", 1e-4},
		{"llama/seqcls", "classify", "lora", "adam", "none", 1e-4},
		{"llama/seqcls", "classify", "lora", "adam", "bf16", 0.03},
		{"llama/base", "causal", "full", "adamw", "none", 1e-4},
		{"llama/base", "causal", "lora", "adamw", "bf16", 0.03},
	} {
		cfg := tinyConfig(t, run.method)
		cfg.Model.Path, cfg.Data.Data, cfg.Model.Dropout, cfg.Loop.Epochs = t.TempDir(), rows, 0, 2 // a folder of its own, to be known by where it is mapped
		if err := os.CopyFS(cfg.Model.Path, os.DirFS(modeltest.Testdata(t, run.model))); err != nil {
			t.Fatal(err)
		}
		cfg.Model.Task, cfg.Machine.AMP, cfg.Loop.Optimizer, cfg.Loop.WeightDecay = run.task, run.amp, run.optimizer, 0.1
		cfg.Data.Split, cfg.Loop.BatchSize, cfg.Loop.MaxTokens = []float64{0.4, 0.6}, 400, 2000 // evaluation takes up to twice as many tokens
		want, wantBits := runLosses(t, cfg, true)
		for _, lever := range train.AllLevers() {
			t.Run(strings.Join([]string{run.model, run.task, run.method, run.amp, lever}, "/"), func(t *testing.T) {
				cfg := cfg
				cfg.Machine.Without, cfg.Output.Out = []string{lever}, filepath.Join(t.TempDir(), "without")
				got, bits := runLosses(t, cfg, lever != train.LeverMapping)
				if len(got) != len(want) || len(want) == 0 {
					t.Fatalf("%d losses, with it %d", len(got), len(want))
				}
				for i := range want {
					if math.Abs(got[i]-want[i]) > run.tol {
						t.Errorf("loss %d is %v, with it %v", i, got[i], want[i])
					}
				}
				// libtorch 2.1 has no fused step on CPUs.
				rounds := lever == train.LeverChunks && run.task == "causal" || lever == train.LeverOptimizer && !strings.HasPrefix(bindings.Version(), "2.1.")
				switch same := bytes.Equal(bits, wantBits); {
				case rounds && same:
					t.Error("the same bits as with it: nothing else was computed")
				case lever == train.LeverOverlap && !same: // so that other bits say that something else was computed
					t.Error("other bits than with it")
				}
			})
		}
	}
}

// runLosses runs cfg, and gives its losses and the weights it ends with. While it trains, the model's file is to be
// mapped or not.
func runLosses(t *testing.T, cfg run.Config, mapped bool) (losses []float64, weights []byte) {
	t.Helper()
	ui, base := &mapsUI{folder: cfg.Model.Path}, bindings.Live()
	if _, err := run.Run(t.Context(), cfg, run.Refuse, ui); err != nil {
		t.Fatal(err)
	}
	if n := bindings.Live() - base; n != 0 {
		t.Errorf("%d tensors left alive", n)
	}
	if ui.err != nil || ui.steps == 0 || ui.mapped != mapped {
		t.Errorf("the model is mapped: %t, want %t (%d steps seen, %v)", ui.mapped, mapped, ui.steps, ui.err)
	}
	files, err := filepath.Glob(filepath.Join(cfg.Output.Out, "last", "*model.safetensors"))
	if err != nil || len(files) != 1 {
		t.Fatalf("weights in %v, %v", files, err)
	}
	if weights, err = os.ReadFile(files[0]); err != nil {
		t.Fatal(err)
	}
	return readLosses(t, cfg.Output.Out), weights
}

// readLosses is what a run's metrics.csv says of losses. Accuracies jump where rounding turns a tie.
func readLosses(t *testing.T, dir string) []float64 {
	t.Helper()
	rows, _, err := report.ReadMetrics(filepath.Join(dir, "metrics.csv"))
	if err != nil {
		t.Fatal(err)
	}
	var losses []float64
	for _, r := range rows {
		for _, v := range []float64{r.TrainLoss, r.EpochTrainLoss, r.ValLoss} {
			if !math.IsNaN(v) {
				losses = append(losses, v)
			}
		}
	}
	return losses
}

// mapsUI notes whether a file of a folder is mapped into the process while it trains.
type mapsUI struct {
	train.Quiet
	folder string
	steps  int
	mapped bool
	err    error
}

func (u *mapsUI) Progress(phase string, _, _ int, _ string) {
	if phase != "train" {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	u.steps++
	u.mapped = u.mapped || strings.Contains(string(maps), u.folder)
	u.err = errors.Join(u.err, err)
}

func TestUnknownLever(t *testing.T) {
	cfg := tinyConfig(t, "lora")
	cfg.Machine.Without = []string{"magic"}
	_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
	if err == nil || !strings.Contains(err.Error(), `--without "magic"`) {
		t.Errorf("got %v", err)
	}
}

func TestEvalOrderBoundsAPass(t *testing.T) {
	lengths := make([]int, 64)
	for i := range lengths {
		lengths[i] = 512
	}
	for _, c := range []struct {
		maxTokens int
		dev       bindings.Device
		without   train.Levers
		want      int // batches
	}{
		{0, bindings.CPU, nil, 16}, {0, bindings.CPU, train.Levers{train.LeverPasses}, 2}, {1024, bindings.CPU, nil, 32}, {16384, bindings.CPU, nil, 16}, {0, bindings.CUDA(0), nil, 2},
	} {
		batches, err := train.EvalOrder(lengths, 32, c.maxTokens, train.Machine{Device: c.dev, Without: c.without}).Epoch(0)
		if err != nil || len(batches) != c.want {
			t.Errorf("%+v: %d batches, %v", c, len(batches), err)
		}
	}
}
