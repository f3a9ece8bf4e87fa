package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"gopeft/model/hf/files"
	"gopeft/model/tokenizer"
	"gopeft/train"
	"gopeft/train/classic"
)

// classic measures what needs no libtorch: fitting a classifier, tokenizing.
func (b *bench) classic(ctx context.Context) error {
	threads := b.cfg.Threads
	if threads == 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	b.result = Result{Mode: b.cfg.Mode, Method: b.cfg.Fitted, Threads: threads, Device: "cpu"}
	measure := b.fit
	if b.cfg.Mode == Tokenize {
		b.result.Threads, b.result.Method = 1, ""
		measure = b.tokenize
	}
	if err := measure(ctx); err != nil {
		return err
	}
	b.result.PeakRSSMB = train.PeakRSSMB()
	return b.clock.report(&b.result)
}

// begin notes that everything is loaded, and starts the first step.
func (b *bench) begin() error {
	ready, err := sinceProcessStart()
	b.result.StartupS = ready.Seconds()
	b.clock.start()
	return err
}

// fit fits the classifier once a step and scores the last one.
func (b *bench) fit(ctx context.Context) (err error) {
	x, y, err := readFeatures(b.cfg.Features)
	if err != nil {
		return err
	}
	n := x.Rows - b.cfg.Holdout
	if n < 1 {
		return &train.UsageError{Err: fmt.Errorf("--holdout is %d, %s has %d rows", b.cfg.Holdout, b.cfg.Features, x.Rows)}
	}
	fitted := classic.Matrix{Rows: n, Cols: x.Cols, Data: x.Data[:n*x.Cols]}
	held := classic.Matrix{Rows: x.Rows - n, Cols: x.Cols, Data: x.Data[n*x.Cols:]}
	classes := slices.Max(y) + 1
	if err := b.begin(); err != nil {
		return err
	}
	var model classic.Classifier
	defer func() {
		if model != nil {
			err = errors.Join(err, model.Close())
		}
	}()
	for range b.cfg.Steps {
		next, err := b.fitOnce(ctx, fitted, y[:n], classes)
		if err != nil {
			return err
		}
		if model != nil {
			if err := model.Close(); err != nil {
				return err
			}
		}
		model = next
		if err := b.clock.end(n, 0); err != nil {
			return err
		}
	}
	if held.Rows == 0 {
		return nil
	}
	got, err := model.Predict(ctx, held)
	if err != nil {
		return err
	}
	right := 0
	for i, label := range y[n:] {
		if got[i] == label {
			right++
		}
	}
	b.result.Accuracy = float64(right) / float64(held.Rows)
	return nil
}

func (b *bench) fitOnce(ctx context.Context, x classic.Matrix, y []int, classes int) (classic.Classifier, error) {
	switch b.cfg.Fitted {
	case classic.KindForest:
		return classic.FitForest(ctx, x, y, classes, classic.ForestOptions{Seed: b.cfg.Seed, Workers: b.cfg.Threads})
	case classic.KindBoosted:
		return classic.FitBoosted(ctx, x, y, classes, classic.BoostOptions{Workers: b.cfg.Threads})
	default:
		return classic.FitLogisticRegression(ctx, x, y, classes, classic.LogisticOptions{Workers: b.cfg.Threads})
	}
}

// readFeatures reads a matrix and its rows' labels.
func readFeatures(path string) (x classic.Matrix, y []int, err error) {
	a, err := files.Open(path)
	if err != nil {
		return x, nil, err
	}
	defer a.Close()
	features, ok := a.Lookup("features")
	if !ok || features.DType != files.F32 || len(features.Shape) != 2 || features.Elements() == 0 {
		return x, nil, fmt.Errorf("%s: no fp32 tensor features [rows, columns] in it", path)
	}
	labels, ok := a.Lookup("labels")
	if !ok || labels.DType != files.I64 || len(labels.Shape) != 1 || labels.Shape[0] != features.Shape[0] {
		return x, nil, fmt.Errorf("%s: no int64 tensor labels [%d] in it", path, features.Shape[0])
	}
	x = classic.NewMatrix(int(features.Shape[0]), int(features.Shape[1]))
	copy(x.Bytes(), features.Data)
	y = make([]int, x.Rows)
	for i := range y {
		v := binary.LittleEndian.Uint64(labels.Data[8*i:])
		if v > 1<<20 {
			return x, nil, fmt.Errorf("%s: label of row %d is %d, want 0 or more", path, i+1, int64(v))
		}
		y[i] = int(v)
	}
	return x, y, nil
}

// tokenize tokenizes all texts once a step.
func (b *bench) tokenize(ctx context.Context) error {
	t, err := train.OpenTokenizer(b.cfg.Model)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(b.cfg.Texts)
	if err != nil {
		return err
	}
	texts := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if err := b.begin(); err != nil {
		return err
	}
	var ids []int64
	for range b.cfg.Steps {
		tokens := 0
		for _, text := range texts {
			if ids, err = t.EncodeIDs(ids[:0], text, tokenizer.Options{AddSpecial: true}); err != nil {
				return err
			}
			tokens += len(ids)
		}
		if err := b.clock.end(len(texts), tokens); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}
