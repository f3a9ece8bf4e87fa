package run_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		if err := files.WriteSafetensors(path, []files.Tensor{again}, map[string]string{"seconds": "5000"}); err != nil {
			t.Fatal(err)
		}
	}
	if again := mustRun(t, cfg, run.Overwrite); again.Seconds < 5000 || again.Seconds > 6000 || again.SamplesPerS > 1 {
		t.Errorf("from the cache: %v seconds, %v samples/s", again.Seconds, again.SamplesPerS)
	}
}
