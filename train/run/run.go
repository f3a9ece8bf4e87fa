package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hub"
	"gopeft/model/tokenizer"
	"gopeft/peft"
	"gopeft/train"
	"gopeft/train/dist"
	"gopeft/train/prompted"
	"gopeft/train/report"
	"gopeft/train/run/inputs"
	"gopeft/train/run/provenance"
)

// ErrInterrupted is the error of a run that its context ended: it left a checkpoint to resume from.
var ErrInterrupted = errors.New("interrupted; --resume goes on from the last checkpoint")

// Run trains as cfg says and leaves a run folder: config.yaml, metrics.csv, summary.json, curves.png, best and
// last. It returns what summary.json holds. Of the processes of a group only the first reads and writes the folder.
func Run(ctx context.Context, cfg Config, mode OutMode, ui train.UI) (_ report.Summary, err error) {
	told := mode == Resume && !cfg.Machine.Group.First() // its settings by the first process, which sees the folder
	if !told {
		if err := cfg.Check(); err != nil {
			return report.Summary{}, err
		}
		if err := cfg.readNewTokens(); err != nil {
			return report.Summary{}, err
		}
	}
	cfg.Output.Out = cfg.OutFolder()
	release, err := cfg.hold(ui)
	if err != nil {
		return report.Summary{}, err
	}
	defer func() { err = errors.Join(err, release()) }()
	if cfg, err = prepare(ctx, cfg, mode, ui); err != nil {
		return report.Summary{}, err
	}
	if told {
		if err := cfg.Check(); err != nil {
			return report.Summary{}, err
		}
	}
	if cfg.Model.found, err = hub.Find(ctx, cfg.Model.Path, ui); err != nil {
		return report.Summary{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // a run that fails leaves nothing tokenizing
	watch, err := cfg.watchInputs(ctx, mode)
	if err != nil {
		return report.Summary{}, err
	}
	defer watch.Close()
	rec, err := cfg.record(ctx, watch)
	if err != nil {
		return report.Summary{}, err
	}
	defer rec.Close()
	sum, err := runTask(ctx, cfg, mode, ui, watch, rec)
	if err == nil {
		err = cancelled(ctx, rec.Finish(ctx))
	}
	return sum, err
}

// runTask trains, and leaves everything in the run's folder but the record of it.
func runTask(ctx context.Context, cfg Config, mode OutMode, ui train.UI, watch *inputs.Watch, rec *provenance.Recorder) (report.Summary, error) {
	switch {
	case cfg.Model.Method == train.Features:
		return runFeatures(ctx, cfg, ui, watch, rec)
	case prompted.Is(cfg.Model.Method):
		return runPrompted(ctx, cfg, ui, watch, rec)
	}
	r := &run{cfg: cfg, mode: mode, ui: ui, inputs: watch, recorder: rec}
	r.tok, r.added, r.noTok = cfg.tokenizer() // rows that carry token ids need none
	if r.noTok != nil && len(cfg.Peft.AddTokens) > 0 {
		return report.Summary{}, r.noTok
	}
	if err := r.loadData(ctx); err != nil {
		return report.Summary{}, errors.Join(err, r.data.close())
	}
	err := bindings.Do(ctx, func(s *bindings.Scope) error { return r.train(ctx, s) })
	return r.summary, errors.Join(err, r.data.close())
}

// first reports whether this process is the one that writes.
func (r *run) first() bool { return r.on.Group.First() }

// run is a transformer run in progress.
type run struct {
	cfg      Config
	mode     OutMode
	ui       train.UI
	tok      *tokenizer.Tokenizer // nil when noTok says why there is none
	noTok    error
	added    []int64 // ids of the tokens that --add-tokens has added to tok
	data     *runData
	model    model.Model
	method   peft.Method
	trainer  *train.Trainer
	monitor  train.Monitor
	prog     train.Progress
	saved    *train.Position // of last/, once this session wrote it
	savedAt  time.Time       // when it last did
	inputs   *inputs.Watch
	recorder *provenance.Recorder
	metrics  *report.Metrics
	events   *report.Events
	summary  report.Summary
	on       train.Machine
	base     train.Base
	resumed  float64
	begun    time.Time
}

// train is the part of a run on libtorch's thread, in the order it happens: set up, train, evaluate, save.
func (r *run) train(ctx context.Context, s *bindings.Scope) (err error) {
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.setUp(ctx, s); err != nil {
		return err
	}
	r.begun = time.Now()
	if r.cfg.Model.CacheStates {
		if err := r.cacheFeatures(ctx, s); err != nil {
			return err
		}
	}
	if !r.monitor.Exhausted(r.prog) { // as a resumed run's may be
		err = r.steps(ctx, s)
	}
	lost := (*dist.PeerError)(nil)
	if err != nil && !errors.Is(err, train.ErrNoMemory) && !errors.Is(err, context.Canceled) && !errors.As(err, &lost) {
		return err
	}
	if r.saved == nil || *r.saved != r.trainer.At { // else the end of the last epoch has
		save := r.saveLast
		if err != nil && !errors.Is(err, context.Canceled) {
			if r.trainer.Scattered() {
				return err // a part of the state may be gone
			}
			save = r.saveAlone // the others may not be there to compare with
		}
		if failed := save(s); failed != nil {
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

// steps trains. Where a batch finds no memory it says what is left, and what to try.
func (r *run) steps(ctx context.Context, s *bindings.Scope) error {
	err := r.trainer.Run(ctx, s)
	if errors.Is(err, train.ErrNoMemory) && !r.trainer.Scattered() {
		return fmt.Errorf("%w; the weights before it are in %s (--adapter-init goes on from an adapter). Try a smaller --batch-size with --grad-accum, --max-tokens or --checkpoint-activations",
			err, filepath.Join(r.cfg.Output.Out, "last"))
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
		r.trainer.Close()
	}
	if r.method != nil {
		r.method.Close()
	}
	if r.model != nil {
		errs = append(errs, r.model.Close())
	}
	return errors.Join(errs...)
}
