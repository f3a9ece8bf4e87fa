package run_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/report"
	"gopeft/train/run"
)

func TestCachedFeaturesLearnTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, name := range []string{"distilbert/tiny", "llama/seqcls"} {
		t.Run(name, func(t *testing.T) {
			cfg := tinyConfig(t, "last")
			cfg.Model.Path, cfg.Data.Data, cfg.Model.Dropout, cfg.Loop.Epochs = modeltest.Testdata(t, name), fewIDs(t), 0, 3
			mustRun(t, cfg, run.Refuse)
			want := learned(t, cfg.Output.Out)

			cfg.Model.CacheStates, cfg.Output.Out = true, filepath.Join(t.TempDir(), "cached")
			heard := &listener{}
			if _, err := run.Run(context.Background(), cfg, run.Refuse, heard); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(heard.text, "dropout off") {
				t.Errorf("that dropout is off was not said: %s", heard.text)
			}
			got := learned(t, cfg.Output.Out)
			if len(got) != len(want) || len(want) == 0 {
				t.Fatalf("%d figures, without the cache %d", len(got), len(want))
			}
			for i := range want {
				if math.Abs(got[i]-want[i]) > 1e-4 {
					t.Errorf("figure %d is %v, without the cache %v", i, got[i], want[i])
				}
			}
		})
	}
}

func TestCachedFeaturesResume(t *testing.T) {
	whole := tinyConfig(t, "last")
	whole.Model.CacheStates, whole.Model.Dropout = true, 0.1
	mustRun(t, whole, run.Refuse)
	cfg := whole
	cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
	interrupt(t, cfg, "train", 5)
	mustRun(t, cfg, run.Resume)
	sameRun(t, comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out))
}

func TestCachedFeaturesNeedAFrozenModel(t *testing.T) {
	for _, set := range []func(*run.Config){
		func(c *run.Config) { c.Model.Method = "lora" },
		func(c *run.Config) { c.Model.Task = "causal" },
		func(c *run.Config) { c.Peft.Unfreeze = []string{"layer.1"} },
	} {
		cfg := tinyConfig(t, "last")
		cfg.Model.CacheStates = true
		set(&cfg)
		if _, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "--cache-features") {
			t.Errorf("got %v", err)
		}
	}
}

// fewIDs makes rows whose token ids every tiny model has.
func fewIDs(t *testing.T) string {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	var b strings.Builder
	for i := range 90 {
		ids := make([]string, 4+r.IntN(8))
		for k := range ids {
			ids[k] = strconv.Itoa(3 + r.IntN(40))
		}
		fmt.Fprintf(&b, "{\"input_ids\": [%s], \"label\": %d}\n", strings.Join(ids, ", "), i%3)
	}
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// learned is what metrics.csv says of losses and accuracies.
func learned(t *testing.T, dir string) []float64 {
	t.Helper()
	rows, _, err := report.ReadMetrics(filepath.Join(dir, "metrics.csv"))
	if err != nil {
		t.Fatal(err)
	}
	var out []float64
	for _, r := range rows {
		for _, v := range []float64{r.TrainLoss, r.TrainAcc, r.EpochTrainLoss, r.EpochTrainAcc, r.ValLoss, r.ValAcc} {
			if !math.IsNaN(v) {
				out = append(out, v)
			}
		}
	}
	return out
}

// listener keeps what a run says.
type listener struct {
	train.Quiet
	text string
}

func (l *listener) Note(format string, _ ...any) { l.text += format + "\n" }
