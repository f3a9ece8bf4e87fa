package main

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/model/modeltest"
)

// targetRows writes rows of token ids with a number, with labels, and with columns of 0 and 1.
func targetRows(t *testing.T, n int) (path, text string) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	for range n {
		ids := []int{1}
		var labels []string
		for k := range 2 {
			if r.IntN(2) == 0 {
				ids, labels = append(ids, 10+k), append(labels, []string{"rude", "loud"}[k])
			}
		}
		for range 3 + r.IntN(8) {
			ids = append(ids, 20+r.IntN(25))
		}
		row := map[string]any{"input_ids": ids, "score": 1.5 * float64(len(labels)), "weight": len(ids), "labels": append([]string{}, labels...), "is_rude": slices.Contains(labels, "rude"), "is_loud": slices.Contains(labels, "loud")}
		raw, err := json.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(raw, '\n'))
	}
	path = filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, b.String()
}

// What train says of its test part, eval says of the same rows; predict gives a line for each, in their form.
func TestTrainPredictEvalTargets(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	path, text := targetRows(t, 120)
	for _, c := range []struct{ model, method, task, column string }{
		{"distilbert/tiny", "lora", "regression", "score"}, {"distilbert/tiny", "full", "regression", "score,weight"}, {"llama/seqcls", "lora", "regression", "score"},
		{"distilbert/tiny", "lora", "multi-label", "labels"}, {"distilbert/tiny", "full", "multi-label", "is_loud,is_rude"}, {"llama/seqcls", "full", "multi-label", "labels"},
		{"distilbert/tiny", "pfeiffer", "multi-label", "labels"}, {"distilbert/tiny", "prompt", "regression", "score"},
	} {
		t.Run(strings.Join([]string{c.model, c.method, c.task}, " "), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "run")
			stdout, _ := must(t, "", "train", "--task", c.task, "--model", modeltest.Testdata(t, c.model), "--method", c.method, "--train", path, "--val", path, "--test", path,
				"--label-column", c.column, "--out", out, "--epochs", "1", "--amp", "none", "--json", "--threads", "1", "--no-train-eval")
			var sum struct {
				Loss   struct{ Test float64 }
				Scores map[string]struct{ Test *float64 }
			}
			if err := json.Unmarshal([]byte(stdout), &sum); err != nil || len(sum.Scores) == 0 {
				t.Fatalf("%v: %s", err, stdout)
			}
			perRow := filepath.Join(t.TempDir(), "rows.jsonl")
			stdout, _ = must(t, "", "eval", "--model", out, "--data", path, "--threads", "1", "--json", "--per-row", perRow)
			var e struct {
				Task   string
				Rows   int
				Loss   float64
				Scores map[string]*float64
				Labels []string
			}
			if err := json.Unmarshal([]byte(stdout), &e); err != nil {
				t.Fatal(err)
			}
			if e.Task != c.task || e.Rows != 120 || math.Abs(e.Loss-sum.Loss.Test) > 1e-5 || len(e.Scores) != len(sum.Scores) {
				t.Errorf("eval says %s, train %+v", stdout, sum)
			}
			for name, want := range sum.Scores {
				got := e.Scores[name]
				if (got == nil) != (want.Test == nil) || got != nil && math.Abs(*got-*want.Test) > 1e-4 {
					t.Errorf("%s is %v, train says %v", name, got, want.Test)
				}
			}
			if raw, err := os.ReadFile(perRow); err != nil || strings.Count(string(raw), "\n") != 120 {
				t.Errorf("--per-row: %v", err)
			}
			for _, model := range [][]string{{"--model", out}, {"--adapter", filepath.Join(out, "best"), "--model", modeltest.Testdata(t, c.model)}} {
				if c.method == "full" && model[0] == "--adapter" {
					model = []string{"--model", filepath.Join(out, "best")} // no run, whose settings tell
				}
				lines, _ := must(t, text, slices.Concat([]string{"predict", "--data", "-", "--threads", "1", "--batch-size", "7"}, model)...)
				for _, line := range strings.Split(strings.TrimSpace(lines), "\n") {
					var p predicted
					if err := json.Unmarshal([]byte(line), &p); err != nil {
						t.Fatal(err)
					}
					if c.task == "regression" && (len(p.Values) != len(e.Labels) || p.Labels != nil || p.Label != "" || p.Probs != nil) ||
						c.task == "multi-label" && (p.Labels == nil || len(p.Probs) != 2 || p.Label != "") {
						t.Fatalf("predicted %s", line)
					}
					if p.Labels != nil {
						for name, prob := range p.Probs {
							if slices.Contains(*p.Labels, name) != (prob > 0.5) {
								t.Errorf("labels %v of %v", *p.Labels, p.Probs)
							}
						}
					}
				}
			}
			if c.method == "lora" {
				merged := filepath.Join(t.TempDir(), "merged")
				must(t, "", "merge", "--model", modeltest.Testdata(t, c.model), "--adapter", filepath.Join(out, "best"), "--data", path, "--out", merged)
				stdout, _ := must(t, "", "eval", "--model", merged, "--data", path, "--label-column", c.column, "--json", "--threads", "1")
				if !strings.Contains(stdout, fmt.Sprintf("%q", c.task)) {
					t.Errorf("merged, it is no %s: %s", c.task, stdout)
				}
			}
			if stdout, _ := must(t, "", "inspect", "--model", out); !strings.Contains(stdout, c.task) {
				t.Errorf("inspect does not say %s: %s", c.task, stdout)
			}
		})
	}
}

func TestCompareTargets(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	t.Setenv("GOPEFT_TEST_PROGRAM", "1")
	path, _ := targetRows(t, 60)
	for _, c := range []struct{ task, label, column string }{{"regression", "score", "test_loss"}, {"multi-label", "labels", "test_acc"}} {
		task, column := c.task, c.column
		out := filepath.Join(t.TempDir(), "compare")
		must(t, "", "compare", "--task", task, "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", path, "--label-column", c.label, "--methods", "lora,last", "--epochs", "1", "--threads", "1", "--out", out, "--quiet")
		raw, err := os.ReadFile(filepath.Join(out, "compare.csv"))
		if err != nil || !strings.Contains(string(raw), column) || strings.Count(string(raw), "\n") != 3 {
			t.Errorf("%s: %v: %s", task, err, raw)
		}
	}
}

func TestTargetsThatAreNone(t *testing.T) {
	tiny := modeltest.Testdata(t, "distilbert/tiny")
	for _, c := range []struct {
		task, row, want string
	}{
		{"regression", `{"input_ids": [1, 2], "label": "high"}`, `target "high" is no number`},
		{"regression", `{"input_ids": [1, 2], "label": "NaN"}`, "a finite number is wanted"},
		{"multi-label", `{"input_ids": [1, 2], "labels": {"a": 1}}`, "an object"},
		{"multi-label", `{"input_ids": [1, 2], "labels": []}`, "no row has a label"},
	} {
		file := writeText(t, "rows.jsonl", strings.Repeat(c.row+"\n", 20))
		code, _, stderr := gopeft(t, "", "train", "--task", c.task, "--model", tiny, "--method", "lora", "--train", file, "--out", filepath.Join(t.TempDir(), "run"), "--quiet")
		if code != exitFailed || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, %s, want %q", fmt.Sprint(c), code, stderr, c.want)
		}
	}
}
