package run_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/run"
	"gopeft/train/traintest"
)

// overQuantised is a causal run, packed, with recomputation, accumulation and dropout, of a model whose files are quantised.
func overQuantised(t *testing.T, folder string, c traintest.MethodCase) run.Config {
	cfg := causalConfig(t, c.Method)
	cfg.Model.Path, cfg.Peft, cfg.Peft.LoRADropout, cfg.Loop.LR, cfg.Loop.Epochs = modeltest.Testdata(t, "quantised_folders/"+folder), c.Options, 0.1, 0, 1
	return cfg
}

// quantised is what a run's settings say of the base.
func quantised(t *testing.T, out string) string {
	t.Helper()
	cfg, err := run.ReadConfig(filepath.Join(out, "config.yaml"), run.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Model.Quantize
}

// Over weights that stay quantised every method learns what it learns over the same weights in fp32, and a run that is
// stopped goes on to the same bits.
func TestABaseThatStaysQuantisedLearnsTheSame(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for _, folder := range []string{"nf4-double", "int8", "gptq"} {
		for _, c := range traintest.MethodCases() {
			if c.Method == "full" || folder != "nf4-double" && c.Method != "lora" && c.Method != "last" {
				continue
			}
			t.Run(folder+"/"+c.Name, func(t *testing.T) {
				wide := overQuantised(t, folder, c)
				wide.Model.Quantize = "none"
				there := mustRun(t, wide, run.Refuse)
				kept := overQuantised(t, folder, c)
				kept.Data.Data = wide.Data.Data
				here := mustRun(t, kept, run.Refuse)
				tolerance := 2e-5
				if c.Method == "prefix" { // its first values come of products of few rows, whose activations are rounded
					tolerance = 1e-4
				}
				sameLosses(t, c.Name, here, there, tolerance)
				if was, is := quantised(t, wide.Output.Out), quantised(t, kept.Output.Out); was != "none" || is != "keep" {
					t.Errorf("config.yaml has quantize %s and %s", was, is)
				}
				stopped := kept
				stopped.Output.Out = filepath.Join(t.TempDir(), "stopped")
				interrupt(t, stopped, "train", 3)
				mustRun(t, stopped, run.Resume)
				sameRun(t, comparable(t, stopped.Output.Out), comparable(t, kept.Output.Out))
			})
		}
	}
}

// A plain base is rounded when it is loaded; a run goes on only as it was begun.
func TestQuantizeRoundsThePlainBase(t *testing.T) {
	for name, config := range map[string]func(*testing.T, string) run.Config{"classify": tinyConfig, "causal": causalConfig} {
		t.Run(name, func(t *testing.T) {
			plain := config(t, "lora")
			plain.Model.Dropout, plain.Peft.LoRADropout, plain.Loop.Epochs = 0, 0, 1
			want := mustRun(t, plain, run.Refuse)
			cfg := plain
			cfg.Model.Quantize, cfg.Output.Out = "int8", filepath.Join(t.TempDir(), "int8")
			sameLosses(t, "int8", mustRun(t, cfg, run.Refuse), want, 0.03)
			if is := quantised(t, plain.Output.Out) + " " + quantised(t, cfg.Output.Out); is != "none int8" {
				t.Errorf("config.yaml has quantize %s", is)
			}
			cfg.Model.Quantize = "none"
			if _, err := run.Run(context.Background(), cfg, run.Resume, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "--quantize") {
				t.Errorf("resumed with another --quantize: %v", err)
			}
		})
	}
}

func TestWhatCannotBeQuantisedIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, method, folder, quantize string
		unfreeze                       []string
		usage                          bool
		want                           []string
	}{
		{"full", "full", "quantised_folders/nf4-double", "keep", nil, true, []string{"--quantize keep", "method full", "--quantize none"}},
		{"unfrozen map", "lora", "quantised_folders/nf4-double", "", []string{"layers.1.mlp.up_proj"}, false, []string{"layers.1.mlp.up_proj.weight is quantised (NF4)", "--quantize none"}},
		{"narrow rows", "lora", "llama/gqa", "nf4", nil, false, []string{"model.safetensors", "rows of", "multiple of 64"}},
		{"quantised already", "lora", "quantised_folders/int8", "nf4", nil, false, []string{"model.safetensors", "INT8 already", "keep"}},
		{"unknown", "lora", "llama/gqa", "fp8", nil, true, []string{`--quantize "fp8" is not known (none, nf4, int8, keep)`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := causalConfig(t, c.method)
			cfg.Model.Path, cfg.Model.Quantize, cfg.Peft.Unfreeze = modeltest.Testdata(t, c.folder), c.quantize, c.unfreeze
			_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
			usage := (*train.UsageError)(nil)
			if err == nil || errors.As(err, &usage) != c.usage {
				t.Fatalf("got %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %q in one line", err, want)
				}
			}
		})
	}
	cfg := causalConfig(t, "full") // which holds the base in full by itself
	cfg.Model.Path, cfg.Loop.Epochs = modeltest.Testdata(t, "quantised_folders/nf4-double"), 1
	mustRun(t, cfg, run.Refuse)
}
