package train

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
	"unsafe"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf/files"
	"gopeft/train/classic"
	"gopeft/train/data"
	"gopeft/train/metrics"
	"gopeft/train/report"
)

// Pool reduces hidden states [B, S, d] to one vector per row, in fp32: the first real token ("cls") or the
// mean over the real tokens ("mean").
func Pool(s *bindings.Scope, how string, in model.Input, out model.Output) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		if how == "cls" {
			return s.To(s.Select(out.Hidden, 1, int64(out.Virtual)), bindings.Float)
		}
		h := s.To(s.From(out.Hidden, 1, int64(out.Virtual)), bindings.Float)
		if !in.Mask.Defined() {
			return s.MeanDim(h, 1, false)
		}
		mask := s.Unsqueeze(s.To(in.Mask, bindings.Float), -1)
		return s.Div(s.SumDim(s.Mul(h, mask), 1, false), s.SumDim(mask, 1, false))
	})
}

// FeatureOptions are how features are computed.
type FeatureOptions struct {
	Pool      string // "cls" or "mean"
	Batch     int
	MaxTokens int // most tokens of a batch, padding included; 0: no bound
	Device    bindings.Device
	Precision bindings.DType
	Progress  func(done, total int)

	Whole       bool // batches go through as they are: see EvalOrder
	WholeBlocks bool // the last block computes every position, also for "cls"
}

// ComputeFeatures runs the model over token sequences and pools its last hidden states: one row each, in order.
func ComputeFeatures(ctx context.Context, s *bindings.Scope, m model.Model, ids [][]int64, pad int64, o FeatureOptions) (classic.Matrix, error) {
	p := ClassificationPart(ids, make([]int, len(ids)), pad)
	dim := m.Info().Hidden
	x := classic.Matrix{Rows: len(ids), Cols: dim, Data: make([]float32, len(ids)*dim)}
	batches, err := EvalOrder(p.Lengths, o.Batch, o.MaxTokens, o.Device, o.Whole).Epoch(0)
	if err != nil {
		return x, err
	}
	i, done := 0, 0
	for b, err := range p.prefetch(ctx, batches) {
		if err != nil {
			return x, err
		}
		err := s.Run(func(s *bindings.Scope) error {
			s.Inference(func() {
				in := input(s, b, o.Device)
				in.Pooled = o.Pool == "cls" && !o.WholeBlocks && m.Hooks().Pool == model.RealToken // which would pool another position
				var out model.Output
				s.Autocast(o.Device, o.Precision, func() { out = m.Forward(s, in) })
				rows := Pool(s, o.Pool, in, out).Float32s()
				for k, example := range batches[i] {
					copy(x.Data[example*dim:], rows[k*dim:(k+1)*dim])
				}
			})
			return nil
		})
		if err != nil {
			return x, err
		}
		i++
		done += b.Rows
		if o.Progress != nil {
			o.Progress(done, len(ids))
		}
	}
	return x, nil
}

// runFeatures fits a classic classifier on frozen features.
func runFeatures(ctx context.Context, cfg Config, ui UI) (report.Summary, error) {
	f := &featureRun{cfg: cfg, ui: ui, peakCUDA: report.Missing()}
	sum := report.Summary{Method: cfg.Method + "+" + cfg.Classifier, Model: cfg.Model, Accuracy: report.MissingSplits(), Loss: report.MissingSplits(),
		PeakCUDAMB: report.Missing()}
	splits, err := LoadSplits(ctx, cfg, nil)
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
	xs, err := f.features(ctx, sets, splitsHash(splits))
	if err != nil {
		return sum, err
	}
	labels := splits.Train.Labels
	begun := time.Now()
	clf, err := f.fit(ctx, xs[0], classes(splits.Train), len(labels))
	if err != nil {
		return sum, err
	}
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
	sum.PeakRSSMB, sum.PeakCUDAMB, sum.Fingerprint = report.Number(PeakRSSMB()), f.peakCUDA, f.print
	err = classic.Save(filepath.Join(cfg.Out, "classifier.safetensors"), classic.Saved{Model: clf, Labels: labels,
		Meta: map[string]string{"model": cfg.Model, "pool": cfg.Pool, "max_length": fmt.Sprint(cfg.MaxLength)}})
	if err != nil {
		return sum, err
	}
	return sum, report.WriteSummary(filepath.Join(cfg.Out, "summary.json"), sum)
}

type featureRun struct {
	cfg    Config
	ui     UI
	frozen int64
	print  string // fingerprint of settings and data

	peakCUDA report.Number // MB of the GPU's memory

	seconds float64 // that computing the training set's features took, now or when they were cached
}

func (f *featureRun) fit(ctx context.Context, x classic.Matrix, y []int, n int) (classic.Classifier, error) {
	if f.cfg.Classifier == "forest" {
		return classic.FitForest(ctx, x, y, n, classic.ForestOptions{Seed: f.cfg.Seed, Workers: f.cfg.Threads,
			Progress: func(done, total int) { f.ui.Progress("grow trees", done, total, "") }})
	}
	m, err := classic.FitLogisticRegression(ctx, x, y, n, classic.LogisticOptions{Workers: f.cfg.Threads})
	if err == nil && !m.Fit.Converged {
		f.ui.Note("logistic regression did not converge in %d iterations", m.Fit.Iterations)
	}
	return m, err
}

// features computes, or takes from the cache, the features of each set.
func (f *featureRun) features(ctx context.Context, sets []*data.Set, hash string) ([]classic.Matrix, error) {
	cfg := f.cfg
	tok, noTok := OpenTokenizer(cfg.folder()) // rows that carry token ids need none
	pad, err := padID(tok, cfg.folder())
	if err != nil {
		return nil, err
	}
	base, err := modelHash(cfg.folder())
	if err != nil {
		return nil, err
	}
	xs := make([]classic.Matrix, len(sets))
	err = bindings.Do(ctx, func(s *bindings.Scope) error {
		dev, note, err := device(s, cfg.Device)
		if err != nil {
			return err
		}
		if note != "" {
			f.ui.Note("%s", note)
		}
		precision, err := inferencePrecision(cfg.AMP, dev)
		if err != nil {
			return err
		}
		cfg.apply(s)
		settled := cfg.settle(0, precision.DType, dev, s.Threads())
		if err := WriteConfig(filepath.Join(cfg.Out, "config.yaml"), settled); err != nil {
			return err
		}
		f.print = settled.fingerprint(hash)
		m, err := model.Load(s, cfg.folder(), model.Options{Device: dev, Copy: !cfg.Has(LeverMapping)})
		if err != nil {
			return err
		}
		_, f.frozen = m.Params().Count()
		cfg.CastFrozen(m, precision.DType, true)
		length, err := clampLength(cfg.MaxLength, m.Info().MaxPositions)
		if err != nil {
			return errors.Join(err, m.Close())
		}
		for i, set := range sets {
			if set == nil || len(set.Examples) == 0 {
				continue
			}
			key := featureKey(base, set.Hash(), cfg.Pool, length, precision.DType, dev)
			var seconds float64
			if xs[i], seconds, err = readFeatures(key); err == nil {
				f.ui.Note("features of %s: from the cache, computed in %.1f s", set.File, seconds)
				if i == 0 {
					f.seconds = seconds
				}
				continue
			} else if !errors.Is(err, fs.ErrNotExist) {
				f.ui.Note("features of %s: the cached file is not usable (%v), computing anew", set.File, err)
			}
			begun := time.Now()
			ids, err := data.EncodeAll(ctx, Encoder{Tokenizer: tok, Missing: noTok}, set.Examples, length, m.Info().Vocab, threads(cfg.Threads))
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", set.File, err), m.Close())
			}
			xs[i], err = ComputeFeatures(ctx, s, m, ids, pad, FeatureOptions{Pool: cfg.Pool, Batch: max(32, cfg.BatchSize), Device: dev,
				Whole: !cfg.Has(LeverPasses), WholeBlocks: !cfg.Has(LeverPooling), Precision: precision.DType, Progress: func(done, total int) { f.ui.Progress("features", done, total, "") }})
			if err != nil {
				return errors.Join(err, m.Close())
			}
			seconds = time.Since(begun).Seconds()
			if i == 0 {
				f.seconds = seconds
			}
			if err := writeFeatures(key, xs[i], seconds); err != nil {
				f.ui.Note("features are not cached: %v", err)
			}
		}
		f.peakCUDA, err = peakCUDAMB(dev)
		return errors.Join(err, m.Close())
	})
	return xs, err
}

// clampLength is how many tokens of a text are read: what was asked for, at most what the model has room for.
func clampLength(asked, room int) (int, error) {
	if asked > room {
		return 0, usage("--max-length is %d, the model reads at most %d tokens", asked, room)
	}
	if asked == 0 {
		return room, nil
	}
	return asked, nil
}

// modelHash identifies a model by its files' contents.
func modelHash(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return data.HashFile(path)
	}
	h := sha256.New()
	for _, pattern := range []string{"config.json", "*.safetensors", "pytorch_model*.bin", "*.gguf",
		"tokenizer.json", "vocab.txt", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"} {
		names, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil {
			return "", err
		}
		slices.Sort(names)
		for _, name := range names {
			sum, err := data.HashFile(name)
			if err != nil {
				return "", err
			}
			fmt.Fprintln(h, filepath.Base(name), sum)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func featureKey(model, set, pool string, length int, d bindings.DType, dev bindings.Device) string {
	h := sha256.New()
	fmt.Fprintln(h, "features 3", model, set, pool, length, d, dev, bindings.Version())
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Home is the folder of what gopeft caches: GOPEFT_HOME, else gopeft in the user's cache folder.
func Home() (string, error) {
	if home := os.Getenv("GOPEFT_HOME"); home != "" {
		return home, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "gopeft"), nil
}

func featurePath(key string) (string, error) {
	home, err := Home()
	return filepath.Join(home, "features", key+".safetensors"), err
}

// readFeatures reads a cached matrix and how many seconds it took to compute.
func readFeatures(key string) (x classic.Matrix, seconds float64, err error) {
	path, err := featurePath(key)
	if err != nil {
		return x, 0, err
	}
	a, err := files.Open(path)
	if err != nil {
		return x, 0, err
	}
	defer a.Close()
	e, ok := a.Lookup("features")
	if !ok || e.DType != files.F32 || len(e.Shape) != 2 {
		return x, 0, fmt.Errorf("%s: no matrix of features in it", path)
	}
	if seconds, err = strconv.ParseFloat(a.Metadata()["seconds"], 64); err != nil {
		return x, 0, fmt.Errorf("%s: how long it took is not in it: %w", path, err)
	}
	x = classic.Matrix{Rows: int(e.Shape[0]), Cols: int(e.Shape[1]), Data: make([]float32, e.Elements())}
	for i := range x.Data {
		x.Data[i] = math.Float32frombits(binary.LittleEndian.Uint32(e.Data[4*i:]))
	}
	return x, seconds, nil
}

func writeFeatures(key string, x classic.Matrix, seconds float64) error {
	path, err := featurePath(key)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return writeMatrix(path, x, map[string]string{"seconds": strconv.FormatFloat(seconds, 'g', -1, 64)})
}

// WriteMatrix writes a feature matrix as tensor "features" of a safetensors file.
func WriteMatrix(path string, x classic.Matrix) error { return writeMatrix(path, x, nil) }

func writeMatrix(path string, x classic.Matrix, meta map[string]string) error {
	return files.WriteSafetensors(path, []files.Tensor{{Name: "features", DType: files.F32, Shape: []int64{int64(x.Rows), int64(x.Cols)}, Data: float32Bytes(x.Data)}}, meta)
}

// float32Bytes views floats as their little-endian bytes; gopeft runs on little-endian machines only.
func float32Bytes(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}
