package run_test

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings/bindingstest"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/run"
)

// sameCurve compares the losses of two runs.
func sameCurve(t *testing.T, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%d losses, want %d", len(got), len(want))
	}
	for i := range want {
		if !(math.Abs(got[i]-want[i]) <= tol) {
			t.Errorf("loss %d is %v, want %v", i, got[i], want[i])
			return
		}
	}
}

// A run on a GPU learns what one on the CPU does, whatever the method and the precision: the first weights and the
// order of the rows are the same.
func TestCUDALearnsWhatTheCPUDoes(t *testing.T) {
	bindingstest.NeedCUDA(t)
	for _, m := range []struct {
		name string
		cfg  func(t *testing.T, method string) run.Config
	}{
		{"distilbert", tinyConfig},
		{"bert", bertConfig},
		{"roberta", func(t *testing.T, method string) run.Config {
			cfg := tinyConfig(t, method)
			cfg.Model.Path = modeltest.Testdata(t, "roberta/tiny")
			return cfg
		}},
		{"llama/seqcls", func(t *testing.T, method string) run.Config {
			cfg := tinyConfig(t, method)
			cfg.Model.Path, cfg.Data.Data = modeltest.Testdata(t, "llama/seqcls"), writeClasses(t, 120)
			return cfg
		}},
		{"llama/gqa", causalConfig},
		{"llama/tied", func(t *testing.T, method string) run.Config {
			cfg := causalConfig(t, method)
			cfg.Model.Path, cfg.Data.Pack, cfg.Loop.Recompute, cfg.Loop.GradAccum = modeltest.Testdata(t, "llama/tied"), false, false, 1
			return cfg
		}},
	} {
		for _, method := range run.Methods() {
			base := m.cfg(t, method)
			base.Model.Dropout, base.Peft.LoRADropout, base.Loop.LR, base.Loop.Clip = 0, 0, 1e-3, 1
			base.Peft.VirtualTokens, base.Peft.AdapterLength, base.Peft.Bottleneck = 3, 3, 8
			base.Machine.Device = "cpu"
			if _, err := run.Run(context.Background(), base, run.Refuse, train.Quiet{}); err != nil {
				t.Logf("%s/%s is left out: %v", m.name, method, err)
				continue
			}
			if method == train.Features {
				continue
			}
			want := readLosses(t, base.Output.Out)
			for _, amp := range []struct { // the loss scaler of fp16 skips steps until it has found its scale
				name string
				tol  float64
			}{{"none", 2e-4}, {"bf16", 0.05}, {"fp16", 0.5}} {
				t.Run(strings.Join([]string{m.name, method, amp.name}, "/"), func(t *testing.T) {
					cfg := base
					cfg.Machine.Device, cfg.Machine.AMP, cfg.Output.Out = "cuda", amp.name, filepath.Join(t.TempDir(), "cuda")
					sum := mustRun(t, cfg, run.Refuse)
					if p, err := train.ReadProgress(filepath.Join(cfg.Output.Out, "last", "state")); err != nil || 2*p.Skipped > p.Step {
						t.Errorf("%d of %d steps were skipped, %v", p.Skipped, p.Step, err)
					}
					if !(sum.PeakCUDAMB > 0) {
						t.Errorf("the GPU held %v MB at most", sum.PeakCUDAMB)
					}
					sameCurve(t, readLosses(t, cfg.Output.Out), want, amp.tol)
				})
			}
		}
	}
}

// What is set beside the method holds on a GPU too.
func TestCUDASettings(t *testing.T) {
	bindingstest.NeedCUDA(t)
	for name, set := range map[string]func(*run.Config){
		"adamw":      func(c *run.Config) { c.Loop.Optimizer, c.Loop.WeightDecay = "adamw", 0.01 },
		"sgd":        func(c *run.Config) { c.Loop.Optimizer, c.Loop.Momentum, c.Loop.LR = "sgd", 0.9, 1e-2 },
		"recompute":  func(c *run.Config) { c.Loop.Recompute = true },
		"accumulate": func(c *run.Config) { c.Loop.GradAccum = 3 },
		"tokens":     func(c *run.Config) { c.Loop.MaxTokens = 64 },
		"cached":     func(c *run.Config) { c.Model.Method, c.Model.CacheStates = "last", true },
		"dora":       func(c *run.Config) { c.Model.Method = "dora" },
		"without":    func(c *run.Config) { c.Machine.Without = train.AllLevers() },
	} {
		t.Run(name, func(t *testing.T) {
			base := tinyConfig(t, "lora")
			base.Model.Dropout, base.Machine.Device, base.Loop.LR = 0, "cpu", 1e-3
			set(&base)
			mustRun(t, base, run.Refuse)
			cfg := base
			cfg.Machine.Device, cfg.Output.Out = "cuda", filepath.Join(t.TempDir(), "cuda")
			mustRun(t, cfg, run.Refuse)
			sameCurve(t, readLosses(t, cfg.Output.Out), readLosses(t, base.Output.Out), 2e-4)
		})
	}
}

// A language model learns with compiled kernels what it does without them.
func TestCUDACompiledKernelsChangeNothing(t *testing.T) {
	bindingstest.NeedCUDA(t)
	for amp, tol := range map[string]float64{"none": 2e-4, "bf16": 0.03, "fp16": 0.03} {
		t.Run(amp, func(t *testing.T) {
			base := causalConfig(t, "lora")
			base.Model.Dropout, base.Peft.LoRADropout, base.Machine.Device, base.Machine.AMP = 0, 0, "cuda", amp
			mustRun(t, base, run.Refuse)
			cfg := base
			cfg.Machine.Without, cfg.Output.Out = train.Levers{train.LeverNVRTC}, filepath.Join(t.TempDir(), "without")
			mustRun(t, cfg, run.Refuse)
			sameCurve(t, readLosses(t, cfg.Output.Out), readLosses(t, base.Output.Out), tol)
		})
	}
}

// A run on a GPU that was interrupted goes on to the same bits, dropout and loss scaler included.
func TestCUDAResumes(t *testing.T) {
	bindingstest.NeedCUDA(t)
	for _, amp := range []string{"none", "bf16", "fp16"} {
		t.Run(amp, func(t *testing.T) {
			whole := manyToScore(t)
			whole.Machine.Device, whole.Machine.AMP, whole.Machine.Deterministic = "cuda", amp, true
			mustRun(t, whole, run.Refuse)
			want := comparable(t, whole.Output.Out)
			cfg := whole
			cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
			interrupt(t, cfg, "train", 3)
			mustRun(t, cfg, run.Resume)
			for name, content := range comparable(t, cfg.Output.Out) {
				if content != want[name] {
					t.Errorf("%s is not what the run without a break wrote", name)
				}
			}
		})
	}
}

func TestCUDADeviceThatIsNotThere(t *testing.T) {
	bindingstest.NeedCUDA(t)
	cfg := tinyConfig(t, "lora")
	cfg.Machine.Device = "cuda:99"
	if _, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "cuda:99") {
		t.Errorf("got %v", err)
	}
}
