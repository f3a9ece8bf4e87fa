package run

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/tokenizer"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/report"
)

// setUp loads the model, attaches the method and builds the trainer.
func (r *run) setUp(ctx context.Context, s *bindings.Scope) error {
	cfg := r.cfg
	machine, err := cfg.Machine.Begin(s)
	if err != nil {
		return err
	}
	if machine.Note != "" {
		r.ui.Note("%s", machine.Note)
	}
	r.on = machine
	if cfg.Loop.ShardState && machine.Group == nil {
		r.ui.Note("--shard-optimizer: there are no other processes to hold a part of the optimizer's state")
	}
	o := model.Options{As: cfg.Model.ReadAs, Device: r.on.Device, Aside: r.on.Aside(), Classify: cfg.Model.Task != train.TaskCausal, Labels: r.data.labels, Copy: !cfg.Machine.Without.Use(train.LeverMapping)}
	if cfg.Model.Dropout >= 0 {
		o.Dropout = &cfg.Model.Dropout
	}
	if dir := cfg.Model.AdapterInit; dir != "" && o.As == "" {
		info, err := cfg.Methods.Probe(dir)
		if err != nil {
			return err
		}
		o.As = info.Family
	}
	if r.base, err = cfg.HoldBase(cfg.Model.folder(), machine.Precision, &o); err != nil {
		return err
	}
	machine.Divide = machine.Shard && r.base.Whole // others keep what is trained whole, and the bits of old runs
	r.on = machine
	if err := machine.CheckHold(r.base); err != nil {
		return err
	}
	if r.model, err = model.Load(s, cfg.Model.folder(), o); err != nil {
		return err
	}
	if _, ok := r.model.(model.CausalLM); !ok && cfg.Model.Task == "causal" {
		return train.Usage("--task causal: model %s has no language-model head, it classifies: give a model that writes text", cfg.Model.Path)
	}
	if p := train.ProblemOf(cfg.Model.Task); p != model.OneLabel || model.ProblemOf(r.model) != "" {
		model.SetProblem(r.model, p)
	}
	if err := r.attach(s); err != nil {
		return err
	}
	if err := machine.CheckMethod(r.method.Name(), r.method.Needs()); err != nil {
		return err
	}
	if err := r.writeChoices(s); err != nil {
		return err
	}
	r.describe(machine.Precision)
	if err := machine.HoldWeights(r.model, cfg.Loop.Recompute, r.keepsStored(), r.ui.Note); err != nil {
		return err
	}

	if err := r.data.wait(ctx); err != nil {
		return err
	}
	for _, note := range r.data.notes {
		r.ui.Note("%s", note)
	}
	if err := machine.Group.Agree(ctx, "data", r.data.describe()); err != nil {
		return err
	}
	if r.data.val == nil {
		if err := needsValidation(cfg.Loop); err != nil {
			return err
		}
	}
	if r.trainer, err = train.NewTrainer(s, cfg.Loop, machine, r.model, r.method, r.data.learns, r.data.train, r.data.sampler(cfg.Loop, cfg.Machine.Seed)); err != nil {
		return err
	}
	r.trainer.Seed, r.trainer.Due, r.trainer.OnStep = cfg.Machine.Seed, r.checkpointDue, r.onStep
	r.trainer.OnEpoch = func(s *bindings.Scope, rep train.StepReport) error { return r.onEpoch(ctx, s, rep) }
	r.trainer.OnEval = func(s *bindings.Scope, rep train.StepReport) error { return r.onEval(ctx, s, rep) }
	r.monitor = train.Monitor{Metric: cfg.Loop.Monitor, Patience: cfg.Loop.EarlyStop}
	if r.monitor.Metric == "" {
		r.monitor.Metric = monitors(cfg.Model.Task)[0]
	}
	if err := r.join(ctx, s); err != nil {
		return err
	}
	return r.open(ctx, s)
}

// join makes the group of the processes that train together, once each has what it takes.
func (r *run) join(ctx context.Context, s *bindings.Scope) error {
	shapes := sha256.New()
	for _, p := range r.trainer.Params {
		fmt.Fprintln(shapes, p.Name, p.T.DType(), p.T.Shape())
	}
	state := "whole"
	if r.trainer.Scattered() {
		state = "shared"
	}
	if err := r.on.Group.Agree(ctx, "state of the optimizer", state); err != nil {
		return err
	}
	if err := r.on.Group.Agree(ctx, "trained parameters", fmt.Sprintf("%d, %x", len(r.trainer.Params), shapes.Sum(nil)[:8])); err != nil {
		return err
	}
	return r.on.Join(ctx, s, r.model)
}

// writeChoices writes what the run has chosen into its settings, so that they repeat it anywhere. A run that goes on has
// them already.
func (r *run) writeChoices(s *bindings.Scope) error {
	if r.mode == Resume && r.first() && fsutil.Exists(filepath.Join(r.cfg.Output.Out, "last")) {
		return nil
	}
	r.cfg = r.cfg.choose(choices{lr: r.method.LR(), readAs: model.ReadAs(r.model), amp: r.on.Precision.DType, base: train.BaseDTypeName(r.base.DType),
		quantize: train.QuantizeName(r.base.Quantise, r.model), device: r.on.Device, threads: s.Threads()})
	if !r.first() {
		return nil
	}
	return WriteConfig(filepath.Join(r.cfg.Output.Out, "config.yaml"), r.cfg)
}

// attach puts the method on the model: a new one, or that of --adapter-init.
func (r *run) attach(s *bindings.Scope) (err error) {
	if dir := r.cfg.Model.AdapterInit; dir != "" {
		if r.method, err = r.cfg.Methods.LoadWith(s, dir, r.model, peft.LoadOptions{PeftCompat: r.pooledAsPeft()}); err != nil {
			return err
		}
		for _, note := range r.method.Notes() {
			r.ui.Note("%s: %s", dir, note)
		}
		if p := r.method.Problem(); p != "" && r.cfg.Model.Task != train.TaskCausal && p != train.ProblemOf(r.cfg.Model.Task) {
			return train.Usage("--adapter-init %s has a head of --task %s, this is --task %s", dir, train.TaskOf(p), r.cfg.Model.Task)
		}
		if r.method.Name() != r.cfg.Model.Method {
			return train.Usage("--adapter-init %s holds a %s adapter, --method is %s", dir, r.method.Name(), r.cfg.Model.Method)
		}
		return sameOptions(dir, r.cfg.Peft, r.method.Options())
	}
	o := r.cfg.Peft
	if width := r.model.Info().Hidden; o.Rank > width {
		return train.Usage("--rank is %d, above the model's width of %d: that holds no more than rank %d", o.Rank, width, width)
	}
	o.Base, o.Tokenizer, o.NewTokens = r.cfg.Model.Path, r.cfg.Model.Path, r.added
	if o.InitText != "" {
		if r.tok == nil {
			return r.noTok
		}
		if o.InitIDs, err = r.tok.EncodeIDs(nil, o.InitText, tokenizer.Options{}); err != nil {
			return fmt.Errorf("--init-text: %w", err)
		}
	}
	if r.method, err = r.cfg.Methods.New(r.cfg.Model.Method, o); err != nil {
		return &train.UsageError{Err: err}
	}
	return r.method.Attach(s, r.model)
}

// pooledAsPeft is whether a soft prompt gone on from classifies from the position that peft pools: as the settings or the
// run's last checkpoint have it, else (nil) as what wrote the adapter does.
func (r *run) pooledAsPeft() *bool {
	if r.cfg.Peft.PeftCompat {
		return &r.cfg.Peft.PeftCompat
	}
	if r.mode != Resume {
		return nil
	}
	if info, err := r.cfg.Methods.Probe(filepath.Join(r.cfg.Output.Out, "last")); err == nil {
		return &info.Options.PeftCompat
	}
	return nil
}

// sameOptions refuses settings of a method that the adapter gone on from does not have: they are fixed in it.
func sameOptions(dir string, asked, has peft.Options) error {
	values := map[string]reflect.Value{}
	Fields(reflect.ValueOf(&has).Elem(), func(_, key, _ string, v reflect.Value) { values[key] = v })
	var failed error
	Fields(reflect.ValueOf(&asked).Elem(), func(_, key, _ string, v reflect.Value) {
		open := v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0 // as a settings file has it
		if failed == nil && !open && fmt.Sprint(v) != fmt.Sprint(values[key]) {
			failed = train.Usage("--%s is %v, the adapter of --adapter-init %s has %v: leave it out to go on from that", key, v, dir, values[key])
		}
	})
	return failed
}

// open begins the run's files, or takes them up where the last checkpoint left them.
func (r *run) open(ctx context.Context, s *bindings.Scope) error {
	var err error
	from := report.FromStart
	last := filepath.Join(r.cfg.Output.Out, "last")
	switch {
	case !r.first():
	case r.mode == Resume && !fsutil.Exists(last):
		r.ui.Note("no checkpoint yet: starting from the first step")
	case r.mode == Resume:
		if r.prog, err = r.trainer.LoadState(s, filepath.Join(last, "state"), func(f string) bool { return r.cfg.matches(f, r.data.hash) }); err != nil {
			return err
		}
		from, r.resumed = r.prog.Step, r.prog.Seconds
		r.ui.Note("resuming after step %d of %d", r.prog.Step, r.trainer.Schedule.Total)
	}
	if r.prog, err = r.trainer.TakeFirst(ctx, s, r.prog); err != nil || !r.first() {
		return err
	}
	r.prog.Config = r.cfg.fingerprint(r.data.hash)
	if err := r.recorder.Begun(); err != nil {
		return err
	}
	if r.metrics, err = report.OpenMetrics(filepath.Join(r.cfg.Output.Out, "metrics.csv"), from, figuresOf(r.cfg.Model.Task)...); err != nil {
		return err
	}
	if r.cfg.Output.TensorBoard {
		r.events, err = report.OpenEvents(filepath.Join(r.cfg.Output.Out, "events"), from, time.Now())
	}
	return err
}

// describe says what is about to be trained.
func (r *run) describe(p train.Precision) {
	n, total := train.CountParams(r.model, r.method)
	lr := r.cfg.Loop.LR
	if lr == 0 {
		lr = r.method.LR()
	}
	r.summary = report.Summary{Method: r.cfg.Model.Method, Model: r.cfg.Model.Path, Params: report.Params{Trainable: n, Frozen: total - n, Total: total},
		Accuracy: report.MissingSplits(), Loss: report.MissingSplits(), PeakCUDAMB: report.Missing()}
	r.ui.Note("%s on %s, %s, %s", r.cfg.Model.Method, r.cfg.Model.Path, r.on.Device, p.Why)
	if fresh := r.model.Fresh(); len(fresh) > 0 {
		r.ui.Note("new weights, not in the checkpoint: %s", strings.Join(fresh, ", "))
	}
	r.ui.Note("trainable %s / frozen %s / total %s parameters (%.2f %%), learning rate %g", report.Commas(n), report.Commas(total-n), report.Commas(total), 100*float64(n)/float64(total), lr)
	if text := r.method.Summary(); text != "" {
		r.ui.Note("%s", text)
	}
}

// keepsStored reports whether what frozen weights are cast from is still to be read: to save the model, or by the method.
// On the CPU it lies in the checkpoint's file at no cost.
func (r *run) keepsStored() bool {
	return !r.on.Device.IsCUDA() || r.method.Needs().StoredWeights
}

// HoldBase is what a run holds the frozen base in folder in. It sets that in o, and patterns of the weights that its method
// trains in place, which are fp32 in any case. Products are computed in precision p.
func (c Config) HoldBase(folder string, p train.Precision, o *model.Options) (base train.Base, err error) {
	file, err := model.FileDType(folder)
	if err != nil {
		return base, err
	}
	method, err := c.Methods.New(c.Model.Method, c.Peft)
	if err != nil {
		return base, &train.UsageError{Err: err}
	}
	asked, bits := c.Model.BaseDType, c.Model.Quantize
	inPlace := c.Methods.InPlace(c.Model.Method)
	if inPlace {
		if err := train.FullBase(c.Model.Method, bits); err != nil {
			return base, err
		}
		bits = "none"
	}
	if method.Needs().WholeModel && (asked == "" || asked == "auto") {
		asked = "fp32" // what it saves is a whole model, as exact as it was read
	}
	if base, err = train.ChooseBase(asked, bits, file, p); err != nil {
		return base, err
	}
	o.Base, o.Quantise, base.Whole = base.DType, base.Quantise, method.Needs().WholeModel
	if base.DType == bindings.Float || !inPlace {
		return base, nil
	}
	if o.Trained = c.Peft.Unfreeze; len(o.Trained) == 0 {
		return base, train.Usage("--base-dtype %s: method %s trains every weight of the base, which takes fp32; leave it out, or say with --unfreeze which weights are trained", asked, c.Model.Method)
	}
	return base, nil
}
