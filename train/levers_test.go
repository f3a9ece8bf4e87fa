package train_test

import (
	"context"
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
	rows := writeClasses(t, 700) // more tokens in a part than a pass takes
	for _, name := range []string{"distilbert/tiny", "llama/seqcls"} {
		for _, run := range []struct {
			method, amp string
			tol         float64
		}{{"full", "none", 1e-4}, {"lora", "none", 1e-4}, {"lora", "bf16", 0.03}} {
			cfg := tinyConfig(t, run.method)
			cfg.Model, cfg.Data, cfg.Dropout, cfg.AMP, cfg.Epochs = modeltest.Testdata(t, name), rows, 0, run.amp, 2
			cfg.Split, cfg.BatchSize, cfg.MaxTokens = []float64{0.4, 0.6}, 400, 2000 // evaluation takes up to twice as many tokens
			mustRun(t, cfg, train.Refuse)
			want := runLosses(t, cfg.Out)
			for _, lever := range train.Levers() {
				t.Run(strings.Join([]string{name, run.method, run.amp, lever}, "/"), func(t *testing.T) {
					cfg := cfg
					cfg.Without, cfg.Out = []string{lever}, filepath.Join(t.TempDir(), "without")
					mustRun(t, cfg, train.Refuse)
					got := runLosses(t, cfg.Out)
					if len(got) != len(want) || len(want) == 0 {
						t.Fatalf("%d losses, with it %d", len(got), len(want))
					}
					for i := range want {
						if math.Abs(got[i]-want[i]) > run.tol {
							t.Errorf("loss %d is %v, with it %v", i, got[i], want[i])
						}
					}
				})
			}
		}
	}
}

// runLosses is what metrics.csv says of them. Accuracies jump where rounding turns a tie.
func runLosses(t *testing.T, dir string) []float64 {
	t.Helper()
	rows, _, err := report.ReadMetrics(filepath.Join(dir, "metrics.csv"))
	if err != nil {
		t.Fatal(err)
	}
	var out []float64
	for _, r := range rows {
		for _, v := range []float64{r.TrainLoss, r.ValLoss} {
			if !math.IsNaN(v) {
				out = append(out, v)
			}
		}
	}
	return out
}

func TestUnknownLever(t *testing.T) {
	cfg := tinyConfig(t, "lora")
	cfg.Without = []string{"magic"}
	_, err := train.Run(context.Background(), cfg, train.Refuse, train.Quiet{})
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
		whole     bool
		want      int // batches
	}{
		{0, bindings.CPU, false, 16}, {0, bindings.CPU, true, 2}, {1024, bindings.CPU, false, 32}, {16384, bindings.CPU, false, 16}, {0, bindings.CUDA(0), false, 2},
	} {
		batches, err := train.EvalOrder(lengths, 32, c.maxTokens, c.dev, c.whole).Epoch(0)
		if err != nil || len(batches) != c.want {
			t.Errorf("%+v: %d batches, %v", c, len(batches), err)
		}
	}
}
