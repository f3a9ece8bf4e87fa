package run_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopeft/train"
	"gopeft/train/report"
	"gopeft/train/run"
	"gopeft/train/run/inputs"
)

// ownModel is tinyConfig with a copy of its model that a test may change.
func ownModel(t *testing.T, method string) run.Config {
	t.Helper()
	cfg := tinyConfig(t, method)
	dir := filepath.Join(t.TempDir(), "model")
	if err := os.CopyFS(dir, os.DirFS(cfg.Model.Path)); err != nil {
		t.Fatal(err)
	}
	cfg.Model.Path, cfg.Output.NoTrainEval = dir, true
	return cfg
}

// flip changes one bit of a file, in place or as a new file with the times of the old one.
func flip(t *testing.T, path string, bit int, inPlace bool) (restore func()) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(raw)
	bit %= 8 * len(raw)
	changed[bit/8] ^= 1 << (bit % 8)
	if !inPlace {
		err = os.Remove(path)
	}
	if err := errors.Join(err, os.WriteFile(path, changed, 0o600), os.Chtimes(path, time.Time{}, info.ModTime())); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(os.WriteFile(path, raw, 0o600), os.Chtimes(path, time.Time{}, info.ModTime())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestResumeRefusesAChangedModel(t *testing.T) {
	cfg := ownModel(t, "lora")
	if err := os.WriteFile(filepath.Join(cfg.Model.Path, "special_tokens_map.json"), []byte(`{"cls_token": "[CLS]"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	interrupt(t, cfg, "train", 13)
	refused := func(what, path string) {
		t.Helper()
		var changed *inputs.ChangedError
		if _, err := run.Run(context.Background(), cfg, run.Resume, train.Quiet{}); !errors.As(err, &changed) || changed.Path != path {
			t.Errorf("%s: %v", what, err)
		}
	}
	before := comparable(t, cfg.Output.Out)
	r := rand.New(rand.NewPCG(5, 6))
	for _, name := range []string{"model.safetensors", "config.json", "special_tokens_map.json"} {
		path := filepath.Join(cfg.Model.Path, name)
		for i := range 6 {
			restore := flip(t, path, r.IntN(1<<30), i%2 == 0)
			refused(fmt.Sprint(name, " ", i), path)
			restore()
		}
	}
	added := filepath.Join(cfg.Model.Path, "added_tokens.json")
	if err := os.WriteFile(added, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a new file", added)
	gone := filepath.Join(cfg.Model.Path, "special_tokens_map.json")
	if err := errors.Join(os.Remove(added), os.Rename(gone, gone+".aside")); err != nil {
		t.Fatal(err)
	}
	refused("a file less", "model/special_tokens_map.json")
	if err := os.Rename(gone+".aside", gone); err != nil {
		t.Fatal(err)
	}
	sameRun(t, comparable(t, cfg.Output.Out), before)

	// A copy elsewhere, later, is the same model; and runs of earlier versions have no record.
	if err := os.Chtimes(gone, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	mustRun(t, cfg, run.Resume)
	record := filepath.Join(cfg.Output.Out, inputs.FileName)
	if err := os.Remove(record); err != nil {
		t.Fatal(err)
	}
	mustRun(t, cfg, run.Resume)
	if _, err := os.Stat(record); err != nil {
		t.Error(err)
	}
}

func TestResumeRefusesAChangedAdapterInit(t *testing.T) {
	first := tinyConfig(t, "lora")
	first.Loop.Epochs = 1
	mustRun(t, first, run.Refuse)
	cfg := tinyConfig(t, "lora")
	cfg.Data.Data, cfg.Model.AdapterInit = first.Data.Data, filepath.Join(first.Output.Out, "best")
	interrupt(t, cfg, "train", 9)
	path := filepath.Join(cfg.Model.AdapterInit, "adapter_model.safetensors")
	restore := flip(t, path, 1<<20+1, false)
	if _, err := run.Run(context.Background(), cfg, run.Resume, train.Quiet{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	restore()
	// As the program does it, with the settings that the run has written.
	resumed, err := run.ReadConfig(filepath.Join(cfg.Output.Out, "config.yaml"), run.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, resumed, run.Resume)
}

// Weights are read where they lie: what changes them while a run reads them is no checkpoint to keep.
func TestAModelOverwrittenInPlaceEndsTheRun(t *testing.T) {
	cfg := ownModel(t, "bitfit")
	path := filepath.Join(cfg.Model.Path, "model.safetensors")
	ui := &atFirstNote{do: func() {
		time.Sleep(20 * time.Millisecond)
		now := time.Now()
		if err := os.Chtimes(path, now, now); err != nil {
			t.Error(err)
		}
	}}
	if _, err := run.Run(context.Background(), cfg, run.Refuse, ui); err == nil || !strings.Contains(err.Error(), "overwritten while the run read it") {
		t.Errorf("got %v", err)
	}
}

func TestCompareResumeSeesAChangedModel(t *testing.T) {
	cfg := ownModel(t, "")
	cfg.Loop.Epochs, cfg.Output.Out = 1, filepath.Join(t.TempDir(), "cmp")
	c := run.Comparison{Base: cfg, Methods: []string{"logreg", "lora"}}
	var ran []string
	each := func(ctx context.Context, cfg run.Config, mode run.OutMode) (report.Summary, error) {
		ran = append(ran, cfg.Model.Method)
		return run.Run(ctx, cfg, mode, train.Quiet{})
	}
	for _, mode := range []run.OutMode{run.Refuse, run.Resume} {
		if _, err := run.Compare(context.Background(), c, mode, train.Quiet{}, each); err != nil {
			t.Fatal(err)
		}
	}
	if len(ran) != 2 {
		t.Errorf("ran %v", ran)
	}
	flip(t, filepath.Join(cfg.Model.Path, "model.safetensors"), 1<<20, false)
	_, err := run.Compare(context.Background(), c, run.Resume, train.Quiet{}, each)
	var changed *inputs.ChangedError
	if !errors.As(err, &changed) || len(ran) != 4 {
		t.Errorf("ran %v, %v", ran, err)
	}
}
