package bench_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gopeft/bindings"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/bench"
	"gopeft/train/classic"
	"gopeft/train/classic/xgboost"
)

// tiny is a bench of a shape that takes no time.
func tiny(arch string) bench.Config {
	c := bench.Defaults()
	c.Arch, c.Layers, c.Hidden, c.Heads, c.FFN, c.Vocab = arch, 2, 16, 2, 32, 60
	c.Batch, c.Seq, c.Steps, c.Threads = 3, 10, 3, 1
	c.Peft.VirtualTokens, c.Peft.AdapterLength, c.Peft.ReductionFactor, c.Peft.Rank = 3, 3, 4, 2
	return c
}

func measure(t *testing.T, c bench.Config) bench.Result {
	t.Helper()
	base := bindings.Live()
	r, err := bench.Run(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if n := bindings.Live() - base; n != 0 {
		t.Errorf("%d tensors left alive", n)
	}
	for name, v := range map[string]float64{"samples_per_s": r.SamplesPerS, "tokens_per_s": r.TokensPerS, "step_s": r.StepS.Median,
		"first_step_s": r.FirstStepS, "startup_s": r.StartupS, "peak_rss_mb": r.PeakRSSMB, "go_heap_mb": r.GoHeapMB} {
		if !(v > 0) || math.IsInf(v, 0) {
			t.Errorf("%s is %v", name, v)
		}
	}
	if r.StepS.Min > r.StepS.Median || r.StepS.Median > r.StepS.Max || r.StartupS > r.FirstStepS {
		t.Errorf("figures out of order: %+v", r)
	}
	return r
}

func TestEveryMethodTrains(t *testing.T) {
	for _, arch := range []string{"distilbert", "llama"} {
		for _, method := range peft.Methods() {
			t.Run(arch+"/"+method, func(t *testing.T) {
				c := tiny(arch)
				c.Method, c.Profile = method, true
				r := measure(t, c)
				if r.Trainable <= 0 || r.Trainable > r.Total || method == "full" && r.Trainable != r.Total {
					t.Errorf("%d of %d trainable", r.Trainable, r.Total)
				}
				if r.Steps != 3 || r.Warmup != 1 || !(r.FirstLoss > 0) || !(r.LastLoss > 0) || r.FirstLoss == r.LastLoss {
					t.Errorf("took %d steps (%d of warm-up), loss %v to %v", r.Steps, r.Warmup, r.FirstLoss, r.LastLoss)
				}
				phases := 0.0
				for p := range train.Phases {
					phases += r.PhaseS[p.String()]
				}
				if len(r.PhaseS) != int(train.Phases) || phases <= 0 || phases > r.StepS.Max {
					t.Errorf("phases %v of a step of %v s", r.PhaseS, r.StepS)
				}
			})
		}
	}
}

func TestRatesAreWorkOverTime(t *testing.T) {
	c := tiny("distilbert")
	c.Method, c.Steps, c.Warmup = "last", 2, 1
	r := measure(t, c)
	if d := r.SamplesPerS * r.StepS.Median / 3; math.Abs(d-1) > 1e-9 {
		t.Errorf("%v samples/s, steps of 3 rows take %v s", r.SamplesPerS, r.StepS.Median)
	}
	if d := r.TokensPerS / r.SamplesPerS / 10; math.Abs(d-1) > 1e-9 {
		t.Errorf("%v tokens/s for %v rows/s of 10 tokens", r.TokensPerS, r.SamplesPerS)
	}
}

func TestInferenceAndFeatures(t *testing.T) {
	for _, arch := range []string{"distilbert", "llama"} {
		for _, method := range []string{train.Features, bench.Base, "lora"} {
			for _, dtype := range []string{"fp32", "bf16"} {
				c := tiny(arch)
				c.Mode, c.Method, c.DType = bench.Infer, method, dtype
				if r := measure(t, c); r.Steps != 3 || r.Mode != bench.Infer || r.Padding != 0 {
					t.Errorf("%s %s: %+v", arch, method, r)
				}
			}
		}
	}
}

func TestGeneration(t *testing.T) {
	for _, method := range []string{bench.Base, "lora", "llama-adapter", "prefix", "prompt"} {
		c := tiny("llama")
		c.Mode, c.Method, c.DType, c.NewTokens, c.KVHeads = bench.Generate, method, "bf16", 5, 1
		r := measure(t, c)
		if r.NewTokens != 5 || !(r.PrefillS > 0) || !(r.DecodeTokensPerS >= r.DecodeMedian) || !(r.DecodeMedian > 0) {
			t.Errorf("%s: %+v", method, r)
		}
	}
}

func TestRealLengths(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lengths")
	if err := os.WriteFile(path, []byte("2 9 3 8 4 7 5 6 300\n2 9 3"), 0o600); err != nil {
		t.Fatal(err)
	}
	padding := map[string]float64{}
	for _, pad := range []string{bench.PadMax, bench.PadLongest, bench.PadBucket} {
		c := tiny("distilbert")
		c.Method, c.Lengths, c.Pad, c.Steps = "last", path, pad, 0
		r := measure(t, c)
		if r.Steps != 4 {
			t.Errorf("%s: 12 rows in batches of 3 took %d steps", pad, r.Steps)
		}
		padding[pad] = r.Padding
	}
	if want := 1 - 68.0/120; math.Abs(padding[bench.PadMax]-want) > 1e-9 || !(padding[bench.PadBucket] < padding[bench.PadLongest]) || !(padding[bench.PadLongest] < want) {
		t.Errorf("padding %v", padding)
	}
	c := tiny("distilbert")
	c.Method, c.Lengths, c.Steps = train.Features, path, 0
	if r := measure(t, c); r.Steps != 4 || r.Padding != padding[bench.PadBucket] {
		t.Errorf("features: %d steps, padding %v", r.Steps, r.Padding)
	}
}

func TestFittingClassifiers(t *testing.T) {
	const rows, columns = 60, 4
	features, labels := make([]byte, 4*rows*columns), make([]byte, 8*rows)
	for i := range rows {
		labels[8*i] = byte(i % 2)
		for k := range columns {
			binary.LittleEndian.PutUint32(features[4*(i*columns+k):], math.Float32bits(float32(i%2*4)+float32(i*k%7)/7))
		}
	}
	write := func(name string, ts ...files.Tensor) string {
		path := filepath.Join(t.TempDir(), name)
		if err := files.WriteSafetensors(path, ts, nil); err != nil {
			t.Fatal(err)
		}
		return path
	}
	x := files.Tensor{Name: "features", DType: files.F32, Shape: []int64{rows, columns}, Data: features}
	y := files.Tensor{Name: "labels", DType: files.I64, Shape: []int64{rows}, Data: labels}
	good := write("x.safetensors", x, y)
	for _, name := range classic.Kinds() {
		if _, err := xgboost.Find(); name == classic.KindBoosted && err != nil {
			t.Log("SKIPPED: ", err)
			continue
		}
		c := bench.Defaults()
		c.Mode, c.Fitted, c.Features, c.Holdout, c.Steps = bench.Fit, name, good, 10, 2
		r, err := bench.Run(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		if r.Accuracy != 1 || r.Steps != 2 || !(r.SamplesPerS > 0) || r.Method != name {
			t.Errorf("%+v", r)
		}
	}
	negative := slices.Clone(labels)
	for i := range 8 {
		negative[8+i] = 0xff
	}
	for path, want := range map[string]string{
		"": "--features", write("none"): "no fp32 tensor", write("x", x): "no int64 tensor",
		write("negative", x, files.Tensor{Name: "labels", DType: files.I64, Shape: []int64{rows}, Data: negative}): "label of row 2 is -1",
	} {
		c := bench.Defaults()
		c.Mode, c.Features = bench.Fit, path
		if _, err := bench.Run(context.Background(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	c := bench.Defaults()
	c.Mode, c.Features, c.Holdout = bench.Fit, good, rows
	if _, err := bench.Run(context.Background(), c); err == nil || !strings.Contains(err.Error(), "--holdout") {
		t.Errorf("got %v", err)
	}
}

func TestTokenizing(t *testing.T) {
	c := bench.Defaults()
	c.Mode, c.Model, c.Texts = bench.Tokenize, t.TempDir(), filepath.Join(t.TempDir(), "texts")
	if err := os.WriteFile(filepath.Join(c.Model, "vocab.txt"), []byte("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Texts, []byte("a b a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := bench.Run(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	if d := r.TokensPerS / r.SamplesPerS / 4; math.Abs(d-1) > 1e-9 || r.Threads != 1 { // with [CLS] and [SEP], 8 tokens in 2 texts
		t.Errorf("%+v", r)
	}
	c.Texts = ""
	if _, err := bench.Run(context.Background(), c); err == nil || !strings.Contains(err.Error(), "--texts") {
		t.Errorf("got %v", err)
	}
}

func TestRealModel(t *testing.T) {
	c := tiny("")
	c.Model, c.Method = modeltest.Testdata(t, "distilbert/tiny"), "lora"
	if r := measure(t, c); r.Arch != "distilbert" {
		t.Errorf("%+v", r)
	}
}

func TestStepsCountFromTheProcessStart(t *testing.T) {
	c := tiny("distilbert")
	a := measure(t, c).FirstStepS
	time.Sleep(30 * time.Millisecond)
	if b := measure(t, c).FirstStepS; b < a+0.02 {
		t.Errorf("first steps %v s and %v s after the process started", a, b)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := bench.Run(ctx, tiny("distilbert")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestSettingsThatCannotBeRight(t *testing.T) {
	text := filepath.Join(t.TempDir(), "lengths")
	if err := os.WriteFile(text, []byte("3 x"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		set  func(*bench.Config)
	}{
		{"--arch", func(c *bench.Config) { c.Arch = "" }},
		{"--model and --arch", func(c *bench.Config) { c.Model = "x" }},
		{"--mode", func(c *bench.Config) { c.Mode = "walk" }},
		{"--method", func(c *bench.Config) { c.Method = "magic" }},
		{"trains nothing", func(c *bench.Config) { c.Method = bench.Base }},
		{"--pad", func(c *bench.Config) { c.Pad = "left" }},
		{"--dtype", func(c *bench.Config) { c.DType = "int4" }},
		{"--dtype bf16", func(c *bench.Config) { c.DType = "bf16" }},
		{"--batch is 0", func(c *bench.Config) { c.Batch = 0 }},
		{"--steps is 0", func(c *bench.Config) { c.Steps = 0 }},
		{"tokens", func(c *bench.Config) { c.Steps = 1 << 24 }},
		{"--mode generate", func(c *bench.Config) { c.Mode = bench.Generate }},
		{"multiple", func(c *bench.Config) { c.Heads = 3 }},
		{"vocabulary", func(c *bench.Config) { c.Vocab = 1 }},
		{"rank", func(c *bench.Config) { c.Method, c.Peft.Rank = "lora", -1 }},
		{"virtual-tokens", func(c *bench.Config) { c.Method, c.Peft.VirtualTokens = "prompt", -1 }},
		{"--amp", func(c *bench.Config) { c.AMP = "int4" }},
		{"optimizer", func(c *bench.Config) { c.Optimizer = "lion" }},
		{"--dropout", func(c *bench.Config) { c.Dropout = 1 }},
		{"length 2 is \"x\"", func(c *bench.Config) { c.Lengths = text }},
		{"no lengths", func(c *bench.Config) { c.Lengths = empty }},
		{"no such file", func(c *bench.Config) { c.Lengths = empty + ".none" }},
		{"--pad max", func(c *bench.Config) { c.Lengths, c.Mode, c.Pad = text, bench.Infer, bench.PadMax }},
		{"reads at most", func(c *bench.Config) {
			c.Arch, c.Model, c.Seq = "", modeltest.Testdata(t, "distilbert/tiny"), 100_000
		}},
		{"no language model", func(c *bench.Config) {
			c.Arch, c.Model, c.Mode, c.Method = "", modeltest.Testdata(t, "distilbert/tiny"), bench.Generate, bench.Base
		}},
	} {
		cfg := tiny("distilbert")
		c.set(&cfg)
		_, err := bench.Run(context.Background(), cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one line with %q", err, c.want)
		}
	}
}
