package run_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"gopeft/train/run"
)

func TestNearest(t *testing.T) {
	var known []string
	cfg := run.Defaults()
	run.Fields(reflect.ValueOf(&cfg).Elem(), func(_, key, _ string, _ reflect.Value) { known = append(known, key) })
	for typed, want := range map[string]string{
		"epoch": "epochs", "batchsize": "batch-size", "batch_size": "batch-size", "Epochs": "epochs", "optimzer": "optimizer", "max-len": "max-length",
		"weight-dacay": "weight-decay", "warm-up": "warmup", "lora-drop-out": "lora-dropout", "gradaccum": "grad-accum", "rnak": "rank",
		"nonsense": "", "learning-rate": "", "xyz": "", "": "",
	} {
		if got := run.Nearest(typed, known); got != want {
			t.Errorf("%q is taken for %q, want %q", typed, got, want)
		}
	}
}

func TestAMistypedSettingIsAnsweredWithTheNearest(t *testing.T) {
	for text, want := range map[string]string{
		"epoch: 3\n":                           `line 1: there is no setting "epoch"; did you mean "epochs"?`,
		"model: m\nnonsense: 3\n":              `line 2: there is no setting "nonsense"`,
		"method: [lora]\nsetings:\n  lora: {}": `line 2: there is no setting "setings"; did you mean "settings"?`,
	} {
		path := filepath.Join(t.TempDir(), "compare.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := run.ReadComparison(path, run.Defaults()); err == nil || !strings.HasSuffix(err.Error(), path+": "+want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	path := filepath.Join(t.TempDir(), "compare.yaml")
	if err := os.WriteFile(path, []byte("methods: [lora]\nsettings:\n  lora:\n    rnak: 4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := run.ReadComparison(path, run.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Config("lora"); err == nil || !strings.Contains(err.Error(), `line 4: there is no setting "rnak"; did you mean "rank"?`) {
		t.Error(err)
	}
}
