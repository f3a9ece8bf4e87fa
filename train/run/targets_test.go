package run_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/infer"
	"gopeft/train/report"
	"gopeft/train/run"
)

// writeTargetRows makes rows whose targets can be learned: which of three tokens a row holds decides a number, and each of
// them gives a label.
func writeTargetRows(t *testing.T, task string, n int) string {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	var b bytes.Buffer
	for range n {
		ids := make([]int, 4+r.IntN(4))
		for i := range ids {
			ids[i] = 20 + r.IntN(25)
		}
		number, labels := 0.0, []string{}
		for k := range 3 {
			if ids[1+k] = 13 + k; r.IntN(2) == 0 {
				ids[1+k], labels, number = 10+k, append(labels, string(rune('a'+k))), number+float64(k)-0.75
			}
		}
		row := map[string]any{"input_ids": ids, "labels": labels}
		if task == train.TaskRegression {
			row = map[string]any{"input_ids": ids, "score": number}
		}
		raw, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(raw, '\n'))
	}
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func targetConfig(t *testing.T, task, method string) run.Config {
	cfg := tinyConfig(t, method)
	cfg.Model.Task, cfg.Data.Data = task, writeTargetRows(t, task, 160)
	return cfg
}

var targetTasks = []string{train.TaskRegression, train.TaskMultiLabel}

func TestTargetsAreLearned(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, task := range targetTasks {
		cfg := targetConfig(t, task, "full")
		cfg.Data.Data = writeTargetRows(t, task, 500)
		cfg.Loop.Epochs, cfg.Loop.LR, cfg.Model.Dropout, cfg.Output.NoTrainEval = 20, 2e-3, 0, true
		sum := mustRun(t, cfg, run.Refuse)
		score, most := sum.Scores["r2"].Test, "val_loss"
		if task == train.TaskMultiLabel {
			score, most = sum.Scores["micro_f1"].Test, "val_micro_f1"
		}
		if !(score > 0.8) {
			t.Errorf("%s: learned little: %+v", task, sum.Scores)
		}
		// The best checkpoint is the best by the task's own score.
		rows, extra, err := report.ReadMetrics(filepath.Join(cfg.Output.Out, "metrics.csv"))
		if err != nil {
			t.Fatal(err)
		}
		best, value := 0, math.Inf(-1)
		epoch := 0
		for _, r := range rows {
			if math.IsNaN(r.ValLoss) {
				continue
			}
			epoch++
			v := -r.ValLoss
			if most != "val_loss" {
				v = r.Extra[most]
			}
			if v > value {
				best, value = epoch, v
			}
		}
		if sum.BestEpoch != best {
			t.Errorf("%s: the best epoch is %d, by %s it is %d (columns %v)", task, sum.BestEpoch, most, best, extra)
		}
		if task == train.TaskMultiLabel && sum.Accuracy.Test != sum.Scores["subset_accuracy"].Test {
			t.Errorf("accuracy %v is not that of whole rows, %v", sum.Accuracy, sum.Scores)
		}
	}
}

func TestTargetsResumeAndInProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, task := range targetTasks {
		whole := targetConfig(t, task, "lora")
		whole.Peft.LoRADropout, whole.Loop.EvalEvery = 0.1, 4
		mustRun(t, whole, run.Refuse)
		cfg := whole
		cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
		interrupt(t, cfg, "train", 5)
		mustRun(t, cfg, run.Resume)
		sameRun(t, comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out))

		alone := targetConfig(t, task, "lora")
		alone.Model.Dropout, alone.Loop.Optimizer, alone.Loop.LR, alone.Loop.GradAccum, alone.Output.NoTrainEval = 0, "sgd", 0.05, 2, true
		mustRun(t, alone, run.Refuse)
		shared := alone
		shared.Output.Out = filepath.Join(t.TempDir(), "shared")
		inRanks(t, shared, 3, rankPlan{})
		sameFigures(t, shared.Output.Out, alone.Output.Out, 2e-6, 1e-6)
		a, b := readMetrics(t, shared.Output.Out), readMetrics(t, alone.Output.Out)
		for i := range a {
			for name, v := range b[i].Extra {
				if math.Abs(a[i].Extra[name]-v) > 1e-5 {
					t.Errorf("%s is %v in three processes, %v in one", name, a[i].Extra[name], v)
				}
			}
		}
	}
}

// What is saved says what its head scores: to transformers in config.json, to gopeft beside an adapter; and predictions are
// read so.
func TestSavedTargetsSayWhatTheyAre(t *testing.T) {
	for _, task := range targetTasks {
		for _, family := range []string{"distilbert/tiny", "llama/base"} {
			for _, method := range []string{"full", "lora"} {
				t.Run(strings.Join([]string{task, family, method}, "/"), func(t *testing.T) {
					cfg := targetConfig(t, task, method)
					cfg.Model.Path, cfg.Loop.Epochs, cfg.Output.NoTrainEval = modeltest.Testdata(t, family), 1, true
					sum := mustRun(t, cfg, run.Refuse)
					best := filepath.Join(cfg.Output.Out, "best")
					problem := train.ProblemOf(task)
					if method == "full" {
						raw, err := os.ReadFile(filepath.Join(best, "config.json"))
						if want := fmt.Sprintf(`"problem_type": %q`, problem); err != nil || !strings.Contains(string(raw), want) {
							t.Errorf("config.json lacks %s: %v", want, err)
						}
					} else if info, err := peft.Probe(best); err != nil || info.Problem != problem {
						t.Errorf("the adapter says %q (%v), want %q", info.Problem, err, problem)
					}
					base := bindings.Live()
					err := bindings.Do(context.Background(), func(s *bindings.Scope) error {
						src, err := infer.Resolve(cfg.Output.Out, "")
						if err != nil {
							return err
						}
						p, err := infer.OpenPredictor(s, src, infer.PredictorOptions{Device: "cpu", Batch: 4})
						if err != nil {
							return err
						}
						defer p.Close()
						want := []string{"score"}
						if task == train.TaskMultiLabel {
							want = []string{"a", "b", "c"}
						}
						if p.Problem() != problem || !slices.Equal(p.Labels, want) {
							t.Errorf("the predictor scores %q, labels %v", p.Problem(), p.Labels)
						}
						got, err := p.Predict(context.Background(), s, [][]int64{{5, 6, 7}, {8, 9}})
						if err != nil {
							return err
						}
						for _, r := range got {
							if len(r.Logits) != len(want) || (r.Probs == nil) != (problem == model.Regression) {
								t.Errorf("predicted %+v", r)
							}
							for k, x := range r.Logits {
								if problem == model.AnyLabels && slices.Contains(r.Chosen, k) != (x > 0) {
									t.Errorf("chosen are %v of %v", r.Chosen, r.Logits)
								}
							}
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
					if n := bindings.Live() - base; n != 0 {
						t.Errorf("%d tensors left alive", n)
					}
					if len(sum.Scores) == 0 {
						t.Error("no scores")
					}
				})
			}
		}
	}
}

// An adapter of one task is not gone on from for another, and its labels decide the order.
func TestTargetsGoOnFromAnAdapter(t *testing.T) {
	first := targetConfig(t, train.TaskMultiLabel, "lora")
	first.Loop.Epochs, first.Output.NoTrainEval = 1, true
	mustRun(t, first, run.Refuse)
	next := first
	next.Model.AdapterInit, next.Output.Out = filepath.Join(first.Output.Out, "best"), filepath.Join(t.TempDir(), "next")
	mustRun(t, next, run.Refuse)
	other := targetConfig(t, train.TaskRegression, "lora")
	other.Model.AdapterInit = next.Model.AdapterInit
	if _, err := run.Run(context.Background(), other, run.Refuse, train.Quiet{}); err == nil {
		t.Error("regression goes on from a multi-label head")
	}
}

func TestTargetSettingsThatCannotBeRight(t *testing.T) {
	for _, c := range []struct {
		task, want string
		set        func(*run.Config)
	}{
		{train.TaskRegression, "--label-smoothing", func(c *run.Config) { c.Loop.Smoothing = 0.1 }},
		{train.TaskMultiLabel, "--label-smoothing", func(c *run.Config) { c.Loop.Smoothing = 0.1 }},
		{train.TaskRegression, "--class-weights", func(c *run.Config) { c.Loop.Weights = "balanced" }},
		{train.TaskMultiLabel, "--class-weights", func(c *run.Config) { c.Loop.Weights = "balanced" }},
		{train.TaskRegression, "--stratify", func(c *run.Config) { c.Data.Stratify = true }},
		{train.TaskRegression, "--method features", func(c *run.Config) { c.Model.Method = train.Features }},
		{train.TaskRegression, "--monitor", func(c *run.Config) { c.Loop.Monitor = "val_acc" }},
		{train.TaskMultiLabel, "--monitor", func(c *run.Config) { c.Loop.Monitor = "val_r2" }},
		{train.TaskRegression, "--pack", func(c *run.Config) { c.Data.Pack = true }},
		{train.TaskRegression, "--cache-features", func(c *run.Config) { c.Model.Method, c.Model.CacheStates = "last", true }},
		{"ranking", "--task", func(*run.Config) {}},
	} {
		cfg := targetConfig(t, c.task, "lora")
		c.set(&cfg)
		_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
		if usage := (*train.UsageError)(nil); !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line of usage with %q", c.task, err, c.want)
		}
	}
}
