package run_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gopeft/bindings"
	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/report"
	"gopeft/train/run"
)

// writeRows makes a data set that can be learned: the class is which of three tokens a row holds. Rows carry
// token ids, since the tiny model has no tokenizer.
func writeRows(t *testing.T, n int) string {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for range n {
		label := r.IntN(3)
		ids := make([]int, 4+r.IntN(12))
		for i := range ids {
			ids[i] = 20 + r.IntN(50)
		}
		ids[1+r.IntN(3)] = 10 + label
		row, err := json.Marshal(map[string]any{"input_ids": ids, "label": label})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(row, '\n'))
	}
	path := filepath.Join(t.TempDir(), "rows.jsonl")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func tinyConfig(t *testing.T, method string) run.Config {
	cfg := run.Defaults()
	cfg.Model.Method, cfg.Model.Path, cfg.Data.Data = method, modeltest.Testdata(t, "distilbert/tiny"), writeRows(t, 120)
	cfg.Data.Split, cfg.Loop.BatchSize, cfg.Loop.Epochs, cfg.Machine.Threads, cfg.Machine.AMP = []float64{0.6, 0.2, 0.2}, 8, 2, 1, "none"
	cfg.Loop.LR, cfg.Loop.LogEvery, cfg.Output.Out = 1e-2, 2, filepath.Join(t.TempDir(), "run")
	return cfg
}

func mustRun(t *testing.T, cfg run.Config, mode run.OutMode) report.Summary {
	t.Helper()
	base := bindings.Live()
	sum, err := run.Run(context.Background(), cfg, mode, train.Quiet{})
	if err != nil {
		t.Fatal(err)
	}
	if n := bindings.Live() - base; n != 0 {
		t.Errorf("%d tensors left alive", n)
	}
	return sum
}

func TestRunLeavesItsFolder(t *testing.T) {
	cfg := tinyConfig(t, "lora")
	cfg.Loop.Epochs = 6
	cfg.Output.TensorBoard = true
	sum := mustRun(t, cfg, run.Refuse)
	for _, name := range []string{"config.yaml", "metrics.csv", "summary.json", "curves.png", "best/adapter_config.json", "best/adapter_model.safetensors",
		"last/adapter_model.safetensors", "last/state/state.json", "last/state/state.safetensors", "events"} {
		if _, err := os.Stat(filepath.Join(cfg.Output.Out, name)); err != nil {
			t.Error(err)
		}
	}
	rows, _, err := report.ReadMetrics(filepath.Join(cfg.Output.Out, "metrics.csv"))
	if err != nil || len(rows) != 9*6/2+6 {
		t.Errorf("%d rows of metrics, %v", len(rows), err)
	}
	if _, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a second run into the same folder: %v", err)
	}
	// The written configuration repeats the run.
	again, err := run.ReadConfig(filepath.Join(cfg.Output.Out, "config.yaml"), run.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	again.Output.Out = filepath.Join(t.TempDir(), "again")
	if got := mustRun(t, again, run.Refuse); got.Loss != sum.Loss || got.Accuracy != sum.Accuracy {
		t.Errorf("repeated: %+v, first %+v", got, sum)
	}
}

func TestTrainingLearns(t *testing.T) {
	cfg := tinyConfig(t, "full")
	cfg.Loop.Epochs, cfg.Loop.LR, cfg.Model.Dropout, cfg.Data.Data = 20, 1e-3, 0, writeRows(t, 400)
	if sum := mustRun(t, cfg, run.Refuse); sum.Accuracy.Test < 0.8 || sum.Accuracy.Train < 0.9 {
		t.Errorf("learned little: %+v", sum.Accuracy)
	}
}

func TestHeadCountsAsTheArticleCounts(t *testing.T) {
	sum := mustRun(t, tinyConfig(t, "last"), run.Refuse)
	if want := int64(16*16 + 16 + 16*3 + 3); sum.Params.Trainable != want {
		t.Errorf("%d trainable, want %d", sum.Params.Trainable, want)
	}
}

// comparable is what two runs must share to the bit: every file of their checkpoints and metrics, but not the time.
func comparable(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, top := range []string{"last", "best"} {
		weights := 0
		err := filepath.WalkDir(filepath.Join(dir, top), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || e.Name() == "state.json" { // which holds the seconds
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			raw, err := os.ReadFile(path)
			out[name] = string(raw)
			if ext := filepath.Ext(name); ext == ".safetensors" || ext == ".bin" {
				weights++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if weights < 2 { // the adapter's or the model's, and those of state/
			t.Fatalf("%d files of weights in %s", weights, top)
		}
	}
	rows, _, err := report.ReadMetrics(filepath.Join(dir, "metrics.csv"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		rows[i].SamplesPerS = 0
		out["metrics"] += fmt.Sprintf("%+v\n", rows[i])
	}
	return out
}

func sameRun(t *testing.T, got, want map[string]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d files, the run that was never stopped has %d", len(got), len(want))
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs from the run that was never stopped", name)
		}
	}
}

func TestKilledRunResumesToTheSameBits(t *testing.T) {
	whole := tinyConfig(t, "lora")
	whole.Loop.Epochs, whole.Output.Checkpoints, whole.Loop.GradAccum = 4, 2, 2
	whole.Peft.LoRADropout = 0.1
	killAndResume(t, whole)
}

// killAndResume runs a configuration that writes checkpoints to its end, and again in a process that is killed, and
// compares what the second run leaves once it is resumed.
func killAndResume(t *testing.T, whole run.Config) {
	t.Helper()
	mustRun(t, whole, run.Refuse)
	want := comparable(t, whole.Output.Out)

	killed := whole
	killed.Output.Out = filepath.Join(t.TempDir(), "killed")
	cmd := inChild(t, "train", killed)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// Kill it at whatever step it is in once a checkpoint beyond the first exists.
	state := filepath.Join(killed.Output.Out, "last", "state")
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		if p, err := train.ReadProgress(state); err == nil && p.Step >= 4 {
			break
		}
		if time.Since(begun) > time.Minute {
			t.Fatalf("no checkpoint appeared: %s", stderr.String())
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	mustRun(t, killed, run.Resume)
	sameRun(t, comparable(t, killed.Output.Out), want)
}

func TestInterruptedRunsResumeToTheSameBits(t *testing.T) {
	whole := tinyConfig(t, "houlsby")
	whole.Model.Dropout = 0.1
	mustRun(t, whole, run.Refuse)
	want := comparable(t, whole.Output.Out)
	for _, steps := range []int{1, 9, 12} { // the middle and the end of an epoch
		cfg := whole
		cfg.Output.Out = filepath.Join(t.TempDir(), "stopped")
		interrupt(t, cfg, "train", steps)
		mustRun(t, cfg, run.Resume)
		sameRun(t, comparable(t, cfg.Output.Out), want)
		if t.Failed() {
			t.Fatalf("when stopped after step %d", steps)
		}
	}
}

func TestResumeRefusesOtherSettings(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs = 1
	mustRun(t, cfg, run.Refuse)
	cfg.Loop.LR = 1
	if _, err := run.Run(context.Background(), cfg, run.Resume, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "other settings") {
		t.Errorf("got %v", err)
	}
	cfg.Output.Out = t.TempDir()
	if _, err := run.Run(context.Background(), cfg, run.Resume, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "resume") {
		t.Errorf("got %v", err)
	}
}

func TestNonFiniteLossKeepsTheLastGoodCheckpoint(t *testing.T) {
	cfg := tinyConfig(t, "full")
	cfg.Loop.LR, cfg.Output.Checkpoints, cfg.Loop.Optimizer = 1e30, 1, "sgd"
	_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
	var bad *train.NonFiniteError
	if !errors.As(err, &bad) || bad.Tensor == "" {
		t.Fatalf("got %v, want a *NonFiniteError that names a tensor", err)
	}
	if _, err := train.ReadProgress(filepath.Join(cfg.Output.Out, "last", "state")); err != nil {
		t.Errorf("the checkpoint is gone: %v", err)
	}
}

func TestAccumulationEqualsTheBigBatch(t *testing.T) {
	weights := func(batch, accum int) string {
		cfg := tinyConfig(t, "last")
		cfg.Loop.BatchSize, cfg.Loop.GradAccum, cfg.Loop.MaxSteps, cfg.Model.Dropout, cfg.Loop.NoShuffle, cfg.Loop.NoBucket = batch, accum, 3, 0, true, true
		cfg.Loop.Optimizer, cfg.Loop.LR = "sgd", 0.1
		sum := mustRun(t, cfg, run.Refuse)
		return fmt.Sprintf("%.4f %.4f", sum.Loss.Val, sum.Loss.Train)
	}
	if big, small := weights(12, 1), weights(4, 3); big != small {
		t.Errorf("batches of 12: %s, 3 batches of 4: %s", big, small)
	}
}

// trained reads the trainable tensors of a run's last checkpoint.
func trained(t *testing.T, dir string) map[string][]float32 {
	t.Helper()
	return params(t, filepath.Join(dir, "last", "state", "state.safetensors"))
}

// params reads the trainable tensors of a checkpoint's file.
func params(t *testing.T, path string) map[string][]float32 {
	t.Helper()
	a, err := files.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	out := map[string][]float32{}
	for _, e := range a.Entries() {
		if strings.HasPrefix(e.Name, "param/") {
			for i := 0; i < len(e.Data); i += 4 {
				out[e.Name] = append(out[e.Name], math.Float32frombits(binary.LittleEndian.Uint32(e.Data[i:])))
			}
		}
	}
	return out
}

func TestAccumulationWeighsByRealCounts(t *testing.T) {
	rows := writeRows(t, 12)
	weights := func(batch, accum int) map[string][]float32 {
		cfg := tinyConfig(t, "last")
		cfg.Data.Data, cfg.Data.Train, cfg.Data.Split, cfg.Loop.Epochs = "", rows, nil, 3
		cfg.Loop.BatchSize, cfg.Loop.GradAccum, cfg.Model.Dropout, cfg.Loop.NoShuffle, cfg.Loop.NoBucket = batch, accum, 0, true, true
		cfg.Loop.Optimizer, cfg.Loop.LR, cfg.Output.NoTrainEval = "sgd", 0.5, true
		mustRun(t, cfg, run.Refuse)
		return trained(t, cfg.Output.Out)
	}
	big, small := weights(12, 1), weights(5, 3) // batches of 5, 5 and 2 rows
	if len(big) == 0 {
		t.Fatal("nothing was trained")
	}
	for name, want := range big {
		for i, v := range small[name] {
			if math.Abs(float64(v-want[i])) > 1e-6 {
				t.Errorf("%s[%d] is %v in batches of 5, 5 and 2, %v in one of 12", name, i, v, want[i])
				break
			}
		}
	}
}

func TestConfigHoldsWhatTheRunChose(t *testing.T) {
	asked := tinyConfig(t, "lora")
	asked.Loop.LR, asked.Machine.AMP, asked.Machine.Threads, asked.Loop.Epochs = 0, "auto", 0, 1
	sum := mustRun(t, asked, run.Refuse)
	file := filepath.Join(asked.Output.Out, "config.yaml")
	was, err := run.ReadConfig(file, run.Defaults())
	if err != nil {
		t.Fatal(err)
	}
	if !(was.Loop.LR > 0) || (was.Machine.AMP != "none" && was.Machine.AMP != "bf16") || was.Machine.Device != "cpu" || was.Machine.Threads != runtime.GOMAXPROCS(0) ||
		strings.Join(was.Automatic, " ") != "base-dtype quantize device amp threads lr" {
		t.Errorf("lr %v, amp %s, device %s, %d threads, chosen: %v", was.Loop.LR, was.Machine.AMP, was.Machine.Device, was.Machine.Threads, was.Automatic)
	}
	again := was
	again.Output.Out = filepath.Join(t.TempDir(), "again")
	if got := mustRun(t, again, run.Refuse); got.Loss != sum.Loss {
		t.Errorf("repeated: %+v, first %+v", got.Loss, sum.Loss)
	}
	if repeated, err := run.ReadConfig(filepath.Join(again.Output.Out, "config.yaml"), run.Defaults()); err != nil || len(repeated.Automatic) != 0 {
		t.Errorf("chosen by the repeated run: %v, %v", repeated.Automatic, err)
	}
	mustRun(t, asked, run.Resume)
	mustRun(t, was, run.Resume)
	if err := os.RemoveAll(filepath.Join(asked.Output.Out, "last")); err != nil { // as if killed before the first checkpoint
		t.Fatal(err)
	}
	mustRun(t, asked, run.Resume)
	mustRun(t, asked, run.Resume)
	other := asked
	other.Loop.LR = was.Loop.LR * 2
	if _, err := run.Run(context.Background(), other, run.Resume, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "--lr") {
		t.Errorf("another learning rate: %v", err)
	}
	other = again // where the learning rate was asked for
	other.Loop.LR = 0
	if _, err := run.Run(context.Background(), other, run.Resume, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "--lr") {
		t.Errorf("the method's learning rate: %v", err)
	}
	other, heard := asked, &notes{}
	other.Machine.Threads = was.Machine.Threads + 1
	if _, err := run.Run(context.Background(), other, run.Resume, heard); err != nil || !strings.Contains(heard.text, "threads") {
		t.Errorf("other threads: %v, said %q", err, heard.text)
	}
}

func TestOverwriteTidiesUpAfterAKilledRun(t *testing.T) {
	cfg := tinyConfig(t, "bitfit")
	cfg.Loop.Epochs = 1
	mustRun(t, cfg, run.Refuse)
	for _, name := range []string{".last.tmp-x1", ".best.previous"} {
		if err := os.Mkdir(filepath.Join(cfg.Output.Out, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(cfg.Output.Out, ".metrics.csv.tmp-x2"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, cfg, run.Overwrite)
	if left, err := filepath.Glob(filepath.Join(cfg.Output.Out, ".*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestTrainsOnPublicData(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	model := modeltest.Shared(t, "models/distilbert-minilm-l3-v8k-fp16")
	for name, classes := range map[string]int{"sst2_train.tsv": 2, "ag_news_7600.csv": 4, "trec6_train_5452.csv": 6} {
		cfg := run.Defaults()
		cfg.Model.Method, cfg.Model.Path, cfg.Data.Data, cfg.Data.Sample, cfg.Data.Stratify = "last", model, modeltest.Shared(t, "datasets/"+name), 150, true
		cfg.Loop.MaxSteps, cfg.Loop.BatchSize, cfg.Data.MaxLength, cfg.Machine.AMP, cfg.Output.NoTrainEval = 3, 8, 24, "none", true
		cfg.Output.Out = filepath.Join(t.TempDir(), "run")
		sum := mustRun(t, cfg, run.Refuse)
		const width = 384
		head := width*width + width + classes*width + classes
		if !(sum.Accuracy.Test >= 0 && sum.Loss.Test > 0) || sum.Params.Trainable != int64(head) {
			t.Errorf("%s: %+v, want a head of %d parameters", name, sum, head)
		}
	}
}

func TestSettingsThatCannotBeRight(t *testing.T) {
	for _, c := range []struct {
		want string
		set  func(*run.Config)
	}{
		{"--method", func(c *run.Config) { c.Model.Method = "magic" }},
		{"--model", func(c *run.Config) { c.Model.Path = "" }},
		{"no data", func(c *run.Config) { c.Data.Data = "" }},
		{"--epochs", func(c *run.Config) { c.Loop.Epochs = 0 }},
		{"--amp fp16 needs a GPU", func(c *run.Config) { c.Machine.AMP = "fp16" }},
		{"--amp", func(c *run.Config) { c.Machine.AMP = "int4" }},
		{"--device", func(c *run.Config) { c.Machine.Device = "tpu" }},
		{"rank", func(c *run.Config) { c.Peft.Rank = -1 }},
		{"--max-length", func(c *run.Config) { c.Data.MaxLength = 1000 }},
		{"optimizer", func(c *run.Config) { c.Loop.Optimizer = "lion" }},
		{"schedule", func(c *run.Config) { c.Loop.Schedule = "square" }},
		{"--early-stop", func(c *run.Config) {
			c.Loop.EarlyStop, c.Data.Train, c.Data.Data, c.Data.Split = 1, c.Data.Data, "", nil
		}},
		{"pattern", func(c *run.Config) { c.Model.Method, c.Peft.Unfreeze = "full", []string{"nothing.like.it"} }},
	} {
		cfg := tinyConfig(t, "lora")
		c.set(&cfg)
		_, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v, want one line with %q", err, c.want)
		}
	}
}

func TestConfigFilesAreStrict(t *testing.T) {
	for text, want := range map[string]string{
		"epochs: 3.5": "epochs", "epoch: 3": "epoch", "lr: [1]": "line 1", "a: {": "yaml", "rank: x": "rank",
	} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := run.ReadConfig(path, run.Defaults())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAdapterInitGoesOn(t *testing.T) {
	first := tinyConfig(t, "lora")
	first.Loop.Epochs, first.Model.Dropout = 4, 0
	done := mustRun(t, first, run.Refuse)
	cfg := first
	cfg.Output.Out, cfg.Model.AdapterInit, cfg.Loop.LR, cfg.Loop.Epochs = filepath.Join(t.TempDir(), "on"), filepath.Join(first.Output.Out, "best"), 1e-9, 1
	// A step too small to matter: the run scores what the first one reached.
	if got := mustRun(t, cfg, run.Refuse); got.Accuracy != done.Accuracy {
		t.Errorf("%+v, the first run reached %+v", got.Accuracy, done.Accuracy)
	}
	cfg.Model.Method = "ia3"
	cfg.Output.Out += "-not"
	if _, err := run.Run(context.Background(), cfg, run.Refuse, train.Quiet{}); err == nil || !strings.Contains(err.Error(), "adapter-init") {
		t.Errorf("got %v", err)
	}
}

func TestLabelsFollowTheHeadThatHasThem(t *testing.T) {
	cfg := tinyConfig(t, "last")
	raw, err := os.ReadFile(cfg.Data.Data)
	if err != nil {
		t.Fatal(err)
	}
	// The same labels as the model's head, in another order of first appearance and of names.
	for from, to := range map[string]string{`"label":0`: `"label":"LABEL_2"`, `"label":1`: `"label":"LABEL_1"`, `"label":2`: `"label":"LABEL_0"`} {
		raw = bytes.ReplaceAll(raw, []byte(from), []byte(to))
	}
	if err := os.WriteFile(cfg.Data.Data, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	notes := &notes{}
	if _, err := run.Run(context.Background(), cfg, run.Refuse, notes); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(notes.text, "new weights") {
		t.Errorf("the head was not taken from the checkpoint:\n%s", notes.text)
	}
}

type notes struct {
	train.Quiet
	text string
}

func (n *notes) Note(format string, args ...any) { n.text += fmt.Sprintf(format+"\n", args...) }
