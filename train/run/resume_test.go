package run_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/run"
)

// stopIn cancels a run when a phase reports progress for the nth time.
type stopIn struct {
	train.Quiet
	phase  string
	after  int
	cancel context.CancelFunc
}

func (u *stopIn) Progress(phase string, _, _ int, _ string) {
	if phase == u.phase {
		if u.after--; u.after == 0 {
			u.cancel()
		}
	}
}

// interrupt runs cfg anew and cancels it when a phase reports progress for the nth time.
func interrupt(t *testing.T, cfg run.Config, phase string, n int) {
	t.Helper()
	base := bindings.Live()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := run.Run(ctx, cfg, run.Refuse, &stopIn{phase: phase, after: n, cancel: cancel})
	if !errors.Is(err, run.ErrInterrupted) {
		t.Fatalf("interrupted in %q: %v", phase, err)
	}
	if n := bindings.Live() - base; n != 0 {
		t.Errorf("interrupted in %q: %d tensors left alive", phase, n)
	}
}

// manyToScore is a configuration whose evaluations take several batches.
func manyToScore(t *testing.T) run.Config {
	cfg := tinyConfig(t, "lora")
	cfg.Data.Data, cfg.Data.Split, cfg.Loop.Epochs, cfg.Peft.LoRADropout = writeRows(t, 200), []float64{0.3, 0.4, 0.3}, 3, 0.1
	return cfg
}

func TestInterruptedInAnyPhase(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*run.Config)
	}{
		{"epochs", func(*run.Config) {}},
		{"max steps", func(c *run.Config) { c.Loop.MaxSteps = 11 }},
		{"early stop", func(c *run.Config) { c.Loop.EarlyStop, c.Loop.Epochs, c.Loop.LR = 1, 6, 1e-30 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			whole := manyToScore(t)
			c.set(&whole)
			mustRun(t, whole, run.Refuse)
			want := comparable(t, whole.Output.Out)
			for _, at := range []struct {
				phase string
				n     int
			}{{"train", 3}, {"validate", 1}, {"validate", 4}, {"score training data", 1}, {"score test data", 1}} {
				cfg := whole
				cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
				interrupt(t, cfg, at.phase, at.n)
				mustRun(t, cfg, run.Resume)
				sameRun(t, comparable(t, cfg.Output.Out), want)
				mustRun(t, cfg, run.Resume) // of a finished run: scored again, nothing trained
				sameRun(t, comparable(t, cfg.Output.Out), want)
				if t.Failed() {
					t.Fatalf("when interrupted in %q", at.phase)
				}
			}
		})
	}
}

func TestResumeWithoutACheckpointStartsAtTheFirstStep(t *testing.T) {
	whole := manyToScore(t)
	mustRun(t, whole, run.Refuse)
	killed := whole
	killed.Output.Out = t.TempDir()
	if err := run.WriteConfig(filepath.Join(killed.Output.Out, "config.yaml"), killed); err != nil {
		t.Fatal(err)
	}
	mustRun(t, killed, run.Resume)
	sameRun(t, comparable(t, killed.Output.Out), comparable(t, whole.Output.Out))
}

func TestResumeRefusesOtherData(t *testing.T) {
	cfg := manyToScore(t)
	cfg.Loop.Epochs = 1
	mustRun(t, cfg, run.Refuse)
	raw, err := os.ReadFile(cfg.Data.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Data.Data, raw[len(raw)/2+strings.Index(string(raw[len(raw)/2:]), "\n")+1:], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run.Run(context.Background(), cfg, run.Resume, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "other data") {
		t.Errorf("got %v", err)
	}
}

func TestOverwriteLeavesForeignFilesAlone(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs, cfg.Output.Out = 1, t.TempDir()
	keep := filepath.Join(cfg.Output.Out, "best", "holiday.jpg")
	if err := os.MkdirAll(filepath.Dir(keep), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{keep, filepath.Join(cfg.Output.Out, "config.yaml")} {
		if err := os.WriteFile(path, []byte("of another program"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []run.OutMode{run.Refuse, run.Overwrite, run.Resume} {
		if _, err := run.Run(context.Background(), cfg, mode, train.Quiet{}); err == nil || !strings.Contains(err.Error(), cfg.Output.Out) {
			t.Errorf("mode %d: %v", mode, err)
		}
	}
	if _, err := os.Stat(keep); err != nil {
		t.Error(err)
	}
}

// Nothing is removed for a run that cannot begin, or that reads what would go.
func TestOverwriteKeepsWhatItNeeds(t *testing.T) {
	first := tinyConfig(t, "lora")
	mustRun(t, first, run.Refuse)
	want := comparable(t, first.Output.Out)
	for name, c := range map[string]struct {
		set  func(*run.Config)
		want string
	}{
		"its own adapter": {func(c *run.Config) { c.Model.AdapterInit = filepath.Join(c.Output.Out, "best") }, "--adapter-init"},
		"no such data":    {func(c *run.Config) { c.Data.Data = filepath.Join(t.TempDir(), "rows.csv") }, "rows.csv"},
		"no such model":   {func(c *run.Config) { c.Model.Path = filepath.Join(t.TempDir(), "model") }, "model"},
		"optimizer":       {func(c *run.Config) { c.Loop.Optimizer = "adamx" }, "--optimizer"},
		"schedule":        {func(c *run.Config) { c.Loop.Schedule = "wave" }, "--schedule"},
		"warm-up":         {func(c *run.Config) { c.Loop.Warmup = math.Inf(1) }, "--warmup"},
	} {
		cfg := first
		c.set(&cfg)
		if _, err := run.Run(context.Background(), cfg, run.Overwrite, train.Quiet{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want it to say %s", name, err, c.want)
		}
		sameRun(t, comparable(t, first.Output.Out), want)
	}
}

func TestOverwriteReplacesARun(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs = 1
	mustRun(t, cfg, run.Refuse)
	note := filepath.Join(cfg.Output.Out, "notes.txt")
	if err := os.WriteFile(note, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Model.Method = "lora"
	if sum := mustRun(t, cfg, run.Overwrite); sum.Method != "lora" {
		t.Errorf("got %+v", sum)
	}
	if _, err := os.Stat(note); err != nil {
		t.Error(err)
	}
}

func TestARunThatNeverStartedIsNotInTheWay(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs = 1
	good := cfg.Data.Data
	cfg.Data.Data = filepath.Join(t.TempDir(), "missing.jsonl")
	if _, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{}); err == nil {
		t.Fatal("no error for missing data")
	}
	cfg.Data.Data = good
	mustRun(t, cfg, run.Refuse)
}

func TestWeightsThatAreNotFiniteAreNoCheckpoint(t *testing.T) {
	cfg := tinyConfig(t, "full")
	cfg.Loop.LR, cfg.Loop.WeightDecay, cfg.Output.Checkpoints, cfg.Loop.Optimizer = 1e38, 1e10, 1, "sgd" // the first step overflows, its loss was finite
	_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
	var bad *train.NonFiniteError
	if !errors.As(err, &bad) || bad.Tensor == "" || bad.Step != 1 {
		t.Fatalf("got %v, want a *NonFiniteError of step 1", err)
	}
	for _, name := range []string{"last", "best"} {
		if _, err := os.Stat(filepath.Join(cfg.Output.Out, name)); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

// stopOnNote cancels a run when it says something.
type stopOnNote struct {
	train.Quiet
	text   string
	cancel context.CancelFunc
}

func (u *stopOnNote) Note(format string, args ...any) {
	if strings.Contains(fmt.Sprintf(format, args...), u.text) {
		u.cancel()
	}
}

func TestInterruptedBeforeTheFirstStep(t *testing.T) {
	whole := manyToScore(t)
	mustRun(t, whole, run.Refuse)
	want := comparable(t, whole.Output.Out)
	for range 4 { // with a checkpoint of step 0, or none
		cfg := whole
		cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
		ctx, cancel := context.WithCancel(context.Background())
		if _, err := run.Run(ctx, cfg, run.Refuse, &stopOnNote{text: "trainable", cancel: cancel}); !errors.Is(err, run.ErrInterrupted) && !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		mustRun(t, cfg, run.Resume)
		sameRun(t, comparable(t, cfg.Output.Out), want)
	}
}

func TestResumesToTheSameBitsInBF16OnTwoThreads(t *testing.T) {
	whole := manyToScore(t)
	whole.Machine.AMP, whole.Machine.Threads = "bf16", 2
	mustRun(t, whole, run.Refuse)
	cfg := whole
	cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
	interrupt(t, cfg, "train", 7)
	mustRun(t, cfg, run.Resume)
	sameRun(t, comparable(t, cfg.Output.Out), comparable(t, whole.Output.Out))
}

// An adapter that is gone on from has its settings: asking for others is refused, not ignored.
func TestAdapterInitKeepsItsSettings(t *testing.T) {
	first := tinyConfig(t, "lora")
	first.Loop.Epochs, first.Peft.Rank = 1, 4
	mustRun(t, first, run.Refuse)
	for _, c := range []struct {
		want string
		set  func(*run.Config)
	}{
		{"", func(*run.Config) {}},
		{"", func(c *run.Config) { c.Peft.Rank = 4 }},
		{"--rank is 8", func(c *run.Config) { c.Peft.Rank = 8 }},
		{"--lora-dropout is 0.1", func(c *run.Config) { c.Peft.LoRADropout = 0.1 }},
		{"--unfreeze is [layer.1]", func(c *run.Config) { c.Peft.Unfreeze = []string{"layer.1"} }},
	} {
		cfg := first
		cfg.Peft = peft.Options{}
		cfg.Model.AdapterInit, cfg.Output.Out = filepath.Join(first.Output.Out, "best"), filepath.Join(t.TempDir(), "next")
		c.set(&cfg)
		_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
		if usage := (*train.UsageError)(nil); c.want == "" && err != nil || c.want != "" && (!errors.As(err, &usage) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: %v", c.want, err)
		}
	}
}

// The loaded prompt's length counts, not the method's default.
func TestAdapterInitLeavesRoomForItsPrompt(t *testing.T) {
	first := tinyConfig(t, "prompt")
	first.Loop.Epochs, first.Peft.VirtualTokens = 1, 3
	mustRun(t, first, run.Refuse)
	cfg := first
	cfg.Peft = peft.Options{}
	facts, err := model.ReadFacts(cfg.Model.Path)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Model.AdapterInit, cfg.Output.Out = filepath.Join(first.Output.Out, "best"), filepath.Join(t.TempDir(), "next")
	cfg.Data.MaxLength = facts.Room - 3
	mustRun(t, cfg, run.Refuse)
	cfg.Data.MaxLength++
	if _, err := run.Run(context.Background(), cfg, run.Overwrite, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "--max-length") {
		t.Error(err)
	}
}

// A soft prompt gone on from is pooled as what wrote it pools, and a run begun before that was so stays as it is.
func TestAdapterInitPoolsAsWhatWroteIt(t *testing.T) {
	first := tinyConfig(t, "prompt")
	first.Loop.Epochs, first.Peft.VirtualTokens = 1, 3
	mustRun(t, first, run.Refuse)
	theirs := filepath.Join(t.TempDir(), "theirs") // without what says that gopeft wrote it
	if err := os.CopyFS(theirs, os.DirFS(filepath.Join(first.Output.Out, "best"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(theirs, "gopeft.yaml")); err != nil {
		t.Fatal(err)
	}
	pools := func(dir string) bool {
		info, err := peft.Probe(dir)
		if err != nil {
			t.Fatal(err)
		}
		return info.Options.PeftCompat
	}
	for init, want := range map[string]bool{filepath.Join(first.Output.Out, "best"): false, theirs: true} {
		cfg := first
		cfg.Peft, cfg.Loop.Epochs = peft.Options{}, 2
		cfg.Model.AdapterInit, cfg.Output.Out = init, filepath.Join(t.TempDir(), "next")
		interrupt(t, cfg, "train", 3)
		last := filepath.Join(cfg.Output.Out, "last")
		if pools(last) != want {
			t.Errorf("%s: pooled as peft pools is %v", init, !want)
		}
		side := filepath.Join(last, "gopeft.yaml")
		raw, err := os.ReadFile(side)
		if err == nil {
			err = os.WriteFile(side, []byte(strings.Replace(string(raw), "peft-compat: true", "peft-compat: false", 1)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		mustRun(t, cfg, run.Resume)
		if pools(last) {
			t.Errorf("%s: resumed, it is pooled as peft pools", init)
		}
	}
}

// A run that was killed before its first step leaves nothing that is in the way of the next.
func TestARunIsBegunAgainWhereOneWasKilledAtOnce(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs = 1
	if err := os.MkdirAll(cfg.Output.Out, 0o777); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(cfg.Output.Out, ".config.yaml.tmp-12")
	if err := os.WriteFile(left, []byte("mod"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run.WriteConfig(filepath.Join(cfg.Output.Out, "config.yaml"), cfg); err != nil {
		t.Fatal(err)
	}
	mustRun(t, cfg, run.Refuse)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what it had not finished is left: %v", err)
	}
}
