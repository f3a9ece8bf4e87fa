package run

import (
	"context"
	"fmt"
	"path/filepath"

	"gopeft/bindings"
	"gopeft/train"
	"gopeft/train/report"
)

// finish scores the best checkpoint on every part and writes the summary and the picture.
func (r *run) finish(ctx context.Context, s *bindings.Scope) error {
	if at := r.trainer.At; at.Skipped > 0 {
		if at.Skipped == at.Step {
			return fmt.Errorf("the loss scaler of fp16 skipped all %d steps: nothing was trained; try --amp bf16 or none", at.Step)
		}
		r.ui.Note("the loss scaler of fp16 skipped %d of %d steps", at.Skipped, at.Step)
	}
	if r.prog.Best != nil && r.prog.BestStep != r.trainer.At.Step {
		if err := r.loadBest(s); err != nil {
			return err
		}
		if r.cfg.Loop.EvalEvery > 0 {
			r.ui.Note("scoring the best checkpoint, of step %d", r.prog.BestStep)
		} else {
			r.ui.Note("scoring the best checkpoint, of epoch %d", r.prog.BestEpoch)
		}
	} else if r.prog.Best == nil {
		if err := r.saveBest(s); err != nil {
			return err
		}
	}
	sum := &r.summary
	for _, part := range []struct {
		name string
		data *train.Part
		of   func(*report.Splits) *report.Number
		skip bool
	}{
		{"score training data", r.data.train, func(x *report.Splits) *report.Number { return &x.Train }, r.cfg.Output.NoTrainEval},
		{"score validation data", r.data.val, func(x *report.Splits) *report.Number { return &x.Val }, false},
		{"score test data", r.data.test, func(x *report.Splits) *report.Number { return &x.Test }, false},
	} {
		if part.data == nil || part.skip {
			continue
		}
		e, err := r.evaluate(ctx, s, part.data, part.name)
		if err != nil {
			return err
		}
		*part.of(&sum.Accuracy), *part.of(&sum.Loss) = report.Number(e.Acc), report.Number(e.Loss)
		for _, f := range e.Figures {
			if sum.Scores == nil {
				sum.Scores = map[string]report.Splits{}
			}
			scores, ok := sum.Scores[f.Name]
			if !ok {
				scores = report.MissingSplits()
			}
			*part.of(&scores) = report.Number(f.Value)
			sum.Scores[f.Name] = scores
		}
	}
	sum.Seconds, sum.SamplesPerS = report.Number(r.prog.Seconds), report.Number(float64(r.trainer.At.Samples)/r.prog.Seconds)
	sum.PeakRSSMB, sum.BestEpoch, sum.Fingerprint = report.Number(train.PeakRSSMB()), r.prog.BestEpoch, r.prog.Config
	if r.cfg.Loop.EvalEvery > 0 {
		sum.BestStep = r.prog.BestStep
	}
	var err error
	if sum.PeakCUDAMB, err = peakCUDAMB(r.on.Device); err != nil {
		return err
	}
	if !r.first() {
		return nil
	}
	return finishFiles(r.cfg.Output.Out, *sum)
}

// loadBest brings the best checkpoint's weights back, on all processes.
func (r *run) loadBest(s *bindings.Scope) error {
	return r.trainer.TakeBest(s, filepath.Join(r.cfg.Output.Out, "best", "state", "weights.safetensors"))
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
