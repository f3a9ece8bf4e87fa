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
	"gopeft/train/metrics"
	"gopeft/train/prompted"
)

// Config is a whole run, its settings in groups. Each field of a group that has a usage is a setting: a flag of the same
// name as its YAML key, and usage its help.
type Config struct {
	Model   ModelSettings         `yaml:",inline" group:"model"`
	Data    data.Settings         `yaml:",inline" group:"data"`
	Machine train.MachineSettings `yaml:",inline" group:"machine"`
	Loop    train.LoopSettings    `yaml:",inline" group:"training"`
	Prompt  prompted.Settings     `yaml:",inline" group:"prompts"`
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
	Task        string  `yaml:"task" usage:"classify, multi-label (any number of labels to a row), regression (numbers), or causal for a language model"`
	Method      string  `yaml:"method" usage:"how to fine-tune: features, or one of gopeft's methods; in-context and hard-prompt train nothing and ask a language model"`
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
		Prompt:  prompted.Defaults(),
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
	case m.Method == prompted.HardPrompt && c.Data.Template != "":
		return train.Usage("--template is one template, for method %s: %s chooses among those of --templates", prompted.InContext, prompted.HardPrompt)
	case m.Task != train.TaskCausal && m.Method != prompted.InContext && c.Data.Template != "":
		return train.Usage("--template goes with --task causal, or with method %s", prompted.InContext)
	case m.Task != train.TaskCausal && c.Data.Pack:
		return train.Usage("--pack goes with --task causal")
	case m.Method == prompted.InContext && !c.Data.MaskPrompt:
		return train.Usage("--mask-prompt=false: method %s scores answers, the prompt is where its examples are", m.Method)
	case len(c.Peft.AddTokens) > 0 && m.Method != "lora" && m.Method != "dora":
		return train.Usage("--add-tokens goes with --method lora or dora")
	case m.Task != train.TaskClassify && c.Data.Stratify:
		return train.Usage("--stratify goes with --task classify: other rows have no class")
	case m.kind() != data.OneLabel && c.Loop.Smoothing > 0:
		return train.Usage("--label-smoothing goes with --task classify and causal: --task %s has targets of its own", m.Task)
	case m.Task != train.TaskClassify && c.Loop.Weights != "":
		return train.Usage("--class-weights goes with --task classify")
	case m.CacheStates && c.Loop.NEFTune > 0:
		return train.Usage("--neftune changes embeddings at every step, which --cache-features runs once: give one of the two")
	case c.Loop.Monitor == "val_acc" && m.Task == train.TaskCausal:
		return train.Usage("--monitor val_acc: a language model has no accuracy, use val_loss")
	case c.Loop.Monitor != "" && !slices.Contains(monitors(m.Task), c.Loop.Monitor):
		return train.Usage("--monitor %q is not known (of --task %s: %s)", c.Loop.Monitor, m.Task, strings.Join(monitors(m.Task), ", "))
	}
	for _, check := range []func() error{c.checkData, c.Machine.Check, c.Loop.Check, c.Prompt.Check, c.Output.check} {
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
	if c.trains() {
		return nil
	}
	if weights, _ := c.Data.Weights(); weights != nil {
		return train.Usage("--method %s has no epochs that weights of files could be of: give the files without them", c.Model.Method)
	}
	for _, n := range []struct {
		flag  string
		asked bool
	}{{"class-weights", c.Loop.Weights != ""}, {"label-smoothing", c.Loop.Smoothing > 0}, {"neftune", c.Loop.NEFTune > 0}} {
		if n.asked {
			return train.Usage("--%s: --method features trains no network that it could change", n.flag)
		}
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
	case train.CheckTask(m.Task) != nil:
		return train.CheckTask(m.Task)
	case !slices.Contains(classic.Kinds(), m.Classifier):
		return train.Usage("--classifier %q is not known (%s)", m.Classifier, strings.Join(classic.Kinds(), ", "))
	case (m.Method == train.Features || m.Method == prompted.HardPrompt) && m.Task != train.TaskClassify:
		return train.Usage("--method %s classifies: it has no --task %s", m.Method, m.Task)
	case m.Method == prompted.InContext && m.Task != train.TaskClassify && m.Task != train.TaskCausal:
		return train.Usage("--method %s asks for a label or an answer: it has no --task %s", m.Method, m.Task)
	case prompted.Is(m.Method) && m.AdapterInit != "":
		return train.Usage("--method %s trains nothing that could go on from --adapter-init: merge the adapter, or give it to eval", m.Method)
	case !(m.Dropout < 1) || m.Dropout < 0 && m.Dropout != -1: // -1: the checkpoint's own; NaN fails too
		return train.Usage("--dropout is %v, want 0 to below 1", m.Dropout)
	}
	return errors.Join(train.CheckPool(m.Pool), train.CheckBase(m.BaseDType, m.Quantize))
}

// monitors are what a task's best checkpoint can be chosen by, the usual one first.
func monitors(task string) []string {
	switch task {
	case train.TaskClassify:
		return []string{"val_acc", "val_loss"}
	case train.TaskMultiLabel:
		return append(figuresOf(task), "val_acc", "val_loss")
	}
	return append([]string{"val_loss"}, figuresOf(task)...)
}

// figuresOf are the columns of a task's scores beside its loss and accuracy.
func figuresOf(task string) (names []string) {
	if kindOf(task) == data.OneLabel {
		return nil
	}
	for _, f := range (train.Targets{Problem: train.ProblemOf(task)}).Score(nil, nil) {
		if f.Name != metrics.MSE && f.Name != metrics.SubsetAccuracy { // the loss, and the accuracy
			names = append(names, "val_"+f.Name)
		}
	}
	return names
}

// kind is what rows are labelled with.
func (m ModelSettings) kind() data.Kind { return kindOf(m.Task) }

func kindOf(task string) data.Kind {
	switch task {
	case train.TaskRegression:
		return data.Numbers
	case train.TaskMultiLabel:
		return data.AnyLabels
	}
	return data.OneLabel
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

// needsValidation refuses settings that go by validation data, where there is none.
func needsValidation(c train.LoopSettings) error {
	for _, need := range []struct {
		flag string
		n    int
	}{{"early-stop", c.EarlyStop}, {"eval-every", c.EvalEvery}} {
		if need.n > 0 {
			return train.Usage("--%s needs validation data: give --val, or --data with a --split that has it", need.flag)
		}
	}
	return nil
}

func (o OutputSettings) check() error {
	if !(o.Minutes >= 0) { // NaN fails too
		return train.Usage("--checkpoint-minutes is %v, want 0 or a positive number", o.Minutes)
	}
	return train.CheckCount("checkpoint-every", o.Checkpoints, 0)
}

// Methods lists what --method takes.
func Methods() []string { return methods(nil) }

func methods(c peft.Catalog) []string {
	return slices.Concat([]string{train.Features}, prompted.Methods(), c.Names())
}

// trains reports whether the method trains parameters on the transformer, or of it.
func (c Config) trains() bool {
	return c.Model.Method != train.Features && !prompted.Is(c.Model.Method)
}
