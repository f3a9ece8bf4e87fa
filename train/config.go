package train

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"gopeft/bindings"
	"gopeft/model/fsutil"
	"gopeft/peft"
)

// Config is a whole run. Each field is a flag of the same name as its YAML key; usage is the flag's help.
type Config struct {
	Task   string `yaml:"task" usage:"classify, or causal for a language model"`
	Method string `yaml:"method" usage:"how to fine-tune: features, or one of gopeft's methods"`
	Model  string `yaml:"model" usage:"model folder, GGUF file, or name on the hub"`

	Train         string    `yaml:"train" usage:"training data (csv, tsv, jsonl, json, parquet, .gz, or an aclImdb folder)"`
	Val           string    `yaml:"val" usage:"validation data"`
	Test          string    `yaml:"test" usage:"test data"`
	Data          string    `yaml:"data" usage:"one file that --split divides, in place of --train, --val and --test"`
	Split         []float64 `yaml:"split" usage:"shares of --data for training, validation and test"`
	Stratify      bool      `yaml:"stratify" usage:"keep every class's share in the parts of --data"`
	TextColumn    string    `yaml:"text-column" usage:"column with the text (default: guessed)"`
	LabelColumn   string    `yaml:"label-column" usage:"column with the label (default: guessed)"`
	Limit         int       `yaml:"limit" usage:"read the first N examples of each file only"`
	Sample        int       `yaml:"sample" usage:"take a random sample of N examples of each file"`
	SkipBadRows   bool      `yaml:"skip-bad-rows" usage:"count bad rows instead of failing on the first"`
	MaxLength     int       `yaml:"max-length" usage:"cut texts to this many tokens (default: what the model can read)"`
	Template      string    `yaml:"template" usage:"causal: prompt and answer from columns, e.g. '{question} -> {answer}'"`
	MaskPrompt    bool      `yaml:"mask-prompt" usage:"causal: learn the answer only"`
	Pack          bool      `yaml:"pack" usage:"causal: several examples in a row, without attention across them"`
	Device        string    `yaml:"device" usage:"auto, cpu, cuda or cuda:N"`
	AMP           string    `yaml:"amp" usage:"mixed precision: auto, none, bf16 or fp16"`
	Threads       int       `yaml:"threads" usage:"CPU threads (default: all cores)"`
	Seed          uint64    `yaml:"seed" usage:"seed of everything random"`
	Deterministic bool      `yaml:"deterministic" usage:"use deterministic algorithms only"`
	TF32          bool      `yaml:"tf32" usage:"let a GPU round the factors of fp32 matrix products to TF32: faster, 10 bits of mantissa"`

	Epochs      int      `yaml:"epochs" usage:"passes over the training data"`
	MaxSteps    int      `yaml:"max-steps" usage:"stop after this many optimizer steps"`
	BatchSize   int      `yaml:"batch-size" usage:"rows of a batch"`
	MaxTokens   int      `yaml:"max-tokens" usage:"most tokens of a batch, padding included; --batch-size then bounds the rows"`
	LR          float64  `yaml:"lr" usage:"learning rate (default: the method's)"`
	Optimizer   string   `yaml:"optimizer" usage:"adam, adamw or sgd"`
	Momentum    float64  `yaml:"momentum" usage:"momentum of sgd"`
	WeightDecay float64  `yaml:"weight-decay" usage:"weight decay, of all but biases and norms"`
	Schedule    string   `yaml:"schedule" usage:"learning rate over the run: constant, linear or cosine"`
	Warmup      float64  `yaml:"warmup" usage:"steps of warm-up, or a share of the run below 1"`
	GradAccum   int      `yaml:"grad-accum" usage:"batches per optimizer step"`
	Clip        float64  `yaml:"clip" usage:"largest gradient norm (0: not clipped)"`
	Dropout     float64  `yaml:"dropout" usage:"dropout rate of the base model (default: the checkpoint's)"`
	EarlyStop   int      `yaml:"early-stop" usage:"stop after N evaluations without improvement"`
	Monitor     string   `yaml:"monitor" usage:"what the best checkpoint is chosen by: val_acc or val_loss"`
	NoShuffle   bool     `yaml:"no-shuffle" usage:"train in the data's order"`
	NoBucket    bool     `yaml:"no-bucket" usage:"batch at random, not by similar length"`
	Checkpoints int      `yaml:"checkpoint-every" usage:"write a checkpoint every N steps, besides every epoch"`
	Recompute   bool     `yaml:"checkpoint-activations" usage:"recompute activations in the backward pass: less memory, more time"`
	CacheStates bool     `yaml:"cache-features" usage:"of method last: run the frozen model once, its dropout off, and train the head on what it gave"`
	Without     []string `yaml:"without" usage:"means of speed to do without, to see what each gives: kernels, blocks, casts, pooling, passes, overlap, chunks, optimizer, mapping"`
	LogEvery    int      `yaml:"log-every" usage:"steps between two rows of metrics.csv"`
	NoTrainEval bool     `yaml:"no-train-eval" usage:"do not score the training data at the end"`
	TensorBoard bool     `yaml:"tensorboard" usage:"write TensorBoard events too"`
	AdapterInit string   `yaml:"adapter-init" usage:"go on from an existing adapter folder"`
	Classifier  string   `yaml:"classifier" usage:"of method features: logreg or forest"`
	Pool        string   `yaml:"pool" usage:"of method features: cls or mean"`
	Out         string   `yaml:"out" usage:"folder of the run"`

	Peft peft.Options `yaml:",inline"`

	// Automatic lists, in the settings that a run has written, which were not asked for but are what the run chose.
	Automatic []string `yaml:"automatic,omitempty"`

	found string // where Model is, once looked for
}

// Defaults is the configuration of a run that sets nothing.
func Defaults() Config {
	return Config{
		Task: "classify", Split: []float64{0.8, 0.1, 0.1}, MaskPrompt: true, Device: "auto", AMP: "auto", Seed: 42, Epochs: 3, BatchSize: 12,
		Optimizer: "adam", Schedule: "constant", GradAccum: 1, Dropout: -1, LogEvery: 10, Classifier: "logreg", Pool: "cls",
	}
}

// ReadConfig reads a YAML file over base. Unknown keys, and numbers that do not fit their field (epochs: 3.5),
// are errors naming the line.
func ReadConfig(path string, base Config) (Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return base, err
	}
	if base, err = parseConfig(raw, base); err != nil {
		return base, fmt.Errorf("%s: %w", path, err)
	}
	return base, nil
}

// parseConfig reads YAML over base, keys of others left out.
func parseConfig(raw []byte, base Config, others ...string) (Config, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return base, err
	}
	if len(doc.Content) == 0 { // an empty file
		return base, nil
	}
	return overlay(base, doc.Content[0], others...)
}

// overlay puts a YAML mapping over a configuration, keys of others left out. Unknown keys are errors naming their line,
// as are fractions where a field is an integer, which yaml would cut off.
func overlay(base Config, n *yaml.Node, others ...string) (Config, error) {
	if n.Kind != yaml.MappingNode {
		return base, fmt.Errorf("line %d: want settings, each a line of the form `key: value`", n.Line)
	}
	kinds := map[string]reflect.Kind{"automatic": reflect.Slice}
	Fields(reflect.ValueOf(&Config{}).Elem(), func(key, _ string, v reflect.Value) { kinds[key] = v.Kind() })
	own := *n
	own.Content = slices.Clone(n.Content)
	RemoveKeys(&own, others...)
	for i := 0; i+1 < len(own.Content); i += 2 {
		key, value := own.Content[i], own.Content[i+1]
		switch kind, known := kinds[key.Value]; {
		case !known:
			return base, fmt.Errorf("line %d: there is no setting %q", key.Line, key.Value)
		case (kind == reflect.Int || kind == reflect.Int64 || kind == reflect.Uint64) && value.Tag != "!!int":
			return base, fmt.Errorf("line %d: %s is %q, want a whole number", value.Line, key.Value, value.Value)
		}
	}
	if err := own.Decode(&base); err != nil {
		return base, errors.New(strings.Join(strings.Fields(err.Error()), " "))
	}
	return base, nil
}

// Fields calls fn for every setting of a Config (addressable), those of the methods included, with its key,
// help text and value. A field without help is no setting.
func Fields(v reflect.Value, fn func(key, usage string, v reflect.Value)) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		key, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if opts == "inline" {
			Fields(v.Field(i), fn)
			continue
		}
		if usage := f.Tag.Get("usage"); key != "" && key != "-" && usage != "" {
			fn(key, usage, v.Field(i))
		}
	}
}

// WriteConfig writes every setting.
func WriteConfig(path string, c Config) error {
	return fsutil.WriteFile(path, func(w io.Writer) error {
		e := yaml.NewEncoder(w)
		e.SetIndent(2)
		return errors.Join(e.Encode(c), e.Close())
	})
}

// free are the settings that change nothing of what a run computes (on CPU with the same number of threads): a
// resumed run may have others.
var free = [...]string{"out", "checkpoint-every", "threads", "tensorboard", "no-train-eval"}

// fixed calls fn with every setting that a resumed run must share with the one it goes on from; one GPU is as good as
// another.
func (c Config) fixed(fn func(key, value string)) {
	Fields(reflect.ValueOf(&c).Elem(), func(key, _ string, v reflect.Value) {
		value := fmt.Sprint(v.Interface())
		if key == "device" {
			value, _, _ = strings.Cut(value, ":")
		}
		if !slices.Contains(free[:], key) {
			fn(key, value)
		}
	})
}

// fingerprint identifies those settings and the data.
func (c Config) fingerprint(data string) string {
	h := sha256.New()
	c.fixed(func(key, value string) { fmt.Fprintf(h, "%q %q\n", key, value) })
	fmt.Fprintf(h, "%q\n", data)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// differences names the settings of c that a run begun with was cannot be resumed with. What was left to that run,
// and is again, is none.
func (c Config) differences(was Config) (keys []string) {
	c = c.adopt(was)
	values := map[string]string{}
	was.fixed(func(key, value string) { values[key] = value })
	c.fixed(func(key, value string) {
		if values[key] != value {
			keys = append(keys, key)
		}
	})
	return keys
}

// choices are the settings that a run chooses where they are not asked for, and whether they are not.
func (c *Config) choices(fn func(key string, open bool, v reflect.Value)) {
	Fields(reflect.ValueOf(c).Elem(), func(key, _ string, v reflect.Value) {
		switch key {
		case "lr", "threads":
			fn(key, v.IsZero(), v)
		case "amp", "device":
			fn(key, v.IsZero() || v.String() == "auto", v)
		}
	})
}

// settle puts what a run chose in place of what was not asked for.
func (c Config) settle(lr float64, amp bindings.DType, dev bindings.Device, threads int) Config {
	chosen := map[string]any{"lr": lr, "amp": ampName(amp), "device": dev.String(), "threads": threads}
	c.Automatic = slices.Clone(c.Automatic) // of a session that ended before its first checkpoint
	c.choices(func(key string, open bool, v reflect.Value) {
		if open && chosen[key] != 0.0 { // features have no learning rate
			v.Set(reflect.ValueOf(chosen[key]))
			c.Automatic = append(c.Automatic, key)
		}
	})
	return c
}

// adopt takes what an earlier session of the run chose over to one that leaves the same to it.
func (c Config) adopt(was Config) Config {
	chosen := map[string]reflect.Value{}
	was.choices(func(key string, _ bool, v reflect.Value) { chosen[key] = v })
	c.choices(func(key string, open bool, v reflect.Value) {
		if open && slices.Contains(was.Automatic, key) {
			v.Set(chosen[key])
		}
	})
	c.Automatic = was.Automatic
	return c
}

// Features is the method that trains no transformer: classic classifiers on frozen features.
const Features = "features"

// UsageError is a setting that cannot be right, whatever the data.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *UsageError) Unwrap() error { return e.Err }

func usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// Check reports the first setting that cannot be right.
func (c *Config) Check() error {
	switch {
	case c.Model == "":
		return usage("--model is missing: give a model folder, or a name on the hub")
	case c.Method == "":
		return usage("--method is missing: one of %s", strings.Join(Methods(), ", "))
	case !slices.Contains(Methods(), c.Method):
		return usage("--method %q is not known: one of %s", c.Method, strings.Join(Methods(), ", "))
	case c.Task != "classify" && c.Task != "causal":
		return usage("--task %q is not known (classify, causal)", c.Task)
	case c.Train == "" && c.Data == "":
		return usage("no data: give --train, or --data with --split")
	case c.Data != "" && (c.Train != "" || c.Val != "" || c.Test != ""):
		return usage("--data is one file that --split divides: it goes with none of --train, --val and --test")
	case !slices.Contains([]string{"", "auto", "none", "bf16", "fp16"}, c.AMP):
		return usage("--amp %q is not known (auto, none, bf16, fp16)", c.AMP)
	case c.Classifier != "logreg" && c.Classifier != "forest":
		return usage("--classifier %q is not known (logreg, forest)", c.Classifier)
	case c.Pool != "cls" && c.Pool != "mean":
		return usage("--pool %q is not known (cls, mean)", c.Pool)
	case c.Method == Features && c.Task == "causal":
		return usage("--method features classifies: it has no --task causal")
	case c.CacheStates && (c.Method != "last" || c.Task != "classify" || len(c.Peft.Unfreeze) > 0):
		return usage("--cache-features needs --method last and --task classify, without --unfreeze: all but the head must be frozen")
	case c.Monitor != "" && c.Monitor != "val_acc" && c.Monitor != "val_loss":
		return usage("--monitor %q is not known (val_acc, val_loss)", c.Monitor)
	case c.Monitor == "val_acc" && c.Task == "causal":
		return usage("--monitor val_acc: a language model has no accuracy, use val_loss")
	case c.Dropout >= 1 || math.IsNaN(c.Dropout):
		return usage("--dropout is %v, want 0 to below 1", c.Dropout)
	case c.LR < 0 || math.IsNaN(c.LR) || math.IsInf(c.LR, 0):
		return usage("--lr is %v, want a positive learning rate", c.LR)
	}
	for _, n := range []struct {
		flag  string
		value int
		least int
	}{
		{"epochs", c.Epochs, 1}, {"batch-size", c.BatchSize, 1}, {"grad-accum", c.GradAccum, 1}, {"log-every", c.LogEvery, 1},
		{"max-steps", c.MaxSteps, 0}, {"max-tokens", c.MaxTokens, 0}, {"max-length", c.MaxLength, 0}, {"limit", c.Limit, 0},
		{"sample", c.Sample, 0}, {"threads", c.Threads, 0}, {"early-stop", c.EarlyStop, 0}, {"checkpoint-every", c.Checkpoints, 0},
	} {
		if n.value < n.least {
			return usage("--%s is %d, want at least %d", n.flag, n.value, n.least)
		}
	}
	for _, n := range []struct {
		flag  string
		value float64
	}{{"clip", c.Clip}, {"weight-decay", c.WeightDecay}, {"momentum", c.Momentum}} {
		if !(n.value >= 0) || math.IsInf(n.value, 0) { // NaN fails too
			return usage("--%s is %v, want 0 or a positive number", n.flag, n.value)
		}
	}
	if c.Momentum >= 1 {
		return usage("--momentum is %v, want it below 1", c.Momentum)
	}
	if _, err := NewSchedule(c.Schedule, 1, c.Warmup, 1); err != nil {
		return usage("--%w", err) // it begins with the setting's name
	}
	if !slices.Contains(optimizers(), c.Optimizer) {
		return usage("--optimizer %q is not known: one of %s", c.Optimizer, strings.Join(optimizers(), ", "))
	}
	if err := CheckLevers(c.Without); err != nil {
		return err
	}
	if err := c.sources().Check(); err != nil {
		return usage("--%w", err) // it begins with split
	}
	return nil
}

// Methods lists what --method takes.
func Methods() []string { return append([]string{Features}, peft.Methods()...) }
