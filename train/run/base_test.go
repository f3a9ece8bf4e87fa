package run_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/run"
	"gopeft/train/traintest"
)

// halfConfig is a run of a model whose file holds bf16, in mixed precision of the same dtype.
func halfConfig(t *testing.T, c traintest.MethodCase) run.Config {
	cfg := causalConfig(t, c.Method)
	cfg.Model.Path, cfg.Machine.AMP, cfg.Loop.Epochs = modeltest.Testdata(t, "llama/base-bf16"), "bf16", 1
	cfg.Peft, cfg.Peft.LoRADropout, cfg.Loop.LR = c.Options, 0.1, 0
	return cfg
}

// A base that stays in its file's 16 bits is what products would have made of its fp32 copy: every method learns the same,
// to the bit.
func TestABaseInItsOwnBitsLearnsTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, c := range traintest.MethodCases() {
		t.Run(c.Name, func(t *testing.T) {
			wide := halfConfig(t, c)
			wide.Model.BaseDType = "fp32"
			there := mustRun(t, wide, run.Refuse)
			own := halfConfig(t, c)
			here := mustRun(t, own, run.Refuse)
			if c.Method == "prefix" { // its first values come of products in fp32, which another kernel computes
				sameLosses(t, c.Name, here, there, 1e-3)
			} else {
				sameRun(t, comparable(t, own.Output.Out), comparable(t, wide.Output.Out))
			}
			want := "bf16"
			if c.Method == "full" || c.Method == "last" {
				want = "fp32" // what they save is a whole model
			}
			cfg, err := run.ReadConfig(filepath.Join(own.Output.Out, "config.yaml"), run.Defaults())
			if err != nil || cfg.Model.BaseDType != want {
				t.Errorf("the base was held in %s, want %s (%v)", cfg.Model.BaseDType, want, err)
			}
		})
	}
}

// Rounding the base of an fp32 file to 16 bits changes little, with mixed precision and without.
func TestABaseInFewerBitsLearnsNearlyTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for name, config := range map[string]func(*testing.T, string) run.Config{"classify": tinyConfig, "causal": causalConfig} {
		for _, amp := range []string{"none", "bf16"} {
			t.Run(name+"/"+amp, func(t *testing.T) {
				wide := config(t, "lora")
				wide.Machine.AMP, wide.Model.Dropout, wide.Peft.LoRADropout = amp, 0, 0
				want := mustRun(t, wide, run.Refuse)
				for _, dtype := range []string{"bf16", "fp16"} {
					cfg := wide
					cfg.Model.BaseDType, cfg.Output.Out = dtype, filepath.Join(t.TempDir(), dtype)
					sameLosses(t, dtype, mustRun(t, cfg, run.Refuse), want, 0.03)
				}
			})
		}
	}
}

// Weights that full trains in place are fp32, whatever the rest is held in.
func TestFullTrainsFp32OverABaseIn16Bits(t *testing.T) {
	cfg := causalConfig(t, "full")
	cfg.Model.BaseDType = "bf16"
	_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
	if err == nil || !strings.Contains(err.Error(), "--base-dtype bf16") || !strings.Contains(err.Error(), "--unfreeze") {
		t.Errorf("got %v", err)
	}
	cfg.Peft.Unfreeze, cfg.Output.Out = []string{"layers.1"}, filepath.Join(t.TempDir(), "part")
	mustRun(t, cfg, run.Refuse)
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m, err := model.Load(s, modeltest.Testdata(t, "llama/gqa"), model.Options{Base: bindings.BFloat16, Trained: []string{"layers.1"}})
		if err != nil {
			return err
		}
		for name, want := range map[string]bindings.DType{
			"model.layers.0.mlp.up_proj.weight": bindings.BFloat16, "model.layers.1.mlp.up_proj.weight": bindings.Float,
			"model.embed_tokens.weight": bindings.BFloat16, "model.norm.weight": bindings.Float,
		} {
			if d := m.Params().Get(name).T.DType(); d != want {
				t.Errorf("%s is held in %v, want %v", name, d, want)
			}
		}
		return m.Close()
	})
}
