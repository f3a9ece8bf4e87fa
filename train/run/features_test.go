package run_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gopeft/model/fsutil"
	"gopeft/model/hf/files"
	"gopeft/train"
	"gopeft/train/run"
)

// copied is a copy of a model's folder.
func copied(t *testing.T, from string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFeaturesAreCachedByEveryFileTheyDependOn(t *testing.T) {
	t.Setenv("GOPEFT_HOME", t.TempDir())
	cfg := tinyConfig(t, train.Features)
	cfg.Model.Path = copied(t, cfg.Model.Path)
	cached := func() bool {
		t.Helper()
		heard := &notes{}
		if _, err := run.Run(context.Background(), cfg, run.Overwrite, heard); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(heard.text, "from the cache")
	}
	cached()
	if !cached() {
		t.Error("nothing came from the cache")
	}
	for _, name := range []string{"tokenizer_config.json", "special_tokens_map.json"} {
		raw, err := json.Marshal(map[string]string{"unk_token": name})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(cfg.Model.Path, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if cached() {
			t.Errorf("with another %s the old features were taken", name)
		}
	}
}

func TestCachedFeaturesCountTheirTime(t *testing.T) {
	home := t.TempDir()
	t.Setenv("GOPEFT_HOME", home)
	cfg := tinyConfig(t, train.Features)
	if first := mustRun(t, cfg, run.Refuse); first.Seconds <= 0 || first.Seconds > 600 {
		t.Errorf("%v seconds", first.Seconds)
	}
	paths, err := filepath.Glob(filepath.Join(home, "features", "*"))
	if err != nil || len(paths) != 3 {
		t.Fatal(paths, err)
	}
	for _, path := range paths { // as if computing them had taken long
		a, err := files.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		e, _ := a.Lookup("features")
		again := files.Tensor{Name: "features", DType: files.F32, Shape: e.Shape, Data: append([]byte(nil), e.Data...)}
		a.Close()
		rewrite(t, path, "5000", again)
	}
	if again := mustRun(t, cfg, run.Overwrite); again.Seconds < 5000 || again.Seconds > 6000 || again.SamplesPerS > 1 {
		t.Errorf("from the cache: %v seconds, %v samples/s", again.Seconds, again.SamplesPerS)
	}
}

// rewrite gives a cached file other contents, with the checksum that is right for them.
func rewrite(t *testing.T, path, seconds string, x files.Tensor) {
	t.Helper()
	s := fsutil.NewSummer()
	fmt.Fprintln(s, strings.TrimSuffix(filepath.Base(path), ".safetensors"), seconds)
	s.Write(x.Data)
	if err := files.WriteSafetensors(path, []files.Tensor{x}, map[string]string{"seconds": seconds, "sum": s.Sum().CRC32C}); err != nil {
		t.Fatal(err)
	}
}

// Features that cannot be those of the model and the texts are computed anew.
func TestTamperedFeaturesAreNotUsed(t *testing.T) {
	home := t.TempDir()
	t.Setenv("GOPEFT_HOME", home)
	cfg := tinyConfig(t, train.Features)
	want := mustRun(t, cfg, run.Refuse)
	paths, err := filepath.Glob(filepath.Join(home, "features", "*"))
	if err != nil || len(paths) != 3 {
		t.Fatal(paths, err)
	}
	for name, tamper := range map[string]func(path string){
		"a bit": func(path string) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			raw[len(raw)-5] ^= 4
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"pipe": func(path string) {
			if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
				t.Fatal(err)
			}
		},
		"width": func(path string) {
			a, err := files.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			e, _ := a.Lookup("features")
			rewrite(t, path, "1", files.Tensor{Name: "features", DType: files.F32, Shape: []int64{e.Shape[0], e.Shape[1] / 2}, Data: append([]byte(nil), e.Data[:len(e.Data)/2]...)})
		},
		"count": func(path string) {
			a, err := files.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			e, _ := a.Lookup("features")
			rewrite(t, path, "1", files.Tensor{Name: "features", DType: files.F32, Shape: []int64{1, e.Shape[1]}, Data: append([]byte(nil), e.Data[:4*e.Shape[1]]...)})
		},
	} {
		for _, path := range paths {
			tamper(path)
		}
		heard := &notes{}
		got, err := run.Run(context.Background(), cfg, run.Overwrite, heard)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(heard.text, "from the cache") || strings.Count(heard.text, "not usable") != 3 || got.Accuracy != want.Accuracy {
			t.Errorf("another %s: %s", name, heard.text)
		}
	}
}
