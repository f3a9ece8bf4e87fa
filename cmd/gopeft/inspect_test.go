package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// inspectJSON runs inspect and reads what it prints.
func inspectJSON(t *testing.T, args ...string) (inspected, string) {
	t.Helper()
	stdout, stderr := must(t, "", append([]string{"inspect", "--json"}, args...)...)
	var r inspected
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatal(err)
	}
	total, trainable, stored := int64(0), int64(0), int64(0)
	for _, g := range r.Groups {
		total, trainable = total+g.Total, trainable+g.Trainable
	}
	for _, n := range r.DTypes {
		stored += n
	}
	if total != r.Total || trainable != r.Trainable || stored != r.Total || r.Frozen != total-trainable || len(r.Groups) < 3 {
		t.Errorf("%v: groups sum up to %d of %d and %d of %d, dtypes to %d", args, trainable, r.Trainable, total, r.Total, stored)
	}
	return r, stderr
}

func TestInspectEveryMethodByLayer(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, base := range []string{"distilbert/tiny", "llama/base"} {
		path := modeltest.Testdata(t, base)
		plain, _ := inspectJSON(t, "--model", path)
		if plain.Memory != nil || plain.Trainable != 0 || plain.Params != nil || plain.Groups[0].Name != "embeddings" {
			t.Errorf("%s: %+v", base, plain)
		}
		if causal := base == "llama/base"; (plain.Task == "causal") != causal {
			t.Errorf("%s: task %s", base, plain.Task)
		}
		for _, method := range peft.Methods() {
			args := []string{"--model", path, "--method", method, "--adapter-layers", "1"}
			if strings.HasPrefix(method, "llama-adapter") || method == "prompt" || method == "prefix" {
				args = append(args, "--adapter-length", "3", "--virtual-tokens", "3")
			}
			r, _ := inspectJSON(t, args...)
			if r.Method != method || r.Trainable == 0 || r.Memory == nil || r.Memory.Total <= r.Memory.Weights || r.Memory.Runtime == 0 {
				t.Errorf("%s, %s: %+v", base, method, r)
			}
			if method == "full" && r.Frozen != 0 {
				t.Errorf("%s: full leaves %d frozen", base, r.Frozen)
			}
		}
	}
}

func TestInspectAdapterFolders(t *testing.T) {
	for _, c := range []struct{ base, adapter, task, trained string }{
		{"llama/base", "peft/llama-causal-lora", "causal", "model.layers."},
		{"llama/base", "peft/llama-causal-prompt", "causal", "prompt"},
		{"llama/base", "peft/llama-seqcls-lora", "classify", "head"},
		{"distilbert/tiny", "peft/distilbert-seqcls-lora", "classify", "head"},
	} {
		args := []string{"--model", modeltest.Testdata(t, c.base), "--adapter", modeltest.Testdata(t, c.adapter)}
		r, _ := inspectJSON(t, args...)
		found := false
		for _, g := range r.Groups {
			found = found || g.Trainable > 0 && strings.HasPrefix(g.Name, c.trained)
		}
		if r.Task != c.task || !found {
			t.Errorf("%s: task %s, %+v", c.adapter, r.Task, r.Groups)
		}
		text, _ := must(t, "", append([]string{"inspect", "--layers"}, args...)...)
		if !strings.Contains(text, "embeddings: trainable") || !strings.Contains(text, "*") {
			t.Errorf("%s: %s", c.adapter, text)
		}
	}
}

// An adapter is what it is: a flag that would say otherwise is not passed over.
func TestInspectOfAnAdapterTakesNoMethod(t *testing.T) {
	base, adapter := modeltest.Testdata(t, "llama/base"), modeltest.Testdata(t, "peft/llama-causal-lora")
	out := filepath.Join(t.TempDir(), "run")
	must(t, "", "train", "--task", "causal", "--model", base, "--method", "lora", "--train",
		writeText(t, "rows.jsonl", strings.Repeat("{\"input_ids\": [1, 5, 9, 12, 20]}\n", 4)), "--epochs", "1", "--amp", "none", "--out", out)
	for _, from := range [][]string{{"--model", base, "--adapter", adapter}, {"--model", out}} {
		for _, extra := range [][]string{{"--method", "ia3"}, {"--rank", "4"}, {"--dora"}, {"--targets", "q"}} {
			args := slices.Concat([]string{"inspect"}, from, extra)
			code, _, stderr := gopeft(t, "", args...)
			if code != exitUsage || !strings.Contains(stderr, extra[0]+": the method and its settings are those of the adapter") {
				t.Errorf("gopeft %v: exit %d, %s", args, code, stderr)
			}
		}
		must(t, "", append([]string{"inspect", "--batch-size", "2"}, from...)...)
	}
}

func TestInspectSaysWhatTheFileHolds(t *testing.T) {
	r, _ := inspectJSON(t, "--model", modeltest.Testdata(t, "llama/base-bf16"))
	if r.DTypes["BF16"] != r.Total {
		t.Errorf("%v of %d", r.DTypes, r.Total)
	}
	if _, err := model.ReadFacts(modeltest.Testdata(t, "llama/base-bf16")); err != nil {
		t.Error(err)
	}
	full, _ := inspectJSON(t, "--model", modeltest.Testdata(t, "llama/base"), "--method", "full", "--amp", "none", "--max-length", "64")
	sgd, _ := inspectJSON(t, "--model", modeltest.Testdata(t, "llama/base"), "--method", "full", "--amp", "none", "--optimizer", "sgd", "--max-length", "64")
	less, _ := inspectJSON(t, "--model", modeltest.Testdata(t, "llama/base"), "--method", "full", "--amp", "none", "--checkpoint-activations", "--max-length", "64")
	if full.Memory.Optimizer == 0 || sgd.Memory.Optimizer != 0 || less.Memory.Total >= full.Memory.Total {
		t.Errorf("adam %+v, sgd %+v, recomputed %+v", full.Memory, sgd.Memory, less.Memory)
	}
}

// A base that the adapter was not trained on is said, not hidden.
func TestNotesOfAnAdapterAreSaid(t *testing.T) {
	base := modeltest.Testdata(t, "llama/base")
	dir := t.TempDir()
	file := writeText(t, "rows.jsonl", strings.Repeat("{\"input_ids\": [1, 5, 9, 12, 20]}\n", 4))
	for _, method := range []string{"lora", "full"} {
		must(t, "", "train", "--task", "causal", "--model", base, "--method", method, "--train", file, "--epochs", "1", "--lr", "0.1", "--out",
			filepath.Join(dir, method), "--amp", "none")
	}
	const want = "trained on a base model with other weights"
	args := []string{"--model", filepath.Join(dir, "full", "best"), "--adapter", filepath.Join(dir, "lora", "best")}
	r, stderr := inspectJSON(t, args...)
	if len(r.Notes) != 1 || !strings.Contains(stderr, want) {
		t.Errorf("%v: %s", r.Notes, stderr)
	}
	stdout, stderr := must(t, "", append([]string{"merge", "--json", "--data", file, "--out", dir + "/merged"}, args...)...)
	if !strings.Contains(stderr, want) || !strings.Contains(stdout, want) {
		t.Errorf("%s\n%s", stdout, stderr)
	}
}
