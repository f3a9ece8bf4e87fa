package bench

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"gopeft/model"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/classic"
	"gopeft/train/dist"
)

// The modes.
const (
	Train    = "train"    // optimizer steps
	Infer    = "infer"    // forward passes without gradients
	Generate = "generate" // greedy decoding with a key/value cache
	Fit      = "fit"      // a classic classifier on features
	Tokenize = "tokenize" // tokenizing on one thread
)

// Base is the method that attaches nothing to the model.
const Base = "base"

// How rows of differing length share a batch.
const (
	PadMax     = "max"     // every row is padded to Seq tokens
	PadLongest = "longest" // random rows, padded to the longest of their batch
	PadBucket  = "bucket"  // rows of like length, padded to the longest of their batch
)

// Config says what is measured. Each field is a flag of the same name as its YAML key. A zero size is the
// family's default: DistilBERT-base, or a LLaMA of 110 million parameters.
type Config struct {
	Arch    string `yaml:"arch" usage:"shape of a model with random weights: distilbert, bert, roberta or llama"`
	Model   string `yaml:"model" usage:"model folder or GGUF file, in place of --arch"`
	Layers  int    `yaml:"layers" usage:"blocks (distilbert: 6, others: 12)"`
	Hidden  int    `yaml:"hidden" usage:"hidden size (768)"`
	Heads   int    `yaml:"heads" usage:"attention heads (12)"`
	KVHeads int    `yaml:"kv-heads" usage:"of llama: heads of keys and values (as many as --heads)"`
	FFN     int    `yaml:"ffn" usage:"feed-forward size (encoders: 3072, llama: 2048)"`
	Vocab   int    `yaml:"vocab" usage:"vocabulary (default: the family's)"`
	Labels  int    `yaml:"labels" usage:"of encoders: classes"`

	Method    string       `yaml:"method" usage:"features, base (no method), or one of gopeft's methods"`
	Mode      string       `yaml:"mode" usage:"train, infer, generate, fit (a classic classifier on --features) or tokenize (--texts, by --model's tokenizer)"`
	Batch     int          `yaml:"batch" usage:"rows of a batch"`
	Seq       int          `yaml:"seq" usage:"tokens of a row, of a prompt in generate"`
	Steps     int          `yaml:"steps" usage:"steps to take; 0 with --lengths: all its rows once"`
	Warmup    int          `yaml:"warmup" usage:"first steps that the figures leave out"`
	Lengths   string       `yaml:"lengths" usage:"file of row lengths, separated by white space, cut at --seq"`
	Pad       string       `yaml:"pad" usage:"with --lengths: max, longest or bucket"`
	NewTokens int          `yaml:"new-tokens" usage:"of generate: tokens to decode"`
	DType     string       `yaml:"dtype" usage:"of generate and infer: the weights' dtype, fp32 or bf16"`
	Quantize  string       `yaml:"quantize" usage:"bits of the frozen base, as train has it"`
	BaseDType string       `yaml:"base-dtype" usage:"what the frozen base is held in, as train has it; auto is fp32 for made-up weights"`
	Features  string       `yaml:"features" usage:"of fit: safetensors file with features [rows, columns] in fp32 and labels [rows] in int64"`
	Holdout   int          `yaml:"holdout" usage:"of fit: last rows of --features to score on instead of fitting"`
	Fitted    string       `yaml:"classifier" usage:"of fit: logreg, forest or xgboost"`
	Texts     string       `yaml:"texts" usage:"of tokenize: file with a text per line"`
	AMP       string       `yaml:"amp" usage:"mixed precision: auto, none, bf16 or fp16"`
	Optimizer string       `yaml:"optimizer" usage:"adam, adamw or sgd"`
	Dropout   float64      `yaml:"dropout" usage:"dropout rate of the base model (default: the config's; distilbert's is 0.1)"`
	Recompute bool         `yaml:"checkpoint-activations" usage:"recompute activations in the backward pass"`
	Device    string       `yaml:"device" usage:"auto, cpu, cuda or cuda:N"`
	TF32      bool         `yaml:"tf32" usage:"let a GPU round the factors of fp32 matrix products to TF32"`
	Threads   int          `yaml:"threads" usage:"CPU threads (default: all cores)"`
	Seed      uint64       `yaml:"seed" usage:"seed of everything random"`
	Stream    bool         `yaml:"stream-weights" usage:"leave frozen weights of --model in their files, as train has it"`
	Shard     bool         `yaml:"shard-frozen" usage:"have the processes hold frozen weights of --model together, as train has it"`
	Without   train.Levers `yaml:"without" usage:"means of speed to do without, as train has them"`
	Profile   bool         `yaml:"profile" usage:"time the phases of a training step"`

	Peft peft.Options `yaml:",inline"`

	// Group are the processes that share each batch; nil: this one alone.
	Group *dist.Group `yaml:"-"`
}

// Defaults is what a bench without settings measures.
func Defaults() Config {
	return Config{Method: "full", Mode: Train, Batch: 12, Seq: 128, Steps: 8, Warmup: 1, Pad: PadBucket, NewTokens: 32, DType: "fp32", BaseDType: "auto", AMP: "none",
		Optimizer: "adam", Dropout: -1, Device: "auto", Seed: 42, Labels: 2, Fitted: "logreg"}
}

// mostTokens bounds the made-up data.
const mostTokens = 1 << 27

// check reports the first setting that cannot be right, and fills in what depends on others.
func (c *Config) check() error {
	fail := func(format string, args ...any) error { return &train.UsageError{Err: fmt.Errorf(format, args...)} }
	for _, choice := range []struct {
		flag, value string
		of          []string
	}{
		{"mode", c.Mode, []string{Train, Infer, Generate, Fit, Tokenize}},
		{"classifier", c.Fitted, classic.Kinds()},
		{"pad", c.Pad, []string{PadMax, PadLongest, PadBucket}},
		{"dtype", c.DType, []string{"fp32", "bf16"}},
		{"method", c.Method, append([]string{Base, train.Features}, peft.Methods()...)},
	} {
		if !slices.Contains(choice.of, choice.value) {
			return fail("--%s %q is not known: one of %s", choice.flag, choice.value, strings.Join(choice.of, ", "))
		}
	}
	if err := errors.Join(c.Without.Check(), train.CheckBase(c.BaseDType, c.Quantize)); err != nil {
		return err
	}
	least := 1
	if c.Lengths != "" {
		least = 0
	}
	for _, n := range []struct {
		flag         string
		value, least int
	}{
		{"batch", c.Batch, 1}, {"seq", c.Seq, 2}, {"steps", c.Steps, least}, {"warmup", c.Warmup, 0}, {"new-tokens", c.NewTokens, 2},
		{"labels", c.Labels, 1}, {"holdout", c.Holdout, 0}, {"threads", c.Threads, 0}, {"layers", c.Layers, 0}, {"hidden", c.Hidden, 0}, {"heads", c.Heads, 0},
		{"kv-heads", c.KVHeads, 0}, {"ffn", c.FFN, 0}, {"vocab", c.Vocab, 0},
	} {
		if n.value < n.least || n.value > 1<<24 {
			return fail("--%s is %d, want %d to %d", n.flag, n.value, n.least, 1<<24)
		}
	}
	if c.Batch*c.Seq > mostTokens || c.Batch*c.Seq*c.Steps > mostTokens {
		return fail("--batch × --seq × --steps is above %d tokens", mostTokens)
	}
	if c.Method == train.Features && c.Mode == Train {
		c.Mode = Infer // nothing of the transformer is trained
	}
	switch {
	case c.Group.Size() > 1 && c.Mode != Train && c.Mode != Infer:
		return fail("--mode %s is not shared by processes: train and infer are", c.Mode)
	case c.Mode == Fit && c.Features == "":
		return fail("--mode fit needs --features")
	case c.Mode == Tokenize && (c.Texts == "" || c.Model == ""):
		return fail("--mode tokenize needs --texts and --model")
	case c.Mode == Fit || c.Mode == Tokenize:
		return nil
	}
	switch {
	case c.Model != "" && c.Arch != "":
		return fail("--model and --arch exclude each other")
	case (c.Stream || c.Shard) && c.Model == "":
		return fail("--stream-weights and --shard-frozen need the files of a --model")
	case c.Shard && c.Mode == Generate:
		return fail("--shard-frozen: each process generates for itself: leave it out")
	case c.Model == "" && c.usual().Family == "":
		return fail("give %s or --model", architectures(func(model.Info) bool { return true }))
	case c.Dropout >= 1 || math.IsNaN(c.Dropout):
		return fail("--dropout is %v, want 0 to below 1", c.Dropout)
	case c.Mode == Train && c.Method == Base:
		return fail("--method base trains nothing")
	case c.Mode == Train && c.DType != "fp32":
		return fail("--dtype %s is of generate and infer: train in mixed precision with --amp", c.DType)
	case c.Mode == Generate && c.Model == "" && !c.usual().Decoder:
		return fail("--mode generate needs a language model: %s, or --model", architectures(func(i model.Info) bool { return i.Decoder }))
	case c.Mode == Generate && c.Lengths != "":
		return fail("--lengths is of train and infer")
	case c.Mode == Infer && c.Lengths != "" && c.Pad != PadBucket:
		return fail("--pad %s is of training: inference always batches by length", c.Pad)
	}
	return nil
}

// usual is the model that Arch stands for, before sizes are given; one that is unknown has no Family.
func (c Config) usual() model.Info {
	for _, i := range model.Architectures() {
		if i.Family == c.Arch {
			return i
		}
	}
	return model.Info{}
}

// architectures are the values of --arch that are wanted.
func architectures(wanted func(model.Info) bool) string {
	var flags []string
	for _, i := range model.Architectures() {
		if wanted(i) {
			flags = append(flags, "--arch "+i.Family)
		}
	}
	return strings.Join(flags, ", ")
}

// shape is the config.json of the model with random weights.
func (c Config) shape() ([]byte, error) {
	or := func(v, def int) int {
		if v == 0 {
			return def
		}
		return v
	}
	positions := c.Seq
	if c.Mode == Generate {
		positions += c.NewTokens
	}
	if c.Method != train.Features && c.Method != Base {
		method, err := peft.New(c.Method, c.Peft)
		if err != nil {
			return nil, &train.UsageError{Err: err}
		}
		positions += method.Needs().VirtualTokens + method.Needs().Memories
	}
	i := c.usual()
	i.Vocab, i.MaxPositions, i.Layers, i.Heads = or(c.Vocab, i.Vocab), max(i.MaxPositions, positions), or(c.Layers, i.Layers), or(c.Heads, i.Heads)
	i.KVHeads, i.Hidden, i.HeadDim, i.FFN = or(c.KVHeads, i.Heads), or(c.Hidden, i.Hidden), 0, or(c.FFN, i.FFN)
	labels := c.Labels
	if i.Decoder {
		labels = 0
	}
	return i.ConfigJSON(labels)
}

// machine is what to compute on.
func (c Config) machine() train.MachineSettings {
	m := train.DefaultMachine()
	m.AMP, m.Device, m.Threads, m.Seed, m.TF32, m.Without, m.Stream, m.Shard = c.AMP, c.Device, c.Threads, c.Seed, c.TF32, c.Without, c.Stream, c.Shard
	m.Group = c.Group
	return m
}

// loop is the training loop that c amounts to.
func (c Config) loop() train.LoopSettings {
	l := train.DefaultLoop()
	l.Epochs, l.MaxSteps, l.BatchSize, l.Optimizer, l.Recompute = 1, c.Steps, c.Batch, c.Optimizer, c.Recompute
	l.LogEvery = 1 // every step's own loss
	return l
}
