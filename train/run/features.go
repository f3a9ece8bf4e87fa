package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train"
	"gopeft/train/classic"
	"gopeft/train/data"
	"gopeft/train/dist"
	"gopeft/train/metrics"
	"gopeft/train/report"
	"gopeft/train/run/inputs"
	"gopeft/train/run/provenance"
)

// runFeatures fits a classic classifier on frozen features.
func runFeatures(ctx context.Context, cfg Config, ui train.UI, watch *inputs.Watch, rec *provenance.Recorder) (sum report.Summary, err error) {
	f := &featureRun{cfg: cfg, ui: ui, recorder: rec, peakCUDA: report.Missing()}
	sum = report.Summary{Method: cfg.Model.Method + "+" + cfg.Model.Classifier, Model: cfg.Model.Path, Accuracy: report.MissingSplits(), Loss: report.MissingSplits(),
		PeakCUDAMB: report.Missing()}
	if cfg.Machine.Group.First() {
		if err := cfg.Model.findLibrary(); err != nil {
			return sum, err
		}
	}
	splits, err := cfg.loadSplits(ctx, nil, nil)
	if err != nil {
		return sum, err
	}
	for _, note := range splits.Notes() {
		ui.Note("%s", note)
	}
	if err := splits.Train.CheckTrainable(); err != nil {
		return sum, err
	}
	sets := []*data.Set{splits.Train, splits.Val, splits.Test}
	if f.stopsEarly() && (splits.Val == nil || len(splits.Val.Examples) == 0) {
		return sum, needsValidation(cfg.Loop)
	}
	hash, err := splits.Sum(ctx)
	if err != nil {
		return sum, err
	}
	xs, err := f.features(ctx, sets, hash)
	if err != nil {
		return sum, err
	}
	if !cfg.Machine.Group.First() {
		return sum, nil // the classifier is the first one's work
	}
	labels := splits.Train.Labels
	begun := time.Now()
	clf, err := f.fit(ctx, xs, sets, len(labels))
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, clf.Close()) }()
	// With the features' time, also when they came from the cache: it is part of what the method costs.
	sum.Seconds = report.Number(f.seconds + time.Since(begun).Seconds())
	sum.SamplesPerS = report.Number(float64(xs[0].Rows) / float64(sum.Seconds))
	accuracy := []*report.Number{&sum.Accuracy.Train, &sum.Accuracy.Val, &sum.Accuracy.Test}
	for i, set := range sets {
		if set == nil || len(set.Examples) == 0 {
			continue
		}
		predicted, err := clf.Predict(ctx, xs[i])
		if err != nil {
			return sum, err
		}
		confusion, err := metrics.Count(classes(set), predicted, len(labels))
		if err != nil {
			return sum, err
		}
		*accuracy[i] = report.Number(confusion.Accuracy())
	}
	if lr, ok := clf.(*classic.LogisticRegression); ok {
		coefficients, intercepts := lr.Coefficients()
		for _, row := range coefficients {
			sum.Params.Trainable += int64(len(row))
		}
		sum.Params.Trainable += int64(len(intercepts))
	}
	sum.Params.Frozen = f.frozen
	sum.Params.Total = sum.Params.Frozen + sum.Params.Trainable
	sum.PeakRSSMB, sum.PeakCUDAMB, sum.Fingerprint = report.Number(train.PeakRSSMB()), f.peakCUDA, f.print
	if err := watch.Settle(); err != nil {
		return sum, err
	}
	err = classic.SaveIn(cfg.Output.Out, classic.Saved{Model: clf, Labels: labels,
		Meta: map[string]string{"model": cfg.Model.Path, "pool": f.pool, "max_length": fmt.Sprint(cfg.Data.MaxLength)}})
	if err != nil {
		return sum, err
	}
	return sum, report.WriteSummary(filepath.Join(cfg.Output.Out, "summary.json"), sum)
}

type featureRun struct {
	cfg      Config
	ui       train.UI
	recorder *provenance.Recorder
	frozen   int64
	print    string // fingerprint of settings and data
	pool     string // how tokens became features

	peakCUDA report.Number // MB of the GPU's memory

	seconds float64 // that computing the training set's features took, now or when they were cached
}

// everywhere reports whether all processes have what this one has or has not.
func (f *featureRun) everywhere(s *bindings.Scope, has bool) (bool, error) {
	sums, err := f.cfg.Machine.Group.SumInts(s, dist.Vote(!has))
	return err == nil && sums[0] == 0, err
}

// stopsEarly reports whether the classifier is one that goes by the validation part.
func (f *featureRun) stopsEarly() bool {
	return f.cfg.Model.Classifier == classic.KindBoosted && f.cfg.Loop.EarlyStop > 0
}

// fit fits the classifier on the first set's features.
func (f *featureRun) fit(ctx context.Context, xs []classic.Matrix, sets []*data.Set, n int) (classic.Classifier, error) {
	x, y := xs[0], classes(sets[0])
	progress := func(done, total int) { f.ui.Progress("grow trees", done, total, "") }
	switch f.cfg.Model.Classifier {
	case classic.KindForest:
		return classic.FitForest(ctx, x, y, n, classic.ForestOptions{Seed: f.cfg.Machine.Seed, Workers: f.cfg.Machine.Threads, Progress: progress})
	case classic.KindBoosted:
		o := classic.BoostOptions{Workers: f.cfg.Machine.Threads, Progress: progress, Note: f.ui.Note}
		if f.stopsEarly() {
			o.EarlyStop, o.Validation, o.ValidationLabels = f.cfg.Loop.EarlyStop, xs[1], classes(sets[1])
		}
		b, err := classic.FitBoosted(ctx, x, y, n, o)
		if err == nil && f.stopsEarly() {
			f.ui.Note("xgboost: round %d is the best on the validation data: those up to it predict", b.Rounds())
		}
		return b, err
	}
	m, err := classic.FitLogisticRegression(ctx, x, y, n, classic.LogisticOptions{Workers: f.cfg.Machine.Threads})
	if err == nil && !m.Fit.Converged {
		f.ui.Note("logistic regression did not converge in %d iterations", m.Fit.Iterations)
	}
	return m, err
}

// features computes, or takes from the cache, the features of each set.
func (f *featureRun) features(ctx context.Context, sets []*data.Set, hash string) ([]classic.Matrix, error) {
	cfg := f.cfg
	tok, noTok := train.OpenTokenizer(cfg.Model.folder()) // rows that carry token ids need none
	pad, err := train.PadID(tok, cfg.Model.folder())
	if err != nil {
		return nil, err
	}
	base, err := modelHash(ctx, cfg.Model.folder())
	if err != nil {
		return nil, err
	}
	xs := make([]classic.Matrix, len(sets))
	err = bindings.Do(ctx, func(s *bindings.Scope) (err error) {
		o, err := cfg.openFrozen(ctx, s, hash, f.ui, f.recorder)
		if err != nil {
			return err
		}
		m := o.model
		defer func() { err = errors.Join(err, m.Close()) }()
		dev, precision := o.on.Device, o.on.Precision
		f.pool, cfg.Model.Pool, f.print = o.cfg.Model.Pool, o.cfg.Model.Pool, o.print
		_, f.frozen = m.Params().Count()
		length, err := train.ClampLength(cfg.Data.MaxLength, m.Info().MaxPositions)
		if err != nil {
			return err
		}
		for i, set := range sets {
			if set == nil || len(set.Examples) == 0 {
				continue
			}
			key := featureKey(base, set.Hash(), cfg.Model.Pool, length, precision.DType, o.held.DType, o.quantize, dev)
			var seconds float64
			xs[i], seconds, err = readFeatures(key, len(set.Examples), m.Info().Hidden)
			everywhere, failed := f.everywhere(s, err == nil)
			if failed != nil {
				return failed
			}
			if everywhere {
				f.ui.Note("features of %s: from the cache, computed in %.1f s", set.File, seconds)
				if i == 0 {
					f.seconds = seconds
				}
				continue
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				f.ui.Note("features of %s: the cached file is not usable (%v), computing anew", set.File, err)
			}
			begun := time.Now()
			ids, err := data.EncodeAll(ctx, train.Encoder{Tokenizer: tok, Missing: noTok}, set.Examples, length, m.Info().Vocab, cfg.Machine.Cores())
			if err != nil {
				return fmt.Errorf("%s: %w", set.File, err)
			}
			xs[i], err = train.ComputeFeatures(ctx, s, m, ids, pad, train.FeatureOptions{Pool: cfg.Model.Pool, Batch: max(32, cfg.Loop.BatchSize), On: o.on,
				Progress: func(done, total int) { f.ui.Progress("features", done, total, "") }})
			if err != nil {
				return err
			}
			seconds = time.Since(begun).Seconds()
			if i == 0 {
				f.seconds = seconds
			}
			if !cfg.Machine.Group.First() {
				continue // others on this machine find the first one's
			}
			if err := writeFeatures(key, xs[i], seconds); err != nil {
				f.ui.Note("features are not cached: %v", err)
			}
		}
		f.peakCUDA, err = peakCUDAMB(dev)
		return err
	})
	return xs, err
}

// frozen is the model of a run that trains nothing on it.
type frozen struct {
	model    model.Model
	on       train.Machine
	cfg      Config // with what the run has chosen
	held     train.Base
	quantize string
	print    string // fingerprint of settings and data
}

// openFrozen loads the model, writes what was chosen, and meets the other processes; hash is the data's.
func (c Config) openFrozen(ctx context.Context, s *bindings.Scope, hash string, ui train.UI, rec *provenance.Recorder) (o frozen, err error) {
	if o.on, err = c.Machine.BeginInference(s); err != nil {
		return o, err
	}
	if o.on.Note != "" {
		ui.Note("%s", o.on.Note)
	}
	file, err := model.FileDType(c.Model.folder())
	if err != nil {
		return o, err
	}
	if o.held, err = train.ChooseBase(c.Model.BaseDType, c.Model.Quantize, file, o.on.Precision); err != nil {
		return o, err
	}
	if err := o.on.CheckHold(o.held); err != nil {
		return o, err
	}
	m, err := model.Load(s, c.Model.folder(), model.Options{As: c.Model.ReadAs, Device: o.on.Device, Aside: o.on.Aside(), Base: o.held.DType, Quantise: o.held.Quantise, Copy: !c.Machine.Without.Use(train.LeverMapping)})
	if err != nil {
		return o, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	o.model, o.quantize = m, train.QuantizeName(o.held.Quantise, m)
	chosen := choices{amp: o.on.Precision.DType, base: train.BaseDTypeName(o.held.DType), quantize: o.quantize, device: o.on.Device, threads: s.Threads()}
	if c.Model.Method == train.Features {
		chosen.pool = train.DefaultPool(m.Info().Decoder)
	}
	o.cfg = c.choose(chosen)
	if c.Machine.Group.First() {
		if err := rec.Begun(); err != nil {
			return o, err
		}
		if err := WriteConfig(filepath.Join(c.Output.Out, "config.yaml"), o.cfg); err != nil {
			return o, err
		}
	}
	if err := c.Machine.Group.Agree(ctx, "data", hash); err != nil {
		return o, err
	}
	if err := o.on.HoldWeights(m, true, true, ui.Note); err != nil {
		return o, err
	}
	o.print = o.cfg.fingerprint(hash)
	return o, o.on.Join(ctx, s, m)
}
