package main

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/model/modeltest"
)

func evalJSON(t *testing.T, args ...string) evaluatedText {
	t.Helper()
	stdout, _ := must(t, "", append([]string{"eval", "--task", "causal", "--json"}, args...)...)
	var e evaluatedText
	if err := json.Unmarshal([]byte(stdout), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEvalOfALanguageModel(t *testing.T) {
	tiny := modeltest.Testdata(t, "llama/base")
	path := writeText(t, "rows.jsonl", `{"input_ids": [1, 5, 9, 12, 20, 31, 7]}
{"input_ids": [2, 30, 7], "labels": [-100, -100, 7]}
{"input_ids": [1, 5]}
`)
	perRow := filepath.Join(t.TempDir(), "rows.jsonl")
	e := evalJSON(t, "--model", tiny, "--data", path, "--per-row", perRow)
	raw, err := os.ReadFile(perRow)
	if err != nil {
		t.Fatal(err)
	}
	rows := lines[scoredText](t, string(raw))
	sum, n := 0.0, 0
	for i, want := range []int{6, 1, 1} {
		if rows[i].Tokens != want || !(rows[i].NLL > 0) {
			t.Errorf("row %d: %+v", i+1, rows[i])
		}
		sum, n = sum+rows[i].NLL, n+rows[i].Tokens
	}
	if e.Rows != 3 || e.Targets != n || e.Tokens != 12 || math.Abs(e.Loss-sum/float64(n)) > 1e-9 || math.Abs(e.Perplexity-math.Exp(e.Loss)) > 1e-6 || !(e.TokensPerS > 0) {
		t.Errorf("%+v, rows sum to %v of %d", e, sum, n)
	}
	// Rows alone, and in the company of others, score the same.
	alone := evalJSON(t, "--model", tiny, "--data", path, "--batch-size", "1")
	if math.Abs(alone.Loss-e.Loss) > 1e-5 {
		t.Errorf("loss %v in batches, %v alone", e.Loss, alone.Loss)
	}
	// Virtual tokens come before the text and are no targets.
	for _, adapter := range []string{"peft/llama-causal-prompt", "peft/llama-causal-prefix", "peft/llama-causal-lora"} {
		if with := evalJSON(t, "--model", tiny, "--adapter", modeltest.Testdata(t, adapter), "--data", path); with.Targets != n || with.Loss == e.Loss {
			t.Errorf("%s: %+v", adapter, with)
		}
	}
}

func TestEvalAsTheRunWasTrained(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	base := modeltest.Shared(t, "models/llama-stories260k")
	data := writeText(t, "qa.csv", "q,a\n"+strings.Repeat("What is it?,#### 7\n", 12))
	out := filepath.Join(t.TempDir(), "run")
	must(t, "", "train", "--task", "causal", "--model", base, "--method", "full", "--train", data, "--val", data, "--template", "{q} -> {a}",
		"--epochs", "40", "--lr", "0.003", "--batch-size", "4", "--out", out, "--amp", "none", "--no-train-eval")
	raw, err := os.ReadFile(filepath.Join(out, "summary.json"))
	if err != nil {
		t.Fatal(err)
	}
	var sum struct {
		Loss struct {
			Val float64 `json:"val"`
		} `json:"loss"`
	}
	if err := json.Unmarshal(raw, &sum); err != nil {
		t.Fatal(err)
	}
	args := []string{"--model", out, "--data", data, "--match", `#### (-?[0-9,]+)`, "--max-new-tokens", "12"}
	stdout, _ := must(t, "", append([]string{"eval", "--json"}, args...)...) // the task is the run's
	var e evaluatedText
	if err := json.Unmarshal([]byte(stdout), &e); err != nil {
		t.Fatal(err)
	}
	if e.Match == nil || *e.Match != 1 || math.Abs(e.Loss-sum.Loss.Val) > 1e-4 {
		t.Errorf("%s, validation loss %v", stdout, sum.Loss.Val)
	}
	before := evalJSON(t, append([]string{"--template", "{q} -> {a}"}, append(args, "--model", base)...)...)
	if *before.Match != 0 || before.Loss <= e.Loss {
		t.Errorf("before training: %+v", before)
	}
}

func TestEvalRefuses(t *testing.T) {
	tiny := modeltest.Testdata(t, "llama/base")
	ids := writeText(t, "ids.jsonl", `{"input_ids": [1, 5]}`)
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, "--task", []string{"--model", tiny, "--data", ids, "--task", "regress"}},
		{exitUsage, "--match goes with --task causal", []string{"--model", tiny, "--data", ids, "--match", "x"}},
		{exitUsage, "--match", []string{"--model", tiny, "--data", ids, "--task", "causal", "--match", "("}},
		{exitUsage, "2 groups", []string{"--model", tiny, "--data", ids, "--task", "causal", "--match", "(a)(b)"}},
		{exitUsage, "--data is missing", []string{"--model", tiny, "--task", "causal"}},
		{exitFailed, "where its answer begins is not known", []string{"--model", tiny, "--data", ids, "--task", "causal", "--match", "x"}},
		{exitFailed, "does not write them", []string{"--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", ids, "--task", "causal"}},
		{exitFailed, "cannot read text", []string{"--model", tiny, "--data", writeText(t, "t.jsonl", `{"text": "x"}`), "--task", "causal"}},
		{exitFailed, "holds no rows", []string{"--model", tiny, "--data", writeText(t, "e.jsonl", ""), "--task", "causal"}},
	} {
		code, _, stderr := gopeft(t, "", append([]string{"eval"}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d, %s, want %d with %q", c.args, code, stderr, c.code, c.want)
		}
	}
}

func TestEvalCountsQuestionsWithoutRoomAsUnmatched(t *testing.T) {
	base := modeltest.Shared(t, "models/llama-stories260k")
	file := writeText(t, "qa.csv", "q,a\nWhat is it?,#### 7\n"+strings.Repeat("why ", 2000)+",#### 8\n")
	args := []string{"eval", "--task", "causal", "--model", base, "--data", file, "--template", "{q} -> {a}", "--match", `#### (-?[0-9,]+)`, "--max-new-tokens", "4"}
	perRow := filepath.Join(t.TempDir(), "rows.jsonl")
	stdout, stderr := must(t, "", append(args, "--json", "--per-row", perRow)...)
	var e evaluatedText
	if err := json.Unmarshal([]byte(stdout), &e); err != nil {
		t.Fatal(err)
	}
	if e.Rows != 2 || e.Match == nil || *e.Match != 0 || !strings.Contains(stderr, "1 questions are as long as the model's context") {
		t.Errorf("%s%s", stdout, stderr)
	}
	raw, err := os.ReadFile(perRow)
	if err != nil {
		t.Fatal(err)
	}
	if r := lines[scoredText](t, string(raw)); len(r) != 2 || r[1].Match == nil || *r[1].Match || *r[1].Answer != "" || *r[0].Answer == "" {
		t.Errorf("rows %s", raw)
	}
}

func TestEvalNeedsNoWaysToDraw(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"config.json", "model.safetensors"} {
		raw, err := os.ReadFile(filepath.Join(modeltest.Testdata(t, "llama/base"), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(`{"eos_token_id": 2, "do_sample": true, "top_k": -1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := evalJSON(t, "--model", dir, "--data", writeText(t, "ids.jsonl", `{"input_ids": [1, 5, 9]}`)); e.Rows != 1 {
		t.Errorf("%+v", e)
	}
	code, _, stderr := gopeft(t, `{"input_ids": [1]}`, "generate", "--model", dir, "--prompts", "-")
	if code != exitFailed || !strings.Contains(stderr, "generation_config.json") || !strings.Contains(stderr, "top-k is -1") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
