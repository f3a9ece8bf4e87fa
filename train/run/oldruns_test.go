package run_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/infer"
	"gopeft/train/report"
	"gopeft/train/run"
)

// The folders in testdata/runs were written by an earlier release; its README.md says how. Paths in their settings
// are relative to testdata.

// inTestdata makes testdata the working directory, with an empty cache.
func inTestdata(t *testing.T) {
	t.Helper()
	t.Chdir(modeltest.Testdata(t, ""))
	t.Setenv("GOPEFT_HOME", t.TempDir())
}

// oldRun copies an old run's folder, and reads its settings.
func oldRun(t *testing.T, name string) run.Config {
	t.Helper()
	out := filepath.Join(t.TempDir(), name)
	if err := os.CopyFS(out, os.DirFS(filepath.Join("runs", name))); err != nil {
		t.Fatal(err)
	}
	cfg, err := run.ReadConfig(filepath.Join(out, "config.yaml"), run.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Output.Out, cfg.Output.Checkpoints = out, 0 // those of every step are for stopping anywhere
	return cfg
}

// onTheirCPU reports whether this machine computes as the one that the old runs were made on: only then are bits the
// same, since libtorch and we choose kernels by the CPU.
func onTheirCPU(t *testing.T, name string) bool {
	t.Helper()
	want, err := os.ReadFile(filepath.Join("runs", name+".cpu.txt")) // of its own
	if errors.Is(err, fs.ErrNotExist) {
		want, err = os.ReadFile(filepath.Join("runs", "cpu.txt"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(want)) == thisCPU() && os.Getenv("GOPEFT_CPU") == ""
}

// thisCPU is libtorch's instruction set, the CPU's maker, and those of its features that kernels are chosen by.
func thisCPU() string {
	words := []string{bindings.CPUCapability()}
	info, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return words[0]
	}
	defer info.Close()
	for lines := bufio.NewScanner(info); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(key) {
		case "vendor_id":
			words = append(words, strings.TrimSpace(value))
		case "flags":
			var flags []string
			for _, f := range strings.Fields(value) {
				if strings.HasPrefix(f, "avx") || strings.HasPrefix(f, "amx") || strings.HasPrefix(f, "fma") {
					flags = append(flags, f)
				}
			}
			slices.Sort(flags)
			return strings.Join(append(words, flags...), " ") // of the first core
		}
	}
	return strings.Join(words, " ")
}

// needTheirDropout skips a test of an old run with dropout where our own kernels, which drew its masks, do not run.
func needTheirDropout(t *testing.T, run string) {
	t.Helper()
	if run != "llama-full" && run != "features" && bindings.CPUPath() == "none" {
		t.Skip("the old runs' dropout was drawn by our own kernels: this needs a CPU that they run on")
	}
}

// oldTolerance is how far a CPU's kernels may take a run from what those of another gave.
const oldTolerance = 1e-5

func TestOldRunsResume(t *testing.T) {
	for _, c := range []struct {
		name, folder string
		set          func(*run.Config)
	}{
		{"lora", "distilbert-lora", func(*run.Config) {}},
		{"lora with choices left to it", "distilbert-lora", func(c *run.Config) { c.Loop.LR, c.Machine.Device, c.Automatic = 0, "auto", nil }},
		{"a BERT read as a DistilBERT", "bert-lora", func(*run.Config) {}},
		{"a BERT without its run's settings", "bert-lora", func(c *run.Config) { c.Model.ReadAs = "" }},
		{"prefix on packed rows", "llama-prefix", func(*run.Config) {}},
		{"full", "llama-full", func(*run.Config) {}},
	} {
		t.Run(c.name, func(t *testing.T) {
			needTheirDropout(t, c.folder)
			inTestdata(t)
			exact := onTheirCPU(t, c.folder)
			t.Logf("compared to the bit: %v", exact)
			cfg := oldRun(t, c.folder)
			c.set(&cfg)
			before, _, err := report.ReadMetrics(filepath.Join(cfg.Output.Out, "metrics.csv"))
			if err != nil {
				t.Fatal(err)
			}
			begun, err := train.ReadProgress(filepath.Join(cfg.Output.Out, "last", "state"))
			if err != nil || begun.Step == 0 {
				t.Fatalf("the old run stands at step %d, %v", begun.Step, err)
			}

			heard := &notes{}
			sum, err := run.Run(context.Background(), cfg, run.Resume, heard)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(heard.text, "resuming after step") {
				t.Errorf("it did not go on:\n%s", heard.text)
			}
			sameWeights(t, trained(t, cfg.Output.Out), params(t, filepath.Join("runs", "final", c.folder+".safetensors")), exact)
			want, err := report.ReadSummary(filepath.Join("runs", "final", c.folder+".json"))
			if err != nil {
				t.Fatal(err)
			}
			sameScores(t, sum, want)
			after, _, err := report.ReadMetrics(filepath.Join(cfg.Output.Out, "metrics.csv"))
			if err != nil || len(after) <= len(before) || after[0].TrainLoss != before[0].TrainLoss || after[len(after)-1].Step <= begun.Step {
				t.Errorf("metrics.csv does not go on from its %d rows: %+v, %v", len(before), after, err)
			}
			for _, r := range after { // the old rows' means of an epoch are in their own column now
				if end := !math.IsNaN(r.EpochTrainLoss); end == !math.IsNaN(r.TrainLoss) {
					t.Errorf("a row has both the mean of an epoch and that of a window, or none: %+v", r)
				}
			}
		})
	}
}

func sameWeights(t *testing.T, got, want map[string][]float32, exact bool) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Errorf("%d tensors, want %d", len(got), len(want))
	}
	for name, w := range want {
		if len(got[name]) != len(w) {
			t.Errorf("%s: %d numbers, want %d", name, len(got[name]), len(w))
			continue
		}
		for i, v := range got[name] {
			if exact && v != w[i] || !(math.Abs(float64(v-w[i])) <= oldTolerance) {
				t.Errorf("%s[%d] is %v, want %v", name, i, v, w[i])
				break
			}
		}
	}
}

// sameScores compares what two summaries say, but for time and memory.
func sameScores(t *testing.T, got, want report.Summary) {
	t.Helper()
	for i, w := range scores(want) {
		g := scores(got)[i]
		if same := math.Abs(g-w) <= oldTolerance || math.IsNaN(g) && math.IsNaN(w); !same {
			t.Errorf("losses and accuracies are %v, want %v", scores(got), scores(want))
			break
		}
	}
	if got.Params != want.Params || got.BestEpoch != want.BestEpoch {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func scores(s report.Summary) []float64 {
	a, l := s.Accuracy, s.Loss
	return []float64{float64(a.Train), float64(a.Val), float64(a.Test), float64(l.Train), float64(l.Val), float64(l.Test)}
}

// oldRow is a row of the old runs' data, or of what was predicted for it.
type oldRow struct {
	IDs    []int64   `json:"input_ids"`
	Label  any       `json:"label"`
	Logits []float64 `json:"logits"`
}

func readOldRows(t *testing.T, name string) []oldRow {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("runs", name))
	if err != nil {
		t.Fatal(err)
	}
	var rows []oldRow
	for d := json.NewDecoder(bytes.NewReader(raw)); d.More(); {
		var r oldRow
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, r)
	}
	return rows
}

// An old run's classic classifier predicts as it did.
func TestOldFeaturesPredict(t *testing.T) {
	inTestdata(t)
	rows, want := readOldRows(t, "rows.jsonl"), readOldRows(t, "final/features.jsonl")
	ids := make([][]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.IDs
	}
	src, err := infer.Resolve(filepath.Join("runs", "features"), "")
	if err != nil {
		t.Fatal(err)
	}
	var got []infer.Prediction
	if err := bindings.Do(context.Background(), func(s *bindings.Scope) error {
		p, err := infer.OpenPredictor(s, src, infer.PredictorOptions{Device: "cpu", Threads: 2, Batch: 32})
		if err != nil {
			return err
		}
		got, err = p.Predict(context.Background(), s, ids)
		return errors.Join(err, p.Close())
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d predictions, want %d", len(got), len(want))
	}
	for i, w := range want {
		if label := got[i].Labels[got[i].Label]; label != w.Label {
			t.Errorf("row %d is predicted to be %s, was %s", i, label, w.Label)
		}
		for k, v := range w.Logits {
			if !(math.Abs(float64(got[i].Logits[k])-v) <= oldTolerance) {
				t.Errorf("row %d has logits %v, had %v", i, got[i].Logits, w.Logits)
				break
			}
		}
	}
}

// The settings that an old run has written repeat it.
func TestOldSettingsRepeatTheirRun(t *testing.T) {
	for _, name := range []string{"distilbert-lora", "bert-lora", "llama-prefix", "llama-full", "features"} {
		t.Run(name, func(t *testing.T) {
			needTheirDropout(t, name)
			inTestdata(t)
			cfg := oldRun(t, name)
			cfg.Output.Out = filepath.Join(t.TempDir(), "again")
			sum := mustRun(t, cfg, run.Refuse)
			final := filepath.Join("runs", "final", name+".json")
			if name == train.Features {
				final = filepath.Join("runs", name, "summary.json")
			}
			want, err := report.ReadSummary(final)
			if err != nil {
				t.Fatal(err)
			}
			sameScores(t, sum, want)
			if name != train.Features {
				sameWeights(t, trained(t, cfg.Output.Out), params(t, filepath.Join("runs", "final", name+".safetensors")), onTheirCPU(t, name))
			}
		})
	}
}

// A comparison whose runs an old release has finished takes them as they are.
func TestOldComparisonResumes(t *testing.T) {
	inTestdata(t)
	out := filepath.Join(t.TempDir(), "compare")
	if err := os.CopyFS(out, os.DirFS(filepath.Join("runs", "compare"))); err != nil {
		t.Fatal(err)
	}
	c, err := run.ReadComparison(filepath.Join(out, "compare.yaml"), run.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	c.Base.Output.Out = out
	results, err := run.Compare(context.Background(), c, run.Resume, train.Quiet{}, func(_ context.Context, cfg run.Config, _ run.OutMode) (report.Summary, error) {
		return report.Summary{}, fmt.Errorf("%s is run again", cfg.Model.Method)
	})
	if err != nil || len(results) != 2 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for i, want := range []string{"logreg", "bitfit"} {
		if results[i].Method != want {
			t.Errorf("result %d is %s, want %s", i, results[i].Method, want)
		}
	}
	if cfg, err := c.Config("bitfit"); err != nil || cfg.Loop.LR != 2e-3 {
		t.Errorf("bitfit's learning rate is %v, want that of its settings; %v", cfg.Loop.LR, err)
	}
}
