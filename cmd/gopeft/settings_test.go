package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopeft/model/modeltest"
)

// Settings that would pass without a word, or with a misleading one, are one clear line.
func TestSettingsThatMislead(t *testing.T) {
	tiny, lm := modeltest.Testdata(t, "distilbert/tiny"), modeltest.Testdata(t, "llama/base")
	data, _ := tokenRows(t, 30)
	train := "train --model " + tiny + " --data " + data + " --out " + t.TempDir() + "/run "
	begun := time.Now()
	for args, want := range map[string]string{
		train + "--method lora --rank 0":                          "--rank is 0, want a positive number; leave it out",
		train + "--method lora --alpha 0":                         "--alpha is 0",
		train + "--method lora --lr 0":                            "--lr is 0",
		train + "--method lora --rank 17":                         "--rank is 17, above the model's width of 16",
		train + "--method lora --rank 1000000000":                 "rank is 1000000000, want 1 to 1048576",
		train + "--method lora --dropout -7":                      "--dropout is -7",
		train + "--method lora --warmup 1e18":                     "--warmup is 1e+18",
		train + "--method lora --threads 100000":                  "--threads is 100000",
		train + "--method lora --template {a}->{b}":               "--template goes with --task causal",
		train + "--method lora --pack":                            "--pack goes with --task causal",
		train + "--method prompt --virtual-tokens 600":            "leave no room for a text",
		train + "--method lora --task causal":                     "has no language-model head",
		"predict --threads 100000 --model " + tiny + " --data x":  "--threads is 100000",
		"generate --threads 100000 --model " + lm + " --prompt x": "--threads is 100000",
	} {
		code, _, stderr := gopeft(t, "", append(strings.Fields(args), "--quiet")...)
		if code != exitUsage || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("gopeft %s: exit %d, %s, want %q", args, code, stderr, want)
		}
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	empty := writeText(t, "empty.csv", "text,label\n,a\n \t,b\n,a\n")
	code, _, stderr := gopeft(t, "", "train", "--method", "lora", "--model", tiny, "--train", empty, "--out", filepath.Join(t.TempDir(), "run"), "--quiet")
	if code != exitFailed || !strings.Contains(stderr, "every text is empty") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestARunIsNoBaseModel(t *testing.T) {
	t.Setenv("GOPEFT_HOME", t.TempDir())
	tiny := modeltest.Testdata(t, "distilbert/tiny")
	data, _ := tokenRows(t, 60)
	run := filepath.Join(t.TempDir(), "run")
	must(t, "", "train", "--method", "lora", "--model", tiny, "--data", data, "--epochs", "1", "--out", run, "--quiet")
	for _, adapter := range []string{filepath.Join(run, "best"), run} {
		code, _, stderr := gopeft(t, "", "predict", "--model", run, "--adapter", adapter, "--data", data)
		if code != exitUsage || !strings.Contains(stderr, "is a run: with --adapter give its base model, "+tiny) {
			t.Errorf("--adapter %s: exit %d, %s", adapter, code, stderr)
		}
	}
	features := filepath.Join(t.TempDir(), "features")
	must(t, "", "train", "--method", "features", "--model", tiny, "--data", data, "--out", features, "--quiet")
	stdout, _ := must(t, "", "inspect", "--model", features, "--json")
	var got map[string]any
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || got["task"] != "classify" {
		t.Errorf("%v: task %v", err, got["task"])
	}
}

// The bytes of a suffix are tokens that stand for nothing of the text.
func TestSuffixesSpelledInBytes(t *testing.T) {
	dir := t.TempDir()
	vocab := map[string]int{"a": 0, "a</w>": 1}
	for i := range 256 {
		vocab["<0x"+strings.ToUpper(string("0123456789abcdef"[i/16]))+strings.ToUpper(string("0123456789abcdef"[i%16]))+">"] = 2 + i
	}
	raw, err := json.Marshal(map[string]any{"version": "1.0", "model": map[string]any{
		"type": "BPE", "end_of_word_suffix": "</w>", "byte_fallback": true, "vocab": vocab, "merges": []string{}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.json"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, _ := must(t, "", "tokenize", "--model", dir, "--data", writeText(t, "rows.csv", "text\naé\n"), "--quiet")
	var row struct {
		IDs     []int    `json:"ids"`
		Offsets [][2]int `json:"offsets"`
	}
	if err := json.Unmarshal([]byte(stdout), &row); err != nil || len(row.IDs) != 7 || row.Offsets[6][0] != row.Offsets[6][1] {
		t.Errorf("%v: %s", err, stdout)
	}
}

// breaks is a standard output that a fault of the program's own comes from.
type breaks struct{}

func (breaks) Write([]byte) (int, error) {
	panic("a fault\x1b[31m of " + strings.Repeat("long ", 1000))
}

func TestFaultsHaveAnExitCodeOfTheirOwn(t *testing.T) {
	var stderr bytes.Buffer
	code := program(context.Background(), []string{"gopeft", "--version"}, strings.NewReader(""), breaks{}, &stderr)
	if text := stderr.String(); code != 70 || strings.Count(text, "\n") != 1 || len(text) > 505 || strings.Contains(text, "\x1b") || !strings.Contains(text, "please report it") {
		t.Errorf("exit %d, %s", code, text)
	}
}
