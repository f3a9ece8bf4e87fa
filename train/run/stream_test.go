package run_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/train"
	"gopeft/train/run"
)

// writeModel makes a model with random weights of several pages each, stored in dtype d.
func writeModel(t *testing.T, config string, classify bool, d bindings.DType) string {
	t.Helper()
	dir := t.TempDir()
	bindingstest.Do(t, func(s *bindings.Scope) error {
		m, err := model.New(s, []byte(config), model.Options{Classify: classify})
		if err != nil {
			return err
		}
		return errors.Join(model.SaveAs(s, dir, m, d), m.Close())
	})
	return dir
}

const streamedLLaMA = `{"model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
	"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.1, "num_labels": 3}`

const streamedDistilBERT = `{"model_type": "distilbert", "vocab_size": 100, "dim": 64, "hidden_dim": 128, "n_layers": 4, "n_heads": 4,
	"max_position_embeddings": 64, "initializer_range": 0.1, "num_labels": 3}`

const streamedBERT = `{"model_type": "bert", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
	"num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.1, "num_labels": 3}`

// streamConfigs are runs whose weights can be streamed, by name.
func streamConfigs(t *testing.T) map[string]run.Config {
	all := map[string]run.Config{}
	type base struct{ config, task string }
	for _, b := range []base{{streamedLLaMA, "causal"}, {streamedLLaMA, "classify"}, {streamedDistilBERT, "classify"}, {streamedBERT, "classify"}} {
		family := map[string]string{streamedDistilBERT: "distilbert", streamedBERT: "bert"}[b.config]
		methods := []string{"lora", "prefix", "houlsby"}
		if b.config == streamedLLaMA {
			family, methods = "llama", append(methods, "llama-adapter")
		}
		for _, precision := range []struct {
			file bindings.DType
			amp  string
		}{{bindings.Float, "none"}, {bindings.Float, "bf16"}, {bindings.BFloat16, "bf16"}, {bindings.Half, "bf16"}} {
			path := writeModel(t, b.config, b.task == "classify", precision.file)
			for _, method := range methods {
				for _, recompute := range []bool{false, true} {
					if precision.file == bindings.Half && !recompute { // refused: every cast would be kept
						continue
					}
					cfg := tinyConfig(t, method)
					cfg.Model.Path, cfg.Model.Task, cfg.Model.BaseDType, cfg.Machine.AMP = path, b.task, train.BaseDTypeName(precision.file), precision.amp
					cfg.Loop.BatchSize, cfg.Loop.Epochs, cfg.Loop.GradAccum, cfg.Loop.Recompute, cfg.Loop.LogEvery = 4, 1, 2, recompute, 1
					cfg.Data.Limit = 40
					if b.task == "causal" {
						cfg.Data.Data, cfg.Data.MaxLength = writeSequences(t, 40), 24
					}
					all[fmt.Sprint(family, "/", b.task, "/", method, "/", precision.file, " ", precision.amp, "/recompute ", recompute)] = cfg
				}
			}
		}
	}
	return all
}

// What is streamed is trained to the same bits: losses, gradients (which Adam's state is made of) and weights.
func TestStreamedWeightsTrainToTheSameBits(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for name, resident := range streamConfigs(t) {
		t.Run(name, func(t *testing.T) {
			mustRun(t, resident, run.Refuse)
			cfg, ui := resident, &notes{}
			cfg.Machine.Stream, cfg.Output.Out = true, filepath.Join(t.TempDir(), "streamed")
			base := bindings.Live()
			if _, err := run.Run(t.Context(), cfg, run.Refuse, ui); err != nil {
				t.Fatal(err)
			}
			if n := bindings.Live() - base; n != 0 {
				t.Errorf("%d tensors left alive", n)
			}
			if !strings.Contains(ui.text, "streaming") {
				t.Errorf("nothing is streamed: %q", ui.text)
			}
			sameRun(t, comparable(t, cfg.Output.Out), comparable(t, resident.Output.Out))
		})
	}
}

// A run goes on with its weights streamed, or no longer.
func TestStreamedRunsResume(t *testing.T) {
	whole := tinyConfig(t, "lora")
	whole.Model.Path = writeModel(t, streamedDistilBERT, true, bindings.Float)
	mustRun(t, whole, run.Refuse)
	cfg := whole
	cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
	interrupt(t, cfg, "train", 3)
	cfg.Machine.Stream = true
	mustRun(t, cfg, run.Resume)
	sameRun(t, comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out))
}

// unaligned is a model whose weights begin at an odd byte of their file, where none can be used in place.
func unaligned(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "model.safetensors")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(raw)
	moved := binary.LittleEndian.AppendUint64(nil, n+1)
	moved = append(append(append(moved, raw[8:8+n]...), ' '), raw[8+n:]...)
	if err := os.WriteFile(file, moved, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWhatCannotBeStreamedIsRefused(t *testing.T) {
	half, float := writeModel(t, streamedLLaMA, false, bindings.Half), writeModel(t, streamedDistilBERT, true, bindings.Float)
	for _, c := range []struct {
		name, path string
		change     func(*run.Config)
		says       string
	}{
		{"other dtype", float, func(c *run.Config) { c.Model.BaseDType = "bf16" }, "--base-dtype fp32"},
		{"quantised at load", float, func(c *run.Config) { c.Model.Quantize = "nf4" }, "--quantize nf4"},
		{"copied", float, func(c *run.Config) { c.Machine.Without = train.Levers{train.LeverMapping} }, "--without mapping"},
		{"all trained", float, func(c *run.Config) { c.Model.Method = "full" }, "are trained"},
		{"kept casts", half, func(c *run.Config) {
			c.Model.Task, c.Model.BaseDType, c.Machine.AMP = "causal", "fp16", "bf16"
		}, "--checkpoint-activations"},
		{"kept casts without kernels", float, func(c *run.Config) {
			c.Machine.AMP, c.Machine.Without = "bf16", train.Levers{train.LeverKernels}
		}, "--checkpoint-activations"},
		{"not aligned", unaligned(t, float), func(*run.Config) {}, "safetensors"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := tinyConfig(t, "lora")
			cfg.Model.Path, cfg.Machine.Stream = c.path, true
			c.change(&cfg)
			_, err := run.Run(t.Context(), cfg, run.Refuse, train.Quiet{})
			if usage := (*train.UsageError)(nil); !errors.As(err, &usage) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v", err)
			}
		})
	}
}
