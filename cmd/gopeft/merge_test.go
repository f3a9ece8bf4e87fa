package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/modeltest"
	"gopeft/train/infer"
)

const idRows = `{"input_ids": [1, 5, 9, 12, 20, 31]}
{"input_ids": [2, 30, 7]}
`

func TestMergedFolderComputesTheSame(t *testing.T) {
	texts := writeText(t, "texts.jsonl", idRows)
	for _, c := range []struct{ base, adapter string }{
		{"distilbert/tiny", "peft/distilbert-seqcls-lora"}, {"distilbert/tiny", "peft/distilbert-seqcls-ia3"}, {"distilbert/tiny", "peft/distilbert-seqcls-dora"},
		{"llama/base", "peft/llama-causal-lora"}, {"llama/base", "peft/llama-causal-dora"}, {"llama/base", "peft/llama-seqcls-rslora"}, {"llama/gqa", "peft/gqa-causal-ia3"},
	} {
		t.Run(c.adapter, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "merged")
			args := []string{"merge", "--model", modeltest.Testdata(t, c.base), "--adapter", modeltest.Testdata(t, c.adapter), "--out", out, "--data", texts, "--json"}
			stdout, _ := must(t, "", args...)
			var r infer.Folded
			if err := json.Unmarshal([]byte(stdout), &r); err != nil || r.Texts != 2 || r.Compared != "logits" || r.Largest == 0 || r.Difference > 1e-4 {
				t.Errorf("%v: %s", err, stdout)
			}
			if code, _, stderr := gopeft(t, "", args...); code != exitFailed || !strings.Contains(stderr, "there already") {
				t.Errorf("again: exit %d, %s", code, stderr)
			}
			must(t, "", append(args, "--overwrite")...)
		})
	}
}

// Texts longer than the model reads are cut, as everywhere else.
func TestMergeAndConvertCutTexts(t *testing.T) {
	long := "{\"input_ids\": [1" + strings.Repeat(", 7", 80) + "]}\n" // the models have 40 and 64 positions
	texts := []string{"--data", writeText(t, "texts.jsonl", long)}
	args := append([]string{"--model", modeltest.Testdata(t, "distilbert/tiny")}, texts...)
	lora := modeltest.Testdata(t, "peft/distilbert-seqcls-lora")
	must(t, "", slices.Concat([]string{"merge", "--adapter", lora, "--out", filepath.Join(t.TempDir(), "out")}, args)...)
	must(t, "", slices.Concat([]string{"convert", "--model", modeltest.Testdata(t, "llama/base"), "--to", "peft", "--adapter", modeltest.Testdata(t, "peft/llama-causal-prompt"),
		"--out", filepath.Join(t.TempDir(), "out")}, texts)...)
	code, _, stderr := gopeft(t, "", slices.Concat([]string{"merge", "--adapter", lora, "--max-length", "41", "--out", filepath.Join(t.TempDir(), "out")}, args)...)
	if code != exitUsage || !strings.Contains(stderr, "reads at most 40 tokens") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestMergeRefuses(t *testing.T) {
	texts := writeText(t, "texts.jsonl", idRows)
	llama := modeltest.Testdata(t, "llama/base")
	for _, c := range []struct {
		want string
		args []string
	}{
		{"prefix cannot be merged: its keys and values", []string{"--model", llama, "--adapter", modeltest.Testdata(t, "peft/llama-causal-prefix")}},
		{"llama-adapter cannot be merged", []string{"--model", llama, "--adapter", modeltest.Testdata(t, "peft/llama-causal-adaption")}},
		{"there is no adapter", []string{"--model", llama}},
		{"more than the tolerance of 1e-30", []string{"--model", llama, "--adapter", modeltest.Testdata(t, "peft/llama-causal-lora"), "--tolerance", "1e-30"}},
		{"which is read", []string{"--model", llama, "--adapter", modeltest.Testdata(t, "peft/llama-causal-lora"), "--overwrite", "--out", llama}},
	} {
		out := filepath.Join(t.TempDir(), "merged")
		args := append([]string{"merge", "--data", texts, "--out", out}, c.args...)
		code, _, stderr := gopeft(t, "", args...)
		if code == exitDone || !strings.Contains(stderr, c.want) {
			t.Errorf("exit %d, %s, want %q", code, stderr, c.want)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%v left %s", c.args, out)
		}
	}
}

func TestConvertThereAndBack(t *testing.T) {
	texts := writeText(t, "texts.jsonl", idRows)
	dir := t.TempDir()
	base := []string{"--model", modeltest.Testdata(t, "llama/base"), "--data", texts}
	run := func(adapter, to, out string, more ...string) (int, string) {
		code, _, stderr := gopeft(t, "", slices.Concat([]string{"convert", "--adapter", adapter, "--to", to, "--out", out}, base, more)...)
		return code, stderr
	}
	adaption := modeltest.Testdata(t, "peft/llama-causal-adaption")
	for _, c := range []struct{ from, to, out string }{
		{adaption, "lit-llama", dir + "/lit.pth"}, {dir + "/lit.pth", "peft", dir + "/back"},
	} {
		if code, stderr := run(c.from, c.to, c.out); code != exitDone {
			t.Fatalf("%s to %s: exit %d, %s", c.from, c.to, code, stderr)
		}
	}
	ids := func(adapter string) []int64 {
		stdout, _ := must(t, idRows, "generate", "--model", base[1], "--adapter", adapter, "--prompts", "-", "--max-new-tokens", "6")
		return lines[generated](t, stdout)[0].TokenIDs
	}
	if diff := cmp.Diff(ids(adaption), ids(dir+"/back")); diff != "" {
		t.Error(diff)
	}
	// A checkpoint of LLaMA-Adapter may leave its prompts' length open.
	if code, stderr := run(adaption, "llama-adapter", dir+"/official.pth"); code != exitDone {
		t.Fatalf("exit %d, %s", code, stderr)
	}
	for length, want := range map[string]struct {
		code int
		text string
	}{"5": {exitDone, ""}, "10": {exitFailed, "adapter-length 10 does not fit"}, "0": {exitUsage, "--adapter-length is 0, want more than 0"}} {
		code, stderr := run(dir+"/official.pth", "peft", dir+"/of-"+length, "--adapter-length", length)
		if code != want.code || !strings.Contains(stderr, want.text) {
			t.Errorf("--adapter-length %s: exit %d, %s", length, code, stderr)
		}
	}
	if code, stderr := run(adaption, "onnx", dir+"/x"); code != exitUsage || !strings.Contains(stderr, "--to") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	if code, stderr := run(modeltest.Testdata(t, "peft/llama-causal-lora"), "lit-llama", dir+"/y.pth"); code != exitFailed || exists(dir+"/y.pth") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestMergeKeepsTheTokenizer(t *testing.T) {
	base := modeltest.Shared(t, "models/llama-stories260k")
	dir := t.TempDir()
	file := writeText(t, "rows.jsonl", strings.Repeat("{\"text\": \"One day a dog ran to the park.\"}\n", 8))
	must(t, "", "train", "--task", "causal", "--model", base, "--method", "lora", "--train", file, "--epochs", "2", "--lr", "0.01", "--out", dir+"/run", "--amp", "none")
	stdout, _ := must(t, "", "merge", "--model", dir+"/run", "--out", dir+"/merged")
	if !strings.Contains(stdout, "logits of 8 texts differ by at most") {
		t.Error(stdout)
	}
	args := []string{"--prompt", "One day", "--max-new-tokens", "12"}
	want, _ := must(t, "", append([]string{"generate", "--model", dir + "/run"}, args...)...)
	got, _ := must(t, "", append([]string{"generate", "--model", dir + "/merged"}, args...)...)
	if got != want || got == "" {
		t.Errorf("merged writes %q, the adapter %q", got, want)
	}
}

func TestMergeRoundsOnce(t *testing.T) {
	texts := writeText(t, "texts.jsonl", idRows)
	for _, dtype := range []string{"bf16", "fp16"} {
		for _, c := range []struct{ base, adapter string }{
			{"distilbert/tiny", "peft/distilbert-seqcls-lora"}, {"llama/base", "peft/llama-causal-dora"}, {"llama/gqa", "peft/gqa-causal-ia3"},
		} {
			out := filepath.Join(t.TempDir(), "merged")
			stdout, _ := must(t, "", "merge", "--model", modeltest.Testdata(t, c.base), "--adapter", modeltest.Testdata(t, c.adapter), "--out", out,
				"--data", texts, "--dtype", dtype, "--json")
			var r infer.Folded
			if err := json.Unmarshal([]byte(stdout), &r); err != nil {
				t.Fatal(err)
			}
			if r.Folding > 1e-4 || r.Difference <= r.Folding || r.Tolerance > 0.05*r.Largest {
				t.Errorf("%s, %s: %s", c.adapter, dtype, stdout)
			}
			i, _ := inspectJSON(t, "--model", out)
			if want := map[string]string{"bf16": "BF16", "fp16": "F16"}[dtype]; i.DTypes[want] != i.Total {
				t.Errorf("%s: %v of %d", dtype, i.DTypes, i.Total)
			}
		}
	}
}
