package train

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gopeft/model"
	"gopeft/train/dist"
)

// MachineSettings say what a run computes on, and how. Each field is a setting of its YAML key; usage is its help.
type MachineSettings struct {
	Device        string `yaml:"device" usage:"auto, cpu, cuda or cuda:N"`
	AMP           string `yaml:"amp" usage:"mixed precision: auto, none, bf16 or fp16"`
	Threads       int    `yaml:"threads" usage:"CPU threads (default: all cores)"`
	Seed          uint64 `yaml:"seed" usage:"seed of everything random"`
	Deterministic bool   `yaml:"deterministic" usage:"use deterministic algorithms only"`
	TF32          bool   `yaml:"tf32" usage:"let a GPU round the factors of fp32 matrix products to TF32: faster, 10 bits of mantissa"`
	Stream        bool   `yaml:"stream-weights" usage:"leave frozen weights in their files, or for a GPU in the host's memory, each block's at hand only while it computes; for models larger than memory"`
	Shard         bool   `yaml:"shard-frozen" usage:"of several processes, each holds its part of the frozen weights, with full of those it trains, and gathers each block's while it computes; for models larger than one process's memory"`
	Without       Levers `yaml:"without" usage:"means of speed to do without, to see what each gives: kernels, nvrtc, blocks, casts, pooling, passes, overlap, chunks, optimizer, mapping"`

	// Group are the processes that share the work; nil: this one alone.
	Group *dist.Group `yaml:"-"`
}

// LoopSettings are those of the training loop: its length, its batches, its optimizer, and when it ends early.
type LoopSettings struct {
	Epochs      int     `yaml:"epochs" usage:"passes over the training data"`
	MaxSteps    int     `yaml:"max-steps" usage:"stop after this many optimizer steps"`
	BatchSize   int     `yaml:"batch-size" usage:"rows of a batch"`
	MaxTokens   int     `yaml:"max-tokens" usage:"most tokens of a batch, padding included; --batch-size then bounds the rows"`
	LR          float64 `yaml:"lr" usage:"learning rate (default: the method's)"`
	PlusRatio   float64 `yaml:"lora-plus-ratio" usage:"of lora and dora: LoRA's B are trained at so many times --lr (0: at the same rate)"`
	Optimizer   string  `yaml:"optimizer" usage:"adam, adamw or sgd"`
	ShardState  bool    `yaml:"shard-optimizer" usage:"of several processes, each holds the optimizer's state of its part of what is trained, and updates that: for methods that train much"`
	Momentum    float64 `yaml:"momentum" usage:"momentum of sgd"`
	WeightDecay float64 `yaml:"weight-decay" usage:"weight decay, of all but biases and norms"`
	Schedule    string  `yaml:"schedule" usage:"learning rate over the run: constant, linear or cosine"`
	Warmup      float64 `yaml:"warmup" usage:"steps of warm-up, or a share of the run below 1"`
	GradAccum   int     `yaml:"grad-accum" usage:"batches per optimizer step"`
	Clip        float64 `yaml:"clip" usage:"largest gradient norm (0: not clipped)"`
	Smoothing   float64 `yaml:"label-smoothing" usage:"share of each target that all classes or tokens get in training, as transformers' --label_smoothing_factor; scores are of the targets as they are"`
	Weights     string  `yaml:"class-weights" usage:"of --task classify: what rows of a class count in training: balanced (as scikit-learn's), or LABEL=W,LABEL=W (others 1); in scores all count the same"`
	NEFTune     float64 `yaml:"neftune" usage:"alpha of NEFTune's noise on token embeddings in training, 5 to 15 say its authors (0: none)"`
	EvalEvery   int     `yaml:"eval-every" usage:"evaluate the validation part every N steps too, besides after every epoch (0: never)"`
	EarlyStop   int     `yaml:"early-stop" usage:"stop after N evaluations without improvement"`
	Monitor     string  `yaml:"monitor" usage:"what the best checkpoint is chosen by: val_acc or val_loss, of regression and multi-label also val_ and the name of a score, as val_spearman or val_macro_f1"`
	NoShuffle   bool    `yaml:"no-shuffle" usage:"train in the data's order"`
	NoBucket    bool    `yaml:"no-bucket" usage:"batch at random, not by similar length"`
	Recompute   bool    `yaml:"checkpoint-activations" usage:"recompute activations in the backward pass: less memory, more time"`
	LogEvery    int     `yaml:"log-every" usage:"steps between two rows of metrics.csv"`
}

// DefaultMachine is what a run that says nothing computes on.
func DefaultMachine() MachineSettings {
	return MachineSettings{Device: "auto", AMP: "auto", Seed: 42}
}

// DefaultLoop is the loop of a run that says nothing; its learning rate is the method's.
func DefaultLoop() LoopSettings {
	return LoopSettings{Epochs: 3, BatchSize: 12, Optimizer: "adam", Schedule: "constant", GradAccum: 1, LogEvery: 10}
}

// The tasks.
const (
	TaskClassify   = "classify"
	TaskCausal     = "causal"
	TaskRegression = "regression"
	TaskMultiLabel = "multi-label"
)

// problems are what the heads of the tasks score.
var problems = [...]struct {
	task    string
	problem model.Problem
}{{TaskClassify, model.OneLabel}, {TaskCausal, ""}, {TaskRegression, model.Regression}, {TaskMultiLabel, model.AnyLabels}}

// ProblemOf is what the head of a task scores; "" without one.
func ProblemOf(task string) model.Problem {
	for _, p := range problems {
		if p.task == task {
			return p.problem
		}
	}
	return ""
}

// TaskOf is the task whose head scores p.
func TaskOf(p model.Problem) string {
	for _, q := range problems {
		if q.problem == p {
			return q.task
		}
	}
	return ""
}

// CheckTask refuses what is no task.
func CheckTask(task string) error {
	var names []string
	for _, p := range problems {
		if p.task == task {
			return nil
		}
		names = append(names, p.task)
	}
	return Usage("--task %q is not known (%s)", task, strings.Join(names, ", "))
}

// UsageError is a setting that cannot be right, whatever the data.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *UsageError) Unwrap() error { return e.Err }

// Usage makes a UsageError of a text.
func Usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// CheckCount refuses a whole number below the least that makes sense.
func CheckCount(flag string, value, least int) error {
	if value < least {
		return Usage("--%s is %d, want at least %d", flag, value, least)
	}
	return nil
}

// maxThreads is more than any machine has cores that one process can use.
const maxThreads = 4096

// CheckThreads refuses a number of threads that no machine has.
func CheckThreads(n int) error {
	if n < 0 || n > maxThreads {
		return Usage("--threads is %d, want 0 (all cores) to %d", n, maxThreads)
	}
	return nil
}

// Check reports the first setting that cannot be right.
func (c MachineSettings) Check() error {
	if !slices.Contains([]string{"", "auto", "none", "bf16", "fp16"}, c.AMP) {
		return Usage("--amp %q is not known (auto, none, bf16, fp16)", c.AMP)
	}
	if err := CheckThreads(c.Threads); err != nil {
		return err
	}
	if c.Stream && c.Shard {
		return Usage("--stream-weights leaves weights in their files, --shard-frozen in the memory of all processes: give one of the two")
	}
	for _, f := range []struct {
		flag  string
		asked bool
	}{{"--stream-weights", c.Stream}, {"--shard-frozen", c.Shard}} {
		if f.asked && !c.Without.Use(LeverMapping) {
			return Usage("%s needs weights where their file is mapped: leave out --without %s", f.flag, LeverMapping)
		}
	}
	return c.Without.Check()
}

// Check reports the first setting that cannot be right.
func (c LoopSettings) Check() error {
	switch {
	case c.LR < 0 || math.IsNaN(c.LR) || math.IsInf(c.LR, 0):
		return Usage("--lr is %v, want a positive learning rate", c.LR)
	}
	for _, n := range []struct {
		flag         string
		value, least int
	}{
		{"epochs", c.Epochs, 1}, {"batch-size", c.BatchSize, 1}, {"grad-accum", c.GradAccum, 1}, {"log-every", c.LogEvery, 1},
		{"max-steps", c.MaxSteps, 0}, {"max-tokens", c.MaxTokens, 0}, {"eval-every", c.EvalEvery, 0}, {"early-stop", c.EarlyStop, 0},
	} {
		if err := CheckCount(n.flag, n.value, n.least); err != nil {
			return err
		}
	}
	for _, n := range []struct {
		flag  string
		value float64
	}{{"clip", c.Clip}, {"weight-decay", c.WeightDecay}, {"momentum", c.Momentum}, {"lora-plus-ratio", c.PlusRatio}, {"label-smoothing", c.Smoothing}, {"neftune", c.NEFTune}} {
		if !(n.value >= 0) || math.IsInf(n.value, 0) { // NaN fails too
			return Usage("--%s is %v, want 0 or a positive number", n.flag, n.value)
		}
	}
	for _, n := range []struct {
		flag  string
		value float64
	}{{"momentum", c.Momentum}, {"label-smoothing", c.Smoothing}} {
		if n.value >= 1 {
			return Usage("--%s is %v, want it below 1", n.flag, n.value)
		}
	}
	if _, err := NewSchedule(c.Schedule, 1, c.Warmup, 1); err != nil {
		return Usage("--%w", err) // it begins with the setting's name
	}
	if !slices.Contains(optimizers(), c.Optimizer) {
		return Usage("--optimizer %q is not known: one of %s", c.Optimizer, strings.Join(optimizers(), ", "))
	}
	return nil
}
