package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/tokenizer"
	"gopeft/peft"
	"gopeft/train/report"
)

// UI is told what a run does. Implementations need no locking: calls come from one goroutine.
type UI interface {
	// Note is a line for people.
	Note(format string, args ...any)
	// Progress reports how far a phase is; done == total ends it.
	Progress(phase string, done, total int, detail string)
}

// Quiet is a UI that says nothing.
type Quiet struct{}

// Note implements UI.
func (Quiet) Note(string, ...any) {}

// Progress implements UI.
func (Quiet) Progress(string, int, int, string) {}

// ErrInterrupted is the error of a run that its context ended: it left a checkpoint to resume from.
var ErrInterrupted = errors.New("interrupted; --resume goes on from the last checkpoint")

// Run trains as cfg says and leaves a run folder: config.yaml, metrics.csv, summary.json, curves.png, best and
// last. It returns what summary.json holds.
func Run(ctx context.Context, cfg Config, mode OutMode, ui UI) (report.Summary, error) {
	if err := cfg.Check(); err != nil {
		return report.Summary{}, err
	}
	cfg.Out = cfg.OutFolder()
	if mode == Overwrite {
		if err := cfg.checkInputs(ctx, ui); err != nil {
			return report.Summary{}, err
		}
	}
	cfg, err := prepareOut(cfg, mode, ui)
	if err != nil {
		return report.Summary{}, err
	}
	if cfg.found, err = ResolveModel(ctx, cfg.Model, ui); err != nil {
		return report.Summary{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a run that fails leaves nothing tokenizing
	if cfg.Method == Features {
		return runFeatures(ctx, cfg, ui)
	}
	r := &run{cfg: cfg, mode: mode, ui: ui}
	r.tok, r.noTok = OpenTokenizer(cfg.folder()) // rows that carry token ids need none
	if err := r.loadData(ctx); err != nil {
		return report.Summary{}, err
	}
	err = bindings.Do(ctx, func(s *bindings.Scope) error { return r.train(ctx, s) })
	return r.summary, err
}

// run is a transformer run in progress.
type run struct {
	cfg     Config
	mode    OutMode
	ui      UI
	tok     *tokenizer.Tokenizer // nil when noTok says why there is none
	noTok   error
	data    *runData
	model   model.Model
	method  peft.Method
	trainer *Trainer
	monitor Monitor
	prog    Progress
	saved   *Position // of last/, once this session wrote it
	metrics *report.Metrics
	events  *report.Events
	summary report.Summary
	dev     bindings.Device
	amp     bindings.DType
	print   string // the configuration's fingerprint
	resumed float64
	begun   time.Time
}

// train is the part of a run on libtorch's thread, in the order it happens: set up, train, evaluate, save.
func (r *run) train(ctx context.Context, s *bindings.Scope) (err error) {
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.setUp(ctx, s); err != nil {
		return err
	}
	r.begun = time.Now()
	if r.cfg.CacheStates {
		if err := r.cacheFeatures(ctx, s); err != nil {
			return err
		}
	}
	if !r.monitor.Exhausted(r.prog) { // as a resumed run's may be
		err = r.steps(ctx, s)
	}
	if err != nil && !errors.Is(err, errNoMemory) && !errors.Is(err, context.Canceled) {
		return err
	}
	if r.saved == nil || *r.saved != r.trainer.At { // else the end of the last epoch has
		if failed := r.saveLast(s); failed != nil {
			return errors.Join(err, failed)
		}
	}
	if err == nil {
		err = r.finish(ctx, s)
	}
	if errors.Is(err, context.Canceled) {
		return ErrInterrupted
	}
	return err
}

var errNoMemory = errors.New("no memory is left for the next step")

// steps trains. A batch that finds no memory ends it between two steps, with errNoMemory: what was trained is whole.
func (r *run) steps(ctx context.Context, s *bindings.Scope) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		e, ok := p.(*bindings.OpError)
		if !ok || r.trainer.updating || !strings.Contains(e.Message, "out of memory") && !strings.Contains(e.Message, "allocate memory") {
			panic(p)
		}
		err = fmt.Errorf("step %d: %w: %w; the weights before it are in %s (--adapter-init goes on from an adapter). Try a smaller --batch-size with --grad-accum, --max-tokens or --checkpoint-activations",
			r.trainer.At.Step+1, errNoMemory, e, filepath.Join(r.cfg.Out, "last"))
	}()
	return r.trainer.Run(ctx, s)
}

// device reads --device, loading CUDA's libraries when a GPU is asked for. note says why auto leaves a GPU unused
// whose driver is there, "" if it does not.
func device(s *bindings.Scope, name string) (dev bindings.Device, note string, err error) {
	if name != "auto" {
		dev, err = namedDevice(s, name)
		return dev, "", err
	}
	return autoDevice(bindings.HasDriver(), func() error {
		_, err := s.LoadCUDA("")
		return err
	})
}

// autoDevice is the first GPU where there is a driver and load succeeds, else the CPU.
func autoDevice(driver bool, load func() error) (dev bindings.Device, note string, err error) {
	if !driver {
		return bindings.CPU, "", nil // not even tried
	}
	if err := load(); err != nil {
		return bindings.CPU, fmt.Sprintf("on the CPU: there is an NVIDIA driver, but no GPU can be used: %v (`gopeft doctor` tells more)", err), nil
	}
	return bindings.CUDA(0), "", nil
}

func namedDevice(s *bindings.Scope, name string) (bindings.Device, error) {
	switch {
	case name == "cpu":
		return bindings.CPU, nil
	case name == "cuda" || strings.HasPrefix(name, "cuda:"):
		n := 0
		if index, ok := strings.CutPrefix(name, "cuda:"); ok {
			var err error
			if n, err = strconv.Atoi(index); err != nil || n < 0 {
				return 0, usage("--device %q: want cuda:N with a device number", name)
			}
		}
		count, err := s.LoadCUDA("")
		if err != nil {
			return 0, fmt.Errorf("--device %s: %w (`gopeft doctor` tells more)", name, err)
		}
		if n >= count {
			return 0, fmt.Errorf("--device %s: there are %d GPUs", name, count)
		}
		return bindings.CUDA(n), nil
	}
	return 0, usage("--device %q is not known (auto, cpu, cuda, cuda:N)", name)
}

func threads(n int) int {
	if n == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}

// setUp loads the model, attaches the method and builds the trainer.
func (r *run) setUp(ctx context.Context, s *bindings.Scope) error {
	cfg := r.cfg
	machine, err := Begin(s, cfg)
	if err != nil {
		return err
	}
	if machine.Note != "" {
		r.ui.Note("%s", machine.Note)
	}
	r.dev, r.amp = machine.Device, machine.Precision.DType
	o := model.Options{Device: r.dev, Classify: cfg.Task == "classify", Labels: r.data.labels, Copy: !cfg.Has(LeverMapping)}
	if cfg.Dropout >= 0 {
		o.Dropout = &cfg.Dropout
	}
	if r.model, err = model.Load(s, cfg.folder(), o); err != nil {
		return err
	}
	if err := r.attach(s); err != nil {
		return err
	}
	if err := r.settle(s); err != nil {
		return err
	}
	r.describe(machine.Precision)
	cfg.CastFrozen(r.model, r.amp, r.keepsStored())

	if err := r.data.wait(ctx); err != nil {
		return err
	}
	for _, note := range r.data.notes {
		r.ui.Note("%s", note)
	}
	if cfg.EarlyStop > 0 && r.data.val == nil {
		return usage("--early-stop needs validation data: give --val, or --data with a --split that has it")
	}
	if r.trainer, err = NewTrainer(s, cfg, machine, r.model, r.method, r.data.task, r.data.train, r.data.sampler(cfg)); err != nil {
		return err
	}
	r.trainer.OnStep = r.onStep
	r.trainer.OnEpoch = func(s *bindings.Scope, rep StepReport) error { return r.onEpoch(ctx, s, rep) }
	r.monitor = Monitor{Metric: cfg.Monitor, Patience: cfg.EarlyStop}
	if r.monitor.Metric == "" {
		r.monitor.Metric = map[string]string{"classify": "val_acc", "causal": "val_loss"}[cfg.Task]
	}
	return r.open(s)
}

// settle writes what the run has chosen into its settings, so that they repeat it anywhere. Those of a run that goes
// on are settled.
func (r *run) settle(s *bindings.Scope) error {
	if r.mode == Resume && exists(filepath.Join(r.cfg.Out, "last")) {
		return nil
	}
	r.cfg = r.cfg.settle(r.method.LR(), r.amp, r.dev, s.Threads())
	return WriteConfig(filepath.Join(r.cfg.Out, "config.yaml"), r.cfg)
}

// attach puts the method on the model: a new one, or that of --adapter-init.
func (r *run) attach(s *bindings.Scope) (err error) {
	if dir := r.cfg.AdapterInit; dir != "" {
		if r.method, err = peft.LoadWith(s, dir, r.model, peft.LoadOptions{PeftCompat: r.cfg.Peft.PeftCompat}); err != nil {
			return err
		}
		for _, note := range r.method.Notes() {
			r.ui.Note("%s: %s", dir, note)
		}
		if r.method.Name() != r.cfg.Method {
			return usage("--adapter-init %s holds a %s adapter, --method is %s", dir, r.method.Name(), r.cfg.Method)
		}
		return sameOptions(dir, r.cfg.Peft, r.method.Options())
	}
	o := r.cfg.Peft
	o.Base, o.Tokenizer = r.cfg.Model, r.cfg.Model
	if o.InitText != "" {
		if r.tok == nil {
			return r.noTok
		}
		if o.InitIDs, err = r.tok.EncodeIDs(nil, o.InitText, tokenizer.Options{}); err != nil {
			return fmt.Errorf("--init-text: %w", err)
		}
	}
	if r.method, err = peft.New(r.cfg.Method, o); err != nil {
		return &UsageError{err}
	}
	return r.method.Attach(s, r.model)
}

// sameOptions refuses settings of a method that the adapter gone on from does not have: they are fixed in it.
func sameOptions(dir string, asked, has peft.Options) error {
	values := map[string]reflect.Value{}
	Fields(reflect.ValueOf(&has).Elem(), func(key, _ string, v reflect.Value) { values[key] = v })
	var failed error
	Fields(reflect.ValueOf(&asked).Elem(), func(key, _ string, v reflect.Value) {
		if failed == nil && !v.IsZero() && fmt.Sprint(v) != fmt.Sprint(values[key]) {
			failed = usage("--%s is %v, the adapter of --adapter-init %s has %v: leave it out to go on from that", key, v, dir, values[key])
		}
	})
	return failed
}

// open begins the run's files, or takes them up where the last checkpoint left them.
func (r *run) open(s *bindings.Scope) error {
	var err error
	r.print = r.cfg.fingerprint(r.data.hash)
	r.prog.Config = r.print
	from := report.FromStart
	last := filepath.Join(r.cfg.Out, "last")
	switch {
	case r.mode == Resume && !exists(last):
		r.ui.Note("no checkpoint yet: starting from the first step")
	case r.mode == Resume:
		if r.prog, err = r.trainer.LoadState(s, filepath.Join(last, "state"), r.print); err != nil {
			return err
		}
		from, r.resumed = r.prog.Step, r.prog.Seconds
		r.ui.Note("resuming after step %d of %d", r.prog.Step, r.trainer.Schedule.Total)
	}
	if r.metrics, err = report.OpenMetrics(filepath.Join(r.cfg.Out, "metrics.csv"), from); err != nil {
		return err
	}
	if r.cfg.TensorBoard {
		r.events, err = report.OpenEvents(filepath.Join(r.cfg.Out, "events"), from, time.Now())
	}
	return err
}

func (r *run) close() error {
	var errs []error
	if r.metrics != nil {
		errs = append(errs, r.metrics.Close())
	}
	if r.events != nil {
		errs = append(errs, r.events.Close())
	}
	if r.trainer != nil {
		r.trainer.Opt.Close()
		r.trainer.Scaler.Close()
	}
	if r.method != nil {
		r.method.Close()
	}
	if r.model != nil {
		errs = append(errs, r.model.Close())
	}
	return errors.Join(errs...)
}

// describe says what is about to be trained.
func (r *run) describe(p Precision) {
	n, total := CountParams(r.model, r.method)
	lr := r.cfg.LR
	if lr == 0 {
		lr = r.method.LR()
	}
	r.summary = report.Summary{Method: r.cfg.Method, Model: r.cfg.Model, Params: report.Params{Trainable: n, Frozen: total - n, Total: total},
		Accuracy: report.MissingSplits(), Loss: report.MissingSplits(), PeakCUDAMB: report.Missing()}
	r.ui.Note("%s on %s, %s, %s", r.cfg.Method, r.cfg.Model, r.dev, p.Why)
	if fresh := r.model.Fresh(); len(fresh) > 0 {
		r.ui.Note("new weights, not in the checkpoint: %s", strings.Join(fresh, ", "))
	}
	r.ui.Note("trainable %s / frozen %s / total %s parameters (%.2f %%), learning rate %g", Commas(n), Commas(total-n), Commas(total), 100*float64(n)/float64(total), lr)
	if text := r.method.Summary(); text != "" {
		r.ui.Note("%s", text)
	}
}

// Commas writes 66955010 as 66,955,010.
func Commas(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// CastFrozen gives the frozen linear maps of the blocks a copy in d, made once in place of autocast's cast at
// every step. With d Float it does nothing. Without keep each stored weight goes as soon as its copy is there: for
// models that are never saved and have no file to lie in.
func CastFrozen(m model.Model, d bindings.DType, keep bool) {
	if d == bindings.Float {
		return
	}
	cast := func(p *model.Param) {
		if p == nil {
			return
		}
		if p.Cast(m.Scope(), d); !keep {
			p.DropStored(m.Scope())
		}
	}
	for _, b := range m.Hooks().Blocks {
		for _, module := range b.Modules {
			cast(module.Dense.W)
			cast(module.Dense.B)
		}
	}
}

// keepsStored reports whether what frozen weights are cast from is still to be read: to save the model, or by DoRA.
// On the CPU it lies in the checkpoint's file at no cost.
func (r *run) keepsStored() bool {
	return !r.dev.IsCUDA() || r.cfg.Method == "full" || r.cfg.Method == "last" || r.method.Options().DoRA
}

func (r *run) onStep(s *bindings.Scope, rep StepReport) error {
	total := r.trainer.Schedule.Total
	r.ui.Progress("train", rep.Step, total, fmt.Sprintf("epoch %.2f  loss %.4f", rep.Epochs, rep.Loss))
	if rep.Log {
		row := report.NewRow(rep.Step, rep.Epochs)
		row.LR, row.TrainLoss, row.TrainAcc, row.SamplesPerS = rep.LR, rep.Loss, rep.Acc, r.rate(rep)
		if err := r.record(row); err != nil {
			return err
		}
	}
	if r.cfg.Checkpoints > 0 && rep.Step%r.cfg.Checkpoints == 0 && !rep.EndOf {
		return r.saveLast(s)
	}
	return nil
}

// rate is training rows per second of all sessions so far.
func (r *run) rate(rep StepReport) float64 {
	return float64(rep.Samples) / (r.resumed + rep.Elapsed.Seconds())
}

func (r *run) record(row report.Row) error {
	if err := r.metrics.Write(row); err != nil {
		return err
	}
	if r.events == nil {
		return nil
	}
	return r.events.Write(row.Step, time.Now(), report.Scalar{Tag: "train/loss", Value: row.TrainLoss}, report.Scalar{Tag: "train/acc", Value: row.TrainAcc},
		report.Scalar{Tag: "val/loss", Value: row.ValLoss}, report.Scalar{Tag: "val/acc", Value: row.ValAcc}, report.Scalar{Tag: "lr", Value: row.LR})
}

func (r *run) onEpoch(ctx context.Context, s *bindings.Scope, rep StepReport) error {
	row := report.NewRow(rep.Step, rep.Epochs)
	row.LR, row.TrainLoss, row.TrainAcc, row.SamplesPerS = rep.LR, rep.Loss, rep.Acc, r.rate(rep)
	r.prog.Position = rep.Position
	stop := false
	if r.data.val != nil {
		e, err := r.evaluate(ctx, s, r.data.val, "validate")
		if err != nil {
			return err
		}
		row.ValLoss, row.ValAcc = e.Loss, e.Acc
		var best bool
		if best, stop = r.monitor.Note(&r.prog, e); best {
			if err := r.saveBest(s); err != nil {
				return err
			}
		}
	}
	r.ui.Note("epoch %d: %s", rep.Epoch, describeRow(row))
	if err := r.record(row); err != nil {
		return err
	}
	if err := r.saveLast(s); err != nil {
		return err
	}
	if stop {
		r.ui.Note("stopping early: %s has not improved for %d evaluations", r.monitor.Metric, r.prog.Stale)
		return ErrStop
	}
	return nil
}

func describeRow(row report.Row) string {
	parts := []string{fmt.Sprintf("train loss %.4f", row.TrainLoss)}
	for _, v := range []struct {
		name  string
		value float64
	}{{"train acc", row.TrainAcc}, {"val loss", row.ValLoss}, {"val acc", row.ValAcc}} {
		if !math.IsNaN(v.value) {
			parts = append(parts, fmt.Sprintf("%s %.4f", v.name, v.value))
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("%.1f samples/s", row.SamplesPerS)), ", ")
}

func (r *run) evaluate(ctx context.Context, s *bindings.Scope, p *Part, phase string) (Evaluation, error) {
	// A batch may be wider than those trained on, but takes no more memory: without gradients tokens cost less than half.
	tokens := r.cfg.MaxTokens
	if tokens == 0 {
		tokens = r.cfg.BatchSize * slices.Max(r.data.train.Lengths)
	}
	return Evaluate(ctx, s, r.trainer.Model, r.data.task, p, EvalOptions{Batch: r.trainer.Config.EvalBatch, MaxTokens: 2 * tokens, Whole: !r.cfg.Has(LeverPasses), Device: r.dev, Precision: r.amp,
		Progress: func(done, total int) { r.ui.Progress(phase, done, total, "") }})
}

// saveBest writes best/: what the method saves, the tokenizer, and the trainable tensors as they are.
func (r *run) saveBest(s *bindings.Scope) error {
	if err := r.trainer.CheckFinite(s); err != nil {
		return err
	}
	return fsutil.WriteDir(filepath.Join(r.cfg.Out, "best"), func(dir string) error {
		if err := r.saveModel(s, dir); err != nil {
			return err
		}
		return saveWeights(s, filepath.Join(dir, "state", "weights.safetensors"), r.trainer.Params)
	})
}

func (r *run) saveModel(s *bindings.Scope, dir string) error {
	if err := r.method.Save(s, dir, r.model); err != nil {
		return err
	}
	if r.tok != nil {
		if err := r.tok.Save(dir); err != nil {
			return err
		}
	}
	return os.Mkdir(filepath.Join(dir, "state"), 0o777)
}

// saveLast writes last/: the same, with what exact resume needs.
func (r *run) saveLast(s *bindings.Scope) error {
	if err := r.trainer.CheckFinite(s); err != nil {
		return err
	}
	r.prog.Seconds = r.resumed + time.Since(r.begun).Seconds()
	err := fsutil.WriteDir(filepath.Join(r.cfg.Out, "last"), func(dir string) error {
		if err := r.saveModel(s, dir); err != nil {
			return err
		}
		return r.trainer.SaveState(s, filepath.Join(dir, "state"), r.prog)
	})
	if err == nil {
		at := r.trainer.At
		r.saved = &at
	}
	return err
}

// finish scores the best checkpoint on every part and writes the summary and the picture.
func (r *run) finish(ctx context.Context, s *bindings.Scope) error {
	if at := r.trainer.At; at.Skipped > 0 {
		if at.Skipped == at.Step {
			return fmt.Errorf("the loss scaler of fp16 skipped all %d steps: nothing was trained; try --amp bf16 or none", at.Step)
		}
		r.ui.Note("the loss scaler of fp16 skipped %d of %d steps", at.Skipped, at.Step)
	}
	if r.prog.Best != nil && r.prog.BestStep != r.trainer.At.Step {
		if err := loadWeights(s, filepath.Join(r.cfg.Out, "best", "state", "weights.safetensors"), r.trainer.Params); err != nil {
			return err
		}
		r.ui.Note("scoring the best checkpoint, of epoch %d", r.prog.BestEpoch)
	} else if r.prog.Best == nil {
		if err := r.saveBest(s); err != nil {
			return err
		}
	}
	sum := &r.summary
	for _, part := range []struct {
		name      string
		data      *Part
		acc, loss *report.Number
		skip      bool
	}{
		{"score training data", r.data.train, &sum.Accuracy.Train, &sum.Loss.Train, r.cfg.NoTrainEval},
		{"score validation data", r.data.val, &sum.Accuracy.Val, &sum.Loss.Val, false},
		{"score test data", r.data.test, &sum.Accuracy.Test, &sum.Loss.Test, false},
	} {
		if part.data == nil || part.skip {
			continue
		}
		e, err := r.evaluate(ctx, s, part.data, part.name)
		if err != nil {
			return err
		}
		*part.acc, *part.loss = report.Number(e.Acc), report.Number(e.Loss)
	}
	sum.Seconds, sum.SamplesPerS = report.Number(r.prog.Seconds), report.Number(float64(r.trainer.At.Samples)/r.prog.Seconds)
	sum.PeakRSSMB, sum.BestEpoch, sum.Fingerprint = report.Number(PeakRSSMB()), r.prog.BestEpoch, r.prog.Config
	var err error
	if sum.PeakCUDAMB, err = peakCUDAMB(r.dev); err != nil {
		return err
	}
	return finishFiles(r.cfg.Out, *sum)
}

// peakCUDAMB is the most memory of a GPU that the process has held; missing on the CPU, and with a libtorch that does
// not tell.
func peakCUDAMB(dev bindings.Device) (report.Number, error) {
	if !dev.IsCUDA() {
		return report.Missing(), nil
	}
	bytes, err := bindings.CUDAPeak(dev)
	if err != nil || bytes < 0 {
		return report.Missing(), err
	}
	return report.Number(float64(bytes) / (1 << 20)), nil
}

// finishFiles writes what a run ends with.
func finishFiles(out string, sum report.Summary) error {
	if err := report.WriteSummary(filepath.Join(out, "summary.json"), sum); err != nil {
		return err
	}
	rows, _, err := report.ReadMetrics(filepath.Join(out, "metrics.csv"))
	if err != nil || len(rows) == 0 {
		return err
	}
	return report.PlotCurves(filepath.Join(out, "curves.png"), sum.Method, rows)
}
