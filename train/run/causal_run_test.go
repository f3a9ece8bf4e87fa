package run_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/report"
	"gopeft/train/run"
)

// writeChains makes texts that a language model can learn, of ids that the tiny LLaMAs know: each token but the
// first few, a prompt that is not learned, follows from the one before. The prompts' lengths, and with them the
// numbers of targets, differ.
func writeChains(t *testing.T, n int) string {
	t.Helper()
	r := rand.New(rand.NewPCG(5, 6))
	var b bytes.Buffer
	for range n {
		ids := make([]int, 5+r.IntN(12))
		labels := make([]int, len(ids))
		prompt := 1 + r.IntN(4)
		ids[0] = 3 + r.IntN(45)
		for i := range ids {
			if i > 0 {
				ids[i] = 3 + (ids[i-1]*5+1)%45
			}
			if labels[i] = ids[i]; i < prompt {
				labels[i] = -100
			}
		}
		row, err := json.Marshal(map[string]any{"input_ids": ids, "labels": labels})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(row, '\n'))
	}
	path := filepath.Join(t.TempDir(), "chains.jsonl")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// causalConfig is a language model's run with all that makes its steps differ from classification's: packed rows,
// blocks computed again in the backward pass, two batches to a step, and dropout in base and adapter.
func causalConfig(t *testing.T, method string) run.Config {
	cfg := tinyConfig(t, method)
	cfg.Model.Task, cfg.Model.Path, cfg.Data.Data = "causal", modeltest.Testdata(t, "llama/gqa"), writeChains(t, 120)
	cfg.Data.Pack, cfg.Data.MaxLength, cfg.Loop.Recompute, cfg.Loop.GradAccum, cfg.Loop.BatchSize = true, 40, true, 2, 2
	cfg.Model.Dropout, cfg.Peft.LoRADropout = 0.1, 0.1
	return cfg
}

func TestKilledCausalRunResumesToTheSameBits(t *testing.T) {
	whole := causalConfig(t, "lora")
	whole.Loop.Epochs, whole.Output.Checkpoints = 4, 2
	killAndResume(t, whole)
}

func TestInterruptedCausalRunResumesToTheSameBits(t *testing.T) {
	whole := causalConfig(t, "lora")
	mustRun(t, whole, run.Refuse)
	want := comparable(t, whole.Output.Out)
	for _, at := range []struct {
		phase string
		n     int
	}{{"train", 3}, {"validate", 1}, {"score training data", 1}, {"score test data", 1}} {
		cfg := whole
		cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
		interrupt(t, cfg, at.phase, at.n)
		mustRun(t, cfg, run.Resume)
		sameRun(t, comparable(t, cfg.Output.Out), want)
		if t.Failed() {
			t.Fatalf("when interrupted in %q", at.phase)
		}
	}
}

func TestNonFiniteCausalRunKeepsTheLastGoodCheckpoint(t *testing.T) {
	cfg := causalConfig(t, "full")
	cfg.Loop.LR, cfg.Output.Checkpoints, cfg.Loop.Optimizer = 1e30, 1, "sgd"
	_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
	var bad *train.NonFiniteError
	if !errors.As(err, &bad) || bad.Tensor == "" {
		t.Fatalf("got %v, want a *NonFiniteError that names a tensor", err)
	}
	p, err := train.ReadProgress(filepath.Join(cfg.Output.Out, "last", "state"))
	if err != nil || p.Step != bad.Step-1 {
		t.Errorf("the checkpoint stands at step %d (%v), the bad step is %d", p.Step, err, bad.Step)
	}
}

func TestFullDiskKeepsTheLastCheckpoint(t *testing.T) {
	for name, config := range map[string]func(*testing.T, string) run.Config{"classify": tinyConfig, "causal": causalConfig} {
		t.Run(name, func(t *testing.T) {
			whole := config(t, "lora")
			whole.Output.Checkpoints, whole.Loop.LogEvery = 1, 1000
			mustRun(t, whole, run.Refuse)
			want := comparable(t, whole.Output.Out)
			cfg := whole
			cfg.Output.Out = filepath.Join(t.TempDir(), "full")
			out, err := inChild(t, "full-disk", cfg).CombinedOutput()
			if err == nil || !strings.HasPrefix(string(out), "full disk: ") || !strings.Contains(string(out), filepath.Join(cfg.Output.Out, "last")) {
				t.Fatalf("got %v: %s, want that a file under last cannot grow", err, out)
			}
			if p, err := train.ReadProgress(filepath.Join(cfg.Output.Out, "last", "state")); err != nil || p.Step != 2 {
				t.Errorf("the checkpoint stands at step %d (%v)", p.Step, err)
			}
			for _, name := range []string{".last.tmp-*", "*.tmp*"} {
				if left, _ := filepath.Glob(filepath.Join(cfg.Output.Out, name)); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			}
			mustRun(t, cfg, run.Resume)
			sameRun(t, comparable(t, cfg.Output.Out), want)
		})
	}
}

// losses are a run's final losses on its three parts.
func losses(sum report.Summary) []float64 {
	return []float64{float64(sum.Loss.Train), float64(sum.Loss.Val), float64(sum.Loss.Test)}
}

func sameLosses(t *testing.T, what string, got, want report.Summary, tolerance float64) {
	t.Helper()
	w := losses(want)
	for i, v := range losses(got) {
		if !(math.Abs(v-w[i]) <= tolerance) {
			t.Errorf("%s: losses %v, want %v", what, losses(got), w)
			return
		}
	}
}

func TestPackedRowsAccumulationAndRecomputingChangeNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	plain := causalConfig(t, "full")
	plain.Data.Pack, plain.Loop.Recompute, plain.Loop.GradAccum, plain.Loop.BatchSize, plain.Model.Dropout = false, false, 1, 1000, 0
	plain.Loop.Optimizer, plain.Loop.LR, plain.Loop.Epochs, plain.Loop.NoShuffle, plain.Loop.NoBucket = "sgd", 0.5, 4, true, true
	want := mustRun(t, plain, run.Refuse)
	one := plain
	one.Loop.Epochs, one.Loop.LR, one.Output.Out = 1, 1e-9, filepath.Join(t.TempDir(), "untrained")
	if before := mustRun(t, one, run.Refuse); !(float64(want.Loss.Val) < float64(before.Loss.Val)-0.05) {
		t.Errorf("four steps changed little: %v, before %v", losses(want), losses(before))
	}
	for name, set := range map[string]func(*run.Config){
		"packed":      func(c *run.Config) { c.Data.Pack = true },
		"recomputed":  func(c *run.Config) { c.Loop.Recompute = true },
		"accumulated": func(c *run.Config) { c.Loop.BatchSize, c.Loop.GradAccum = 12, 6 }, // as many batches as the 72 rows make
		"one by one":  func(c *run.Config) { c.Loop.BatchSize, c.Loop.GradAccum = 1, 72 },
		"all of it": func(c *run.Config) {
			c.Data.Pack, c.Loop.Recompute, c.Loop.BatchSize, c.Loop.GradAccum = true, true, 3, 1000
		},
		"bucketed":       func(c *run.Config) { c.Loop.NoBucket, c.Loop.BatchSize, c.Loop.GradAccum = false, 8, 9 },
		"by token count": func(c *run.Config) { c.Loop.MaxTokens, c.Loop.GradAccum = 100, 1000 },
	} {
		cfg := plain
		cfg.Output.Out = filepath.Join(t.TempDir(), "run")
		set(&cfg)
		sameLosses(t, name, mustRun(t, cfg, run.Refuse), want, 2e-5)
	}
}

func TestRecomputingIsExactWithDropout(t *testing.T) {
	kept := causalConfig(t, "lora")
	kept.Loop.Recompute = false
	mustRun(t, kept, run.Refuse)
	again := kept
	again.Loop.Recompute, again.Output.Out = true, filepath.Join(t.TempDir(), "again")
	mustRun(t, again, run.Refuse)
	sameRun(t, comparable(t, again.Output.Out), comparable(t, kept.Output.Out))
	other := kept
	other.Model.Dropout, other.Peft.LoRADropout, other.Output.Out = 0, 0, filepath.Join(t.TempDir(), "other")
	mustRun(t, other, run.Refuse)
	if comparable(t, other.Output.Out)["last/state/state.safetensors"] == comparable(t, kept.Output.Out)["last/state/state.safetensors"] {
		t.Error("dropout changed nothing")
	}
}

func TestPromptsAreLearnedOnRequest(t *testing.T) {
	cfg := causalConfig(t, "full")
	cfg.Model.Path = textModel(t, "</s>")
	cfg.Data.Data = filepath.Join(t.TempDir(), "rows.csv")
	var rows strings.Builder
	rows.WriteString("q,a\n")
	for i := range 60 {
		fmt.Fprintf(&rows, "say %c %d,%c\n", 'a'+i%26, i, 'a'+(i+1)%26)
	}
	if err := os.WriteFile(cfg.Data.Data, []byte(rows.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Data.Template, cfg.Loop.Epochs, cfg.Loop.LR = "{q} -> {a}", 8, 3e-3
	masked := mustRun(t, cfg, run.Refuse)
	cfg.Data.MaskPrompt, cfg.Output.Out = false, filepath.Join(t.TempDir(), "prompts")
	notes := &notes{}
	all, err := run.Run(context.Background(), cfg, run.Refuse, notes)
	if err != nil {
		t.Fatal(err)
	}
	// The prompts' beginnings, the same in every row, are learned at once; what comes of the answers is not.
	if !(float64(all.Loss.Val) < float64(masked.Loss.Val)-0.3) {
		t.Errorf("with prompts %v, answers alone %v", losses(all), losses(masked))
	}
	if !strings.Contains(notes.text, "packed into") || !strings.Contains(notes.text, "of up to 40 tokens") {
		t.Errorf("how rows were packed is not said:\n%s", notes.text)
	}
}

func TestPackedRowsAreAsWideAsIsOfUse(t *testing.T) {
	wide := func(positions int) string { // the same weights, more positions
		dir := textModel(t, "</s>")
		editJSON(t, filepath.Join(dir, "config.json"), func(c map[string]any) { c["max_position_embeddings"] = positions })
		return dir
	}
	for _, c := range []struct {
		positions, asked, longest int
		want                      string
	}{{64, 0, 0, "of up to 64 tokens"}, {8192, 0, 0, "of up to 2,048 tokens"}, {8192, 3000, 0, "of up to 3,000 tokens"}, {8192, 0, 2500, "of up to 2,500 tokens"}} {
		cfg := causalConfig(t, "bitfit")
		cfg.Model.Method, cfg.Peft.Unfreeze = "full", []string{"norm"}
		cfg.Model.Path, cfg.Data.MaxLength, cfg.Loop.MaxSteps, cfg.Loop.Recompute, cfg.Output.NoTrainEval = wide(c.positions), c.asked, 1, false, true
		if c.longest > 0 {
			cfg.Data.Train, cfg.Data.Data = cfg.Data.Data, ""
			raw, err := os.ReadFile(cfg.Data.Train)
			if err != nil {
				t.Fatal(err)
			}
			row, err := json.Marshal(map[string]any{"input_ids": make([]int, c.longest)})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(cfg.Data.Train, append(append(raw, row...), '\n'), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		said := &notes{}
		if _, err := run.Run(context.Background(), cfg, run.Refuse, said); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(said.text, c.want) {
			t.Errorf("%d positions, --max-length %d: want %q in\n%s", c.positions, c.asked, c.want, said.text)
		}
	}
}

func TestUnknownTokensAreFoundBeforeTraining(t *testing.T) {
	for _, c := range []struct{ task, model, row, want string }{
		{"causal", "llama/gqa", `{"input_ids": [5, 48, 6]}`, "line 3: token 2 of input_ids is 48, the model's vocabulary has 48"},
		{"causal", "llama/gqa", `{"input_ids": [5, 6, 7], "labels": [-100, 6, 99]}`, "line 3: token 3 of labels is 99"},
		{"classify", "distilbert/tiny", `{"input_ids": [5, 5000, 6], "label": 0}`, "line 3: token 2 of input_ids is 5000"},
		{"features", "distilbert/tiny", `{"input_ids": [5, 5000, 6], "label": 0}`, "line 3: token 2 of input_ids is 5000"},
	} {
		cfg := tinyConfig(t, "lora")
		if c.task == "features" {
			c.task, cfg.Model.Method = "classify", train.Features
		}
		cfg.Model.Task, cfg.Model.Path, cfg.Data.Data = c.task, modeltest.Testdata(t, c.model), ""
		cfg.Data.Train = filepath.Join(t.TempDir(), "rows.jsonl")
		good := `{"input_ids": [5, 6, 7], "label": 1}` + "\n" + `{"input_ids": [5, 6, 7], "label": 2}` + "\n"
		if err := os.WriteFile(cfg.Data.Train, []byte(good+c.row+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		said := &stopOnNote{text: "no note says this"}
		_, err := run.Run(context.Background(), cfg, run.Refuse, said)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), cfg.Data.Train) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// TestStoriesModelLearnsE2E is the beginning of full fine-tuning of a real, if small, language model on real data: half
// an epoch of the 1,200 rows.
func TestStoriesModelLearnsE2E(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: takes half a minute")
	}
	cfg := run.Defaults()
	cfg.Model.Task, cfg.Model.Method = "causal", "full"
	cfg.Model.Path = modeltest.Shared(t, "models/llama-stories260k")
	cfg.Data.Data = modeltest.Shared(t, "datasets/e2e_devset_4672.csv")
	cfg.Data.Template, cfg.Data.Limit, cfg.Data.MaxLength, cfg.Machine.AMP = "{mr} -> {ref}", 1500, 256, "none"
	cfg.Loop.LR, cfg.Loop.Schedule, cfg.Loop.MaxSteps, cfg.Output.NoTrainEval, cfg.Output.Out = 2e-3, "cosine", 60, true, filepath.Join(t.TempDir(), "run")
	sum := mustRun(t, cfg, run.Refuse)
	t.Logf("validation loss %.3f, test loss %.3f, %.0f s", float64(sum.Loss.Val), float64(sum.Loss.Test), float64(sum.Seconds))
	if !(float64(sum.Loss.Val) < 1) {
		t.Errorf("validation loss %v, want below 1", float64(sum.Loss.Val))
	}
}
