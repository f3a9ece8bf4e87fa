package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/model/modeltest"
)

func TestVerify(t *testing.T) {
	data, _ := tokenRows(t, 60)
	model := filepath.Join(t.TempDir(), "model")
	if err := os.CopyFS(model, os.DirFS(tinyModel(t))); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "run")
	must(t, "", "train", "--model", model, "--method", "lora", "--data", data, "--epochs", "1", "--threads", "1", "--out", out)
	stdout, stderr := must(t, "", "verify", out)
	if !strings.Contains(stdout, "as they were recorded") || stderr != "" {
		t.Errorf("%q, %q", stdout, stderr)
	}
	copied := filepath.Join(t.TempDir(), "adapter")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(out, "best"))); err != nil {
		t.Fatal(err)
	}
	stdout, stderr = must(t, "", "verify", copied)
	if !strings.Contains(stderr, "nothing was recorded") || !strings.Contains(stderr, "its base agrees") || !strings.Contains(stdout, "sound") {
		t.Errorf("%q, %q", stdout, stderr)
	}
	if stdout, stderr = must(t, "", "verify", model); !strings.Contains(stderr, "it has no tokenizer") || !strings.Contains(stdout, "sound") {
		t.Errorf("%q, %q", stdout, stderr)
	}

	// Another base of the same shape.
	path := filepath.Join(model, "model.safetensors")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(raw) / 2; i < len(raw); i++ {
		if i%4 == 3 {
			raw[i] ^= 0x80 // the sign of a float
		}
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := gopeft(t, "", "verify", "--json", out)
	var v verified
	if err := json.Unmarshal([]byte(stdout), &v); err != nil {
		t.Fatal(err)
	}
	if code != exitFailed || v.OK || !v.Finished || len(v.Findings) != 1 || v.Findings[0].Name != "model/model.safetensors" || !strings.Contains(stderr, "not as it was recorded") {
		t.Errorf("exit %d, %+v, %q", code, v, stderr)
	}
	if code, stdout, _ := gopeft(t, "", "verify", copied); code != exitFailed || !strings.Contains(stdout, "changed  base model") {
		t.Errorf("exit %d, %q", code, stdout)
	}
	must(t, "", "verify", out, "--only", "written")

	// A damaged header.
	if err := os.Truncate(path, int64(len(raw)-4)); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := gopeft(t, "", "verify", model); code != exitFailed || !strings.Contains(stderr, path) {
		t.Errorf("exit %d, %q", code, stderr)
	}
}

func TestVerifyOfAComparison(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	t.Setenv("GOPEFT_TEST_PROGRAM", "1") // its runs are processes of this program
	data, _ := tokenRows(t, 60)
	out := filepath.Join(t.TempDir(), "cmp")
	must(t, "", "compare", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--methods", "logreg,bitfit", "--data", data, "--epochs", "1", "--threads", "1", "--out", out)
	must(t, "", "verify", out)
	if err := os.WriteFile(filepath.Join(out, "bitfit", "more"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := gopeft(t, "", "verify", out); code != exitFailed || !strings.Contains(stdout, "added  bitfit: more") {
		t.Errorf("exit %d, %q", code, stdout)
	}
}

// Folders that commands make of a model know what they were made of; --overwrite replaces them with their record.
func TestVerifyOfWhatCommandsMake(t *testing.T) {
	rows := writeText(t, "rows.jsonl", idRows)
	for _, c := range []struct{ command, base, adapter, read, written string }{
		{"merge --data " + rows, "distilbert/tiny", "peft/distilbert-seqcls-lora", "adapter/adapter_model.safetensors", "model.safetensors"},
		{"convert --to adapterhub --data " + rows, "distilbert/tiny", "adapterhub/distilbert-pfeiffer", "model/model.safetensors", "pytorch_adapter.bin"},
		{"quantize --to int8", "llama/base", "", "model/model.safetensors", "model.safetensors"},
	} {
		t.Run(c.command[:5], func(t *testing.T) {
			dir := t.TempDir()
			out, places := filepath.Join(dir, "out"), map[string]string{"model": filepath.Join(dir, "base"), "adapter": filepath.Join(dir, "given")}
			args := append(strings.Fields(c.command), "--model", places["model"], "--out", out, "--threads", "1")
			if err := os.CopyFS(places["model"], os.DirFS(modeltest.Testdata(t, c.base))); err != nil {
				t.Fatal(err)
			}
			if c.adapter != "" {
				args = append(args, "--adapter", places["adapter"])
				if err := os.CopyFS(places["adapter"], os.DirFS(modeltest.Testdata(t, c.adapter))); err != nil {
					t.Fatal(err)
				}
			}
			must(t, "", args...)
			moved := out + ".moved"
			if err := os.Rename(out, moved); err != nil {
				t.Fatal(err)
			}
			if stdout, stderr := must(t, "", "verify", moved); !strings.Contains(stdout, "as they were recorded") || stderr != "" {
				t.Errorf("%q, %q", stdout, stderr)
			}
			if err := os.Rename(moved, out); err != nil {
				t.Fatal(err)
			}
			role, name, _ := strings.Cut(c.read, "/")
			for file, want := range map[string]string{filepath.Join(places[role], name): "changed  " + c.read + " ", filepath.Join(out, c.written): "changed  " + c.written + " "} {
				raw, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				damaged := slices.Clone(raw)
				damaged[len(raw)/2] ^= 4
				if err := os.WriteFile(file, damaged, 0o600); err != nil {
					t.Fatal(err)
				}
				if code, stdout, _ := gopeft(t, "", "verify", out); code != exitFailed || strings.Count(stdout, "\n") != 1 || !strings.HasPrefix(stdout, want) {
					t.Errorf("exit %d, %q, want %q", code, stdout, want)
				}
				if err := os.WriteFile(file, raw, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			must(t, "", append(args, "--overwrite")...)
			must(t, "", "verify", out)
		})
	}
}

func TestVerifyUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"verify"}, exitUsage, "one folder"},
		{[]string{"verify", "a", "b"}, exitUsage, "one folder"},
		{[]string{"verify", "/no/such/run"}, exitFailed, "no such file"},
		{[]string{"verify", t.TempDir(), "--only", "all"}, exitUsage, "--only"},
		{[]string{"verify", t.TempDir()}, exitFailed, "model.safetensors"},
	} {
		if code, _, stderr := gopeft(t, "", c.args...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d, %q", c.args, code, stderr)
		}
	}
}
