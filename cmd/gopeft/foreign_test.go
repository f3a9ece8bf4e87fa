package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/model/modeltest"
)

func TestOverwriteReplacesModelsAndAdaptersOnly(t *testing.T) {
	llama := modeltest.Testdata(t, "llama/base")
	adapter := modeltest.Testdata(t, "peft/llama-causal-lora")
	rows, _ := tokenRows(t, 4)
	for _, c := range []struct {
		name  string
		files []string
		first string // foreign file; "": it is replaced
	}{
		{"empty", nil, ""},
		{"a model", []string{"config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json", "README.md"}, ""},
		{"an adapter", []string{"adapter_config.json", "adapter_model.bin"}, ""},
		{"a thesis", []string{"thesis.tex"}, "thesis.tex"},
		{"a thesis beside a model", []string{"config.json", "model.safetensors", "thesis.tex"}, "thesis.tex"},
		{"a folder beside a model", []string{"config.json", "notes/a.txt"}, "notes"},
		{"a folder of a model's name", []string{"config.json", "vocab.txt/a"}, "vocab.txt"},
		{"a README alone", []string{"README.md"}, "README.md"},
		{"a run", []string{"config.yaml", "metrics.csv"}, "config.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, args := range [][]string{
				{"merge", "--model", llama, "--adapter", adapter, "--data", rows},
				{"convert", "--model", llama, "--adapter", adapter, "--to", "peft", "--data", rows},
				{"quantize", "--model", llama, "--to", "int8"},
			} {
				out := filepath.Join(t.TempDir(), "out")
				for _, name := range c.files {
					path := filepath.Join(out, name)
					if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if c.files == nil {
					if err := os.Mkdir(out, 0o777); err != nil {
						t.Fatal(err)
					}
				}
				before := contents(t, out)
				code, _, stderr := gopeft(t, "", append(args, "--out", out, "--overwrite", "--quiet")...)
				if c.first == "" {
					if code != exitDone {
						t.Errorf("%s: exit %d, %s", args[0], code, stderr)
					}
					continue
				}
				if code != exitUsage || !strings.Contains(stderr, out+" holds "+c.first) {
					t.Errorf("%s: exit %d, %s", args[0], code, stderr)
				}
				for path, content := range before {
					if raw, err := os.ReadFile(path); err != nil || string(raw) != content {
						t.Errorf("%s: %s is gone: %v", args[0], path, err)
					}
				}
			}
		})
	}
	t.Run("a file", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "thesis.pth")
		if err := os.WriteFile(out, []byte("a thesis"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, _, stderr := gopeft(t, "", "convert", "--model", llama, "--adapter", adapter, "--to", "lit-llama", "--out", out, "--overwrite", "--data", rows)
		if code != exitUsage || !strings.Contains(stderr, "no checkpoint") {
			t.Errorf("exit %d, %s", code, stderr)
		}
	})
}
