package train_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/report"
)

// estimate is what EstimateMemory says of a run.
func estimate(t *testing.T, cfg train.Config) (m train.Memory) {
	t.Helper()
	bindingstest.Do(t, func(s *bindings.Scope) error {
		base, err := model.Load(s, cfg.Model, model.Options{Classify: cfg.Task == "classify"})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, base.Close()) }()
		method, err := peft.New(cfg.Method, cfg.Peft)
		if err != nil {
			return err
		}
		if err := method.Attach(s, base); err != nil {
			return err
		}
		precision, err := train.ChoosePrecision(cfg.AMP, bindings.CPU)
		if err == nil {
			m = train.EstimateMemory(cfg, precision, base, method)
		}
		method.Close()
		return err
	})
	return m
}

// Runs in processes of their own hold what was predicted.
func TestEstimateMemoryIsWhatARunTakes(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: trains models of 100 MB; run without -short")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	llama := filepath.Join(dir, "llama")
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m, err := model.New(s, []byte(`{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 8000, "hidden_size": 512, "intermediate_size": 1408,
			"num_hidden_layers": 6, "num_attention_heads": 8, "initializer_range": 0.02}`), model.Options{})
		if err != nil {
			return err
		}
		return errors.Join(os.Mkdir(llama, 0o700), model.Save(s, llama, m), m.Close())
	})
	r := rand.New(rand.NewPCG(5, 6))
	var b strings.Builder
	for range 8 {
		ids := make([]int, 128)
		for i := range ids {
			ids[i] = 3 + r.IntN(7990)
		}
		raw, err := json.Marshal(ids)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "{\"input_ids\": %s}\n", raw)
	}
	rows := filepath.Join(dir, "rows.jsonl")
	if err := os.WriteFile(rows, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method    string
		amp       string
		recompute bool
	}{{"full", "none", false}, {"full", "none", true}, {"lora", "none", false}, {"lora", "none", true}, {"last", "none", false}} {
		cfg := train.Defaults()
		cfg.Task, cfg.Method, cfg.Model, cfg.Train, cfg.Out = "causal", c.method, llama, rows, filepath.Join(dir, "run")
		cfg.AMP, cfg.Recompute, cfg.BatchSize, cfg.MaxLength, cfg.MaxSteps, cfg.Threads = c.amp, c.recompute, 8, 128, 1, 2
		cfg.MaskPrompt, cfg.NoTrainEval = false, true
		path := filepath.Join(dir, "run.yaml")
		if err := train.WriteConfig(path, cfg); err != nil {
			t.Fatal(err)
		}
		child := exec.CommandContext(context.Background(), exe)
		child.Env = append(os.Environ(), "GOPEFT_TEST_RUN="+path)
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		sum, err := report.ReadSummary(filepath.Join(cfg.Out, "summary.json"))
		if err != nil {
			t.Fatal(err)
		}
		said := estimate(t, cfg)
		ratio := said.Total / float64(sum.PeakRSSMB)
		t.Logf("%+v: %.3f of the %.0f MiB taken: %v", c, ratio, sum.PeakRSSMB, said)
		if ratio < 0.88 || ratio > 1.12 {
			t.Errorf("%+v: predicted %.0f MiB, the run took %.0f", c, said.Total, sum.PeakRSSMB)
		}
	}
}
