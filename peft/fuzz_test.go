package peft_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/peft"
)

// FuzzAdapterConfig reads arbitrary settings beside real weights: an adapter or one line of error, never a
// panic, and nothing left alive.
func FuzzAdapterConfig(f *testing.F) {
	for _, fixture := range []string{"peft/distilbert-seqcls-lora", "peft/distilbert-seqcls-lora-bias", "peft/distilbert-seqcls-ia3", "peft/distilbert-seqcls-prompt", "adapterhub/distilbert-houlsby", "adapterhub/distilbert-prefix"} {
		raw, err := os.ReadFile(modeltest.Testdata(f, fixture+"/adapter_config.json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(fixture, raw)
	}
	f.Fuzz(func(t *testing.T, fixture string, config []byte) {
		if !strings.HasPrefix(fixture, "peft/distilbert-seqcls-") && !strings.HasPrefix(fixture, "adapterhub/distilbert-") || strings.ContainsAny(fixture, ".\x00") {
			t.Skip("no name of a fixture")
		}
		from := modeltest.Testdata(t, fixture)
		entries, err := os.ReadDir(from)
		if err != nil {
			t.Skip("no fixture of that name")
		}
		dir := t.TempDir()
		for _, e := range entries {
			raw, err := os.ReadFile(filepath.Join(from, e.Name()))
			if e.Name() == "adapter_config.json" {
				raw = config
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, e.Name()), raw, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		live := bindings.Live()
		err = bindings.Do(context.Background(), func(s *bindings.Scope) error {
			m, err := model.Load(s, modeltest.Testdata(t, "distilbert/tiny"), model.Options{Classify: true})
			if err != nil {
				return err
			}
			defer m.Close()
			method, err := peft.Load(s, dir, m)
			if err != nil {
				return err
			}
			method.Close()
			return nil
		})
		var op *bindings.OpError
		if err != nil && (strings.Contains(err.Error(), "\n") || errors.As(err, &op)) {
			t.Errorf("not a clear line: %v", err)
		}
		if n := bindings.Live() - live; n != 0 {
			t.Errorf("%d tensors left alive", n)
		}
	})
}
