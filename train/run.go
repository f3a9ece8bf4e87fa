package train

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
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

// OutMode says what becomes of a run folder that is not empty.
type OutMode int

// The modes: refuse it, replace it, or go on from its last checkpoint.
const (
	Refuse OutMode = iota
	Overwrite
	Resume
)

// Interrupted is the error of a run that its context ended: it left a checkpoint to resume from.
var Interrupted = errors.New("interrupted; --resume goes on from the last checkpoint")

// Run trains as cfg says and leaves a run folder: config.yaml, metrics.csv, summary.json, curves.png, best and
// last. It returns what summary.json holds.
func Run(ctx context.Context, cfg Config, mode OutMode, ui UI) (report.Summary, error) {
	if err := cfg.Check(); err != nil {
		return report.Summary{}, err
	}
	if cfg.Out == "" {
		cfg.Out = filepath.Join("runs", cfg.Method)
	}
	if err := prepareOut(cfg, mode); err != nil {
		return report.Summary{}, err
	}
	var err error
	if cfg.found, err = ResolveModel(ctx, cfg.Model, ui); err != nil {
		return report.Summary{}, err
	}
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

// prepareOut makes the run folder, or refuses it.
func prepareOut(cfg Config, mode OutMode) error {
	if mode == Resume {
		return fsutil.Recover(filepath.Join(cfg.Out, "last"))
	}
	entries, err := os.ReadDir(cfg.Out)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if mode == Refuse {
			return fmt.Errorf("%s is not empty: give another --out, --overwrite it, or --resume it", cfg.Out)
		}
		for _, name := range []string{"config.yaml", "metrics.csv", "summary.json", "curves.png", "best", "last", "classifier.safetensors", "events"} {
			if err := os.RemoveAll(filepath.Join(cfg.Out, name)); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(cfg.Out, 0o777); err != nil {
		return err
	}
	return WriteConfig(filepath.Join(cfg.Out, "config.yaml"), cfg)
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
	if err := r.setUp(ctx, s); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	r.begun = time.Now()
	if r.cfg.CacheStates {
		if err := r.cacheFeatures(ctx, s); err != nil {
			return err
		}
	}
	err = r.trainer.Run(ctx, s)
	switch {
	case errors.Is(err, context.Canceled):
		return errors.Join(Interrupted, r.saveLast(s))
	case err != nil:
		return err
	}
	seconds := r.resumed + time.Since(r.begun).Seconds()
	r.prog.Seconds = seconds
	if err := r.saveLast(s); err != nil {
		return err
	}
	return r.finish(ctx, s, seconds)
}

// device reads --device, loading CUDA's libraries when a GPU is asked for.
func device(s *bindings.Scope, name string) (bindings.Device, error) {
	switch {
	case name == "cpu":
		return bindings.CPU, nil
	case name == "auto":
		if _, err := os.Stat("/dev/nvidiactl"); err != nil {
			return bindings.CPU, nil // no driver: not even tried
		}
		if _, err := s.LoadCUDA(""); err != nil {
			return bindings.CPU, nil
		}
		return bindings.CUDA(0), nil
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
	r.dev, r.amp = machine.Device, machine.Precision.DType
	o := model.Options{Device: r.dev, Classify: cfg.Task == "classify", Labels: r.data.labels}
	if cfg.Dropout >= 0 {
		o.Dropout = &cfg.Dropout
	}
	if r.model, err = model.Load(s, cfg.folder(), o); err != nil {
		return err
	}
	if err := r.attach(s); err != nil {
		return err
	}
	r.describe(machine.Precision)
	CastFrozen(s, r.model, r.amp)

	if err := r.data.wait(ctx); err != nil {
		return err
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

// attach puts the method on the model: a new one, or that of --adapter-init.
func (r *run) attach(s *bindings.Scope) (err error) {
	if dir := r.cfg.AdapterInit; dir != "" {
		if r.method, err = peft.Load(s, dir, r.model); err != nil {
			return err
		}
		for _, note := range r.method.Notes() {
			r.ui.Note("%s: %s", dir, note)
		}
		if r.method.Name() != r.cfg.Method {
			return usage("--adapter-init %s holds a %s adapter, --method is %s", dir, r.method.Name(), r.cfg.Method)
		}
		return nil
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

// open begins the run's files, or takes them up where the last checkpoint left them.
func (r *run) open(s *bindings.Scope) error {
	var err error
	if r.print, err = r.cfg.fingerprint(); err != nil {
		return err
	}
	r.prog.Config = r.print
	from := report.FromStart
	if r.mode == Resume {
		if r.prog, err = r.trainer.LoadState(s, filepath.Join(r.cfg.Out, "last", "state"), r.print); err != nil {
			return err
		}
		from, r.resumed = r.prog.Step, r.prog.Seconds
		r.ui.Note("resuming after step %d (epoch %d)", r.prog.Step, r.prog.Epoch+1)
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
// every step. With d Float it does nothing.
func CastFrozen(s *bindings.Scope, m model.Model, d bindings.DType) {
	if d == bindings.Float {
		return
	}
	for _, b := range m.Hooks().Blocks {
		for _, module := range b.Modules {
			module.Dense.W.Cast(m.Scope(), d)
			if module.Dense.B != nil {
				module.Dense.B.Cast(m.Scope(), d)
			}
		}
	}
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

// rate is training rows per second since the session began.
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
	r.prog.Seconds = r.resumed + time.Since(r.begun).Seconds()
	if err := r.saveLast(s); err != nil {
		return err
	}
	if stop {
		r.ui.Note("stopping early: %s has not improved for %d evaluations", r.monitor.Metric, r.prog.Stale)
		return Stop
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
	return Evaluate(ctx, s, r.trainer.Model, r.data.task, p, EvalOptions{Batch: r.trainer.Config.EvalBatch, Device: r.dev, Precision: r.amp,
		Progress: func(done, total int) { r.ui.Progress(phase, done, total, "") }})
}

// saveBest writes best/: what the method saves, the tokenizer, and the trainable tensors as they are.
func (r *run) saveBest(s *bindings.Scope) error {
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
	return fsutil.WriteDir(filepath.Join(r.cfg.Out, "last"), func(dir string) error {
		if err := r.saveModel(s, dir); err != nil {
			return err
		}
		return r.trainer.SaveState(s, filepath.Join(dir, "state"), r.prog)
	})
}

// finish scores the best checkpoint on every part and writes the summary and the picture.
func (r *run) finish(ctx context.Context, s *bindings.Scope, seconds float64) error {
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
	sum.Seconds, sum.SamplesPerS = report.Number(seconds), report.Number(float64(r.trainer.At.Samples)/seconds)
	sum.PeakRSSMB, sum.BestEpoch = report.Number(PeakRSSMB()), r.prog.BestEpoch
	if r.dev.IsCUDA() {
		memory, err := s.CUDAMemory(r.dev)
		if err != nil {
			return err
		}
		sum.PeakCUDAMB = report.Number(float64(memory.Peak) / (1 << 20))
	}
	return finishFiles(r.cfg.Out, *sum)
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
