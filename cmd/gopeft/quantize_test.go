package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/train/infer"
)

// plainLLaMA is a folder of a small LLaMA in bf16 whose maps are wide enough for NF4.
func plainLLaMA(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "plain")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		s.Seed(2)
		m, err := model.New(s, []byte(`{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 48, "hidden_size": 64,
			"intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2}`), model.Options{})
		if err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o777); err != nil {
			return err
		}
		if err := model.SaveAs(s, dir, m, bindings.BFloat16); err != nil {
			return err
		}
		return m.Close()
	})
	return dir
}

// What quantize writes computes what --quantize makes of the plain folder, in every command; an adapter trained over either
// is evaluated, generated with and merged over it.
func TestQuantizedFolderIsWhatQuantizeMakesOfThePlainOne(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	plain := plainLLaMA(t)
	rows := writeText(t, "rows.jsonl", idRows)
	for _, to := range []string{"nf4", "int8"} {
		t.Run(to, func(t *testing.T) {
			dir := t.TempDir()
			folder := filepath.Join(dir, "rounded")
			args := []string{"quantize", "--model", plain, "--to", to, "--out", folder, "--json"}
			stdout, _ := must(t, "", args...)
			var r infer.QuantisedFolder
			if err := json.Unmarshal([]byte(stdout), &r); err != nil || r.Matrices != 14 || r.After >= r.Before || r.Compared != "logits" || r.Difference > 1e-6 {
				t.Errorf("%v: %s", err, stdout)
			}
			if code, _, stderr := gopeft(t, "", args...); code != exitFailed || !strings.Contains(stderr, "there already") {
				t.Errorf("again: exit %d, %s", code, stderr)
			}
			shown, _ := must(t, "", "inspect", "--model", folder, "--json")
			if want := map[string]string{"nf4": "NF4", "int8": "INT8"}[to]; !strings.Contains(shown, want) {
				t.Errorf("inspect does not say %s: %s", want, shown)
			}
			results := map[string][]string{}
			for name, base := range map[string][]string{"plain": {"--model", plain, "--quantize", to}, "quantised": {"--model", folder}} {
				out := filepath.Join(dir, name)
				must(t, "", append([]string{"train", "--task", "causal", "--method", "lora", "--targets", "all", "--train", rows, "--epochs", "2", "--lr", "0.01",
					"--amp", "none", "--base-dtype", "bf16", "--mask-prompt=false", "--no-train-eval", "--out", out}, base...)...)
				scores, _ := must(t, "", "eval", "--task", "causal", "--model", out, "--data", rows, "--json")
				text, _ := must(t, `{"input_ids": [1, 5, 9, 12]}`, "generate", "--model", out, "--prompts", "-", "--max-new-tokens", "8")
				merged := out + "-merged"
				must(t, "", "merge", "--model", out, "--out", merged, "--data", rows, "--dtype", "bf16")
				folded, _ := must(t, "", "eval", "--task", "causal", "--model", merged, "--data", rows, "--json")
				raw, err := os.ReadFile(filepath.Join(merged, "config.json"))
				if err != nil || strings.Contains(string(raw), "quantization_config") {
					t.Errorf("%v: the merged config.json is %s", err, raw)
				}
				results[name] = []string{fmt.Sprint(lossOf(t, scores)), text, fmt.Sprint(lossOf(t, folded))}
			}
			if diff := cmp.Diff(results["plain"], results["quantised"]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// lossOf is the loss that eval printed.
func lossOf(t *testing.T, stdout string) float64 {
	t.Helper()
	var r struct{ Loss float64 }
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || r.Loss == 0 {
		t.Fatalf("%v: %s", err, stdout)
	}
	return r.Loss
}

func TestQuantizeRefuses(t *testing.T) {
	plain, quantised := modeltest.Testdata(t, "llama/base"), modeltest.Testdata(t, "quantised_folders/int8")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, "--to is missing", []string{"--model", plain}},
		{exitUsage, `--to "q4" is not known (nf4, int8)`, []string{"--model", plain, "--to", "q4"}},
		{exitUsage, "--model is missing", []string{"--to", "nf4"}},
		{exitFailed, "NF4 wants a multiple of 64", []string{"--model", plain, "--to", "nf4"}},
		{exitFailed, "INT8 already", []string{"--model", quantised, "--to", "nf4"}},
		{exitUsage, "which is read", []string{"--model", plain, "--to", "int8", "--overwrite", "--out", plain}},
	} {
		out := filepath.Join(t.TempDir(), "out")
		code, _, stderr := gopeft(t, "", append([]string{"quantize", "--out", out}, c.args...)...)
		if code != c.code || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("exit %d, %s, want %q", code, stderr, c.want)
		}
		if entries, err := os.ReadDir(filepath.Dir(out)); err != nil || len(entries) > 0 {
			t.Errorf("%v: something was left: %v", err, entries)
		}
	}
}
