package run_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/train"
	"gopeft/train/run"
)

// Every changed bit of what a resumed run reads of its checkpoints is found, and told in one line that names the file.
func TestResumeFindsDamage(t *testing.T) {
	whole := tinyConfig(t, "bitfit")
	whole.Output.NoTrainEval = true
	cfg := whole
	cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
	interrupt(t, cfg, "train", 9)
	last := filepath.Join(cfg.Output.Out, "last", "state")
	resume := func() error {
		_, err := run.Run(context.Background(), cfg, run.Resume, train.Quiet{})
		return err
	}
	damaged := func(what, path string, err error) {
		t.Helper()
		var d *train.DamagedError
		if !errors.As(err, &d) || d.Path != path || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", what, err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	state := filepath.Join(last, "state.json")
	for _, f := range []struct {
		path string
		bits int // to try; 0: all
		try  func() error
	}{
		{state, 0, func() error { _, err := train.ReadProgress(last); return err }},
		{state, 5, resume},
		{filepath.Join(last, "state.safetensors"), 40, resume},
	} {
		raw, err := os.ReadFile(f.path)
		if err != nil {
			t.Fatal(err)
		}
		tries := f.bits
		if tries == 0 {
			tries = 8 * len(raw)
		}
		for i := range tries {
			if f.bits > 0 {
				i = r.IntN(8 * len(raw))
			}
			changed := bytes.Clone(raw)
			changed[i/8] ^= 1 << (i % 8)
			if err := os.WriteFile(f.path, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			damaged(f.path, f.path, f.try())
		}
		for _, changed := range [][]byte{raw[:len(raw)-1], nil} {
			if err := os.WriteFile(f.path, changed, 0o600); err != nil {
				t.Fatal(err)
			}
			damaged(f.path+" cut off", f.path, resume())
		}
		if err := os.WriteFile(f.path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := resume(); err != nil {
		t.Fatal(err)
	}
	mustRun(t, whole, run.Refuse)
	sameRun(t, comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out))
}

// The best weights are read when a run ends whose last ones are worse.
func TestResumeFindsDamageOfTheBestWeights(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs, cfg.Loop.LR, cfg.Loop.Monitor, cfg.Output.NoTrainEval = 2, 1e-30, "val_acc", true // the second epoch is no better
	mustRun(t, cfg, run.Refuse)
	path := filepath.Join(cfg.Output.Out, "best", "state", "weights.safetensors")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		changed := bytes.Clone(raw)
		changed[r.IntN(len(raw))] ^= 1 << r.IntN(8)
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		var d *train.DamagedError
		if _, err := run.Run(context.Background(), cfg, run.Resume, train.Quiet{}); !errors.As(err, &d) || d.Path != path {
			t.Errorf("got %v", err)
		}
	}
	if err := errors.Join(os.WriteFile(path, raw, 0o600), os.Remove(filepath.Join(filepath.Dir(path), "checksums.json"))); err != nil {
		t.Fatal(err)
	}
	mustRun(t, cfg, run.Resume) // as of an earlier version
}

// States of versions without checksums go on, but not with numbers that no run can have written.
func TestResumeChecksRanges(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	interrupt(t, cfg, "train", 9)
	path := filepath.Join(cfg.Output.Out, "last", "state", "state.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{
		"epoch": "1e9", "batch": "-1", "step": "-1", "weight": "-3", "correct": "1000000", "loss_sum": "NaN", "seconds": "-1",
		"best_step": "77", "stale": "-1", "skipped": "99", "window_rows": "-1", "samples": "-1", "tokens": "-5", "window_correct": "1000",
		"best_epoch": "50", "rows": "99999999999999999999",
	} {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			t.Fatal(err)
		}
		delete(object, "sum")
		delete(object, "files")
		object[key] = json.RawMessage("0")
		old, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		old = bytes.Replace(old, []byte(`"`+key+`":0`), []byte(`"`+key+`":`+value), 1)
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = run.Run(context.Background(), cfg, run.Resume, train.Quiet{})
		var d *train.DamagedError
		if !errors.As(err, &d) || d.Path != path {
			t.Errorf("%s %s: %v", key, value, err)
		}
	}
}
