package run

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"gopeft/model"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/classic"
	"gopeft/train/classic/xgboost"
	"gopeft/train/data"
)

// Config is a whole run, its settings in groups. Each field of a group that has a usage is a setting: a flag of the same
// name as its YAML key, and usage its help.
type Config struct {
	Model   ModelSettings         `yaml:",inline" group:"model"`
	Data    data.Settings         `yaml:",inline" group:"data"`
	Machine train.MachineSettings `yaml:",inline" group:"machine"`
	Loop    train.LoopSettings    `yaml:",inline" group:"training"`
	Output  OutputSettings        `yaml:",inline" group:"output"`
	Peft    peft.Options          `yaml:",inline" group:"methods"`

	// Methods are what Model.Method is looked for in; nil: gopeft's own.
	Methods peft.Catalog `yaml:"-"`

	// Version and Build are of the program, for the record of the run.
	Version, Build string `yaml:"-"`

	// Automatic lists, in the settings that a run has written, which were not asked for but are what the run chose.
	Automatic []string `yaml:"automatic,omitempty"`
}

// ModelSettings say what is fine-tuned, and how.
type ModelSettings struct {
	Task        string  `yaml:"task" usage:"classify, or causal for a language model"`
	Method      string  `yaml:"method" usage:"how to fine-tune: features, or one of gopeft's methods"`
	Path        string  `yaml:"model" usage:"model folder, GGUF file, or name on the hub"`
	AdapterInit string  `yaml:"adapter-init" usage:"go on from an existing adapter folder"`
	ReadAs      string  `yaml:"read-as" usage:"family to read a model as that can be read as more than one: distilbert reads a BERT without its pooler (default: as what it says it is)"`
	BaseDType   string  `yaml:"base-dtype" usage:"what the frozen base is held in: fp32, bf16, fp16, or auto: the files' own 16 bits where products are computed in them"`
	Quantize    string  `yaml:"quantize" usage:"bits of the frozen base: nf4, int8, keep for what its files hold quantised, or none (default: keep; with method full none)"`
	Dropout     float64 `yaml:"dropout" usage:"dropout rate of the base model (default: the checkpoint's)"`
	CacheStates bool    `yaml:"cache-features" usage:"of method last: run the frozen model once, its dropout off, and train the head on what it gave"`
	Classifier  string  `yaml:"classifier" usage:"of method features: logreg, forest, or xgboost, which --early-stop ends by the validation part"`
	Pool        string  `yaml:"pool" usage:"of method features: cls (the first token), mean or last (default: cls of encoders, last of decoders)"`

	found string // where Path is, once looked for
}

// OutputSettings say what a run leaves behind, and where.
type OutputSettings struct {
	Checkpoints int     `yaml:"checkpoint-every" usage:"write a checkpoint every N steps, besides every epoch"`
	Minutes     float64 `yaml:"checkpoint-minutes" usage:"write a checkpoint when the last is this old (0: never)"`
	NoTrainEval bool    `yaml:"no-train-eval" usage:"do not score the training data at the end"`
	TensorBoard bool    `yaml:"tensorboard" usage:"write TensorBoard events too"`
	Out         string  `yaml:"out" usage:"folder of the run (default: runs/METHOD, of a comparison runs/compare)"`
}

// Defaults is the configuration of a run that sets nothing.
func Defaults() Config {
	return Config{
		Model:   ModelSettings{Task: "classify", BaseDType: "auto", Dropout: -1, Classifier: "logreg"},
		Data:    data.Settings{Split: []float64{0.8, 0.1, 0.1}, MaskPrompt: true},
		Machine: train.DefaultMachine(),
		Loop:    train.DefaultLoop(),
		Output:  OutputSettings{Minutes: 5},
	}
}

// folder is where the model is: what was asked for, or the hub's model of that name.
func (m ModelSettings) folder() string {
	if m.found != "" {
		return m.found
	}
	return m.Path
}

// OutFolder is the folder of the run.
func (c Config) OutFolder() string {
	if c.Output.Out == "" {
		return filepath.Join("runs", c.Model.Method)
	}
	return c.Output.Out
}

// Fields calls fn for every setting of an addressable struct such as a Config, those of its groups included, with the
// innermost group that has a name, key, help text and value. A field without help is no setting.
func Fields(v reflect.Value, fn func(group, key, usage string, v reflect.Value)) {
	fields(v, "", fn)
}

func fields(v reflect.Value, group string, fn func(group, key, usage string, v reflect.Value)) {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		key, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if opts == "inline" {
			inner := group
			if name := f.Tag.Get("group"); name != "" {
				inner = name
			}
			fields(v.Field(i), inner, fn)
			continue
		}
		if usage := f.Tag.Get("usage"); key != "" && key != "-" && usage != "" {
			fn(group, key, usage, v.Field(i))
		}
	}
}

// each calls fn for every setting of c.
func (c *Config) each(fn func(key string, v reflect.Value)) {
	Fields(reflect.ValueOf(c).Elem(), func(_, key, _ string, v reflect.Value) { fn(key, v) })
}

// Check reports the first setting that cannot be right.
func (c *Config) Check() error {
	if err := c.Model.check(methods(c.Methods)); err != nil {
		return err
	}
	m := c.Model
	switch {
	case m.CacheStates && (m.Method != "last" || m.Task != "classify" || len(c.Peft.Unfreeze) > 0):
		return train.Usage("--cache-features needs --method last and --task classify, without --unfreeze: all but the head must be frozen")
	case m.Task == "classify" && c.Data.Template != "":
		return train.Usage("--template goes with --task causal")
	case m.Task == "classify" && c.Data.Pack:
		return train.Usage("--pack goes with --task causal")
	case c.Loop.Monitor == "val_acc" && m.Task == "causal":
		return train.Usage("--monitor val_acc: a language model has no accuracy, use val_loss")
	}
	for _, check := range []func() error{c.checkData, c.Machine.Check, c.Loop.Check, c.Output.check} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (c *Config) checkData() error {
	if err := c.Data.Check(); err != nil {
		return &train.UsageError{Err: err}
	}
	if weights, _ := c.Data.Weights(); weights != nil && c.Model.Method == train.Features {
		return train.Usage("--method features has no epochs that weights of files could be of: give the files without them")
	}
	return nil
}

func (m ModelSettings) check(methods []string) error {
	switch {
	case m.Path == "":
		return train.Usage("--model is missing: give a model folder, or a name on the hub")
	case m.Method == "":
		return train.Usage("--method is missing: one of %s", strings.Join(methods, ", "))
	case !slices.Contains(methods, m.Method):
		return train.Usage("--method %q is not known: one of %s", m.Method, strings.Join(methods, ", "))
	case m.ReadAs != "" && !slices.ContainsFunc(model.Architectures(), func(i model.Info) bool { return i.Family == m.ReadAs }):
		return train.Usage("--read-as %q is no family of models", m.ReadAs)
	case m.Task != "classify" && m.Task != "causal":
		return train.Usage("--task %q is not known (classify, causal)", m.Task)
	case !slices.Contains(classic.Kinds(), m.Classifier):
		return train.Usage("--classifier %q is not known (%s)", m.Classifier, strings.Join(classic.Kinds(), ", "))
	case m.Method == train.Features && m.Task == "causal":
		return train.Usage("--method features classifies: it has no --task causal")
	case !(m.Dropout < 1) || m.Dropout < 0 && m.Dropout != -1: // -1: the checkpoint's own; NaN fails too
		return train.Usage("--dropout is %v, want 0 to below 1", m.Dropout)
	}
	return errors.Join(train.CheckPool(m.Pool), train.CheckBase(m.BaseDType, m.Quantize))
}

// findLibrary makes sure, before any work, that the classifier's library is there if it has one.
func (m ModelSettings) findLibrary() error {
	if m.Method != train.Features || m.Classifier != classic.KindBoosted {
		return nil
	}
	if _, err := xgboost.Find(); err != nil {
		return fmt.Errorf("--classifier %s: %w", m.Classifier, err)
	}
	return nil
}

// errNoValidation is of --early-stop without what it goes by.
var errNoValidation = train.Usage("--early-stop needs validation data: give --val, or --data with a --split that has it")

func (o OutputSettings) check() error {
	if !(o.Minutes >= 0) { // NaN fails too
		return train.Usage("--checkpoint-minutes is %v, want 0 or a positive number", o.Minutes)
	}
	return train.CheckCount("checkpoint-every", o.Checkpoints, 0)
}

// Methods lists what --method takes.
func Methods() []string { return methods(nil) }

func methods(c peft.Catalog) []string { return append([]string{train.Features}, c.Names()...) }
