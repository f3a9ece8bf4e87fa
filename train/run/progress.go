package run

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"gopeft/bindings"
	"gopeft/train"
	"gopeft/train/report"
)

func (r *run) onStep(s *bindings.Scope, rep train.StepReport) error {
	total := r.trainer.Schedule.Total
	r.on.Group.At(fmt.Sprintf("step %d of %d", rep.Step, total))
	r.ui.Progress("train", rep.Step, total, fmt.Sprintf("epoch %.2f  loss %.4f", rep.Epochs, rep.Loss))
	if rep.Log {
		row := report.NewRow(rep.Step, rep.Epochs)
		row.LR, row.TrainLoss, row.TrainAcc, row.SamplesPerS = rep.LR, rep.Loss, rep.Acc, r.rate(rep)
		if err := r.record(row); err != nil {
			return err
		}
	}
	if !rep.EndOf && (r.cfg.Output.Checkpoints > 0 && rep.Step%r.cfg.Output.Checkpoints == 0 || rep.Timed) {
		return r.saveLast(s)
	}
	return nil
}

// rate is training rows per second of all sessions so far.
func (r *run) rate(rep train.StepReport) float64 {
	return float64(rep.Samples) / (r.resumed + rep.Elapsed.Seconds())
}

func (r *run) record(row report.Row) error {
	if !r.first() {
		return nil
	}
	if err := r.metrics.Write(row); err != nil {
		return err
	}
	if r.events == nil {
		return nil
	}
	var extra []report.Scalar
	for _, name := range slices.Sorted(maps.Keys(row.Extra)) {
		extra = append(extra, report.Scalar{Tag: "val/" + strings.TrimPrefix(name, "val_"), Value: row.Extra[name]})
	}
	return r.events.Write(row.Step, time.Now(), append(extra, report.Scalar{Tag: "train/loss", Value: row.TrainLoss}, report.Scalar{Tag: "train/acc", Value: row.TrainAcc},
		report.Scalar{Tag: "train/epoch_loss", Value: row.EpochTrainLoss}, report.Scalar{Tag: "train/epoch_acc", Value: row.EpochTrainAcc},
		report.Scalar{Tag: "val/loss", Value: row.ValLoss}, report.Scalar{Tag: "val/acc", Value: row.ValAcc}, report.Scalar{Tag: "lr", Value: row.LR})...)
}

func (r *run) onEpoch(ctx context.Context, s *bindings.Scope, rep train.StepReport) error {
	row := report.NewRow(rep.Step, rep.Epochs)
	row.LR, row.EpochTrainLoss, row.EpochTrainAcc, row.SamplesPerS = rep.LR, rep.Loss, rep.Acc, r.rate(rep)
	r.prog.Position = rep.Position
	stop := false
	if r.data.val != nil {
		var err error
		if _, stop, err = r.validate(ctx, s, &row); err != nil {
			return err
		}
	}
	r.ui.Note("epoch %d: %s", rep.Epoch, describeRow(row))
	if err := r.record(row); err != nil {
		return err
	}
	if err := r.saveLast(s); err != nil {
		return err
	}
	return r.stopped(stop)
}

// onEval scores the model inside an epoch.
func (r *run) onEval(ctx context.Context, s *bindings.Scope, rep train.StepReport) error {
	row := report.NewRow(rep.Step, rep.Epochs)
	row.LR, row.SamplesPerS = rep.LR, r.rate(rep)
	r.prog.Position = rep.Position
	best, stop, err := r.validate(ctx, s, &row)
	if err != nil {
		return err
	}
	r.ui.Note("step %d: %s", rep.Step, describeRow(row))
	if err := r.record(row); err != nil {
		return err
	}
	if best { // last/ knows of best/
		if err := r.saveLast(s); err != nil {
			return err
		}
	}
	return r.stopped(stop)
}

// validate scores the validation part into row, keeps the model if it is the best so far, and reports whether it was and
// whether to stop.
func (r *run) validate(ctx context.Context, s *bindings.Scope, row *report.Row) (best, stop bool, err error) {
	e, err := r.evaluate(ctx, s, r.data.val, "validate")
	if err != nil {
		return false, false, err
	}
	row.ValLoss, row.ValAcc = e.Loss, e.Acc
	known := figuresOf(r.cfg.Model.Task)
	for _, f := range e.Figures {
		if name := "val_" + f.Name; slices.Contains(known, name) {
			if row.Extra == nil {
				row.Extra = map[string]float64{}
			}
			row.Extra[name] = f.Value
		}
	}
	if best, stop = r.monitor.Note(&r.prog, e); best {
		err = r.saveBest(s)
	}
	return best, stop, err
}

// stopped ends the run where patience has.
func (r *run) stopped(stop bool) error {
	if !stop {
		return nil
	}
	r.ui.Note("stopping early: %s has not improved for %d evaluations", r.monitor.Metric, r.prog.Stale)
	return train.ErrStop
}

// describeRow says how an epoch, or the model inside one, went.
func describeRow(row report.Row) string {
	var parts []string
	for _, v := range []struct {
		name  string
		value float64
	}{{"train loss", row.EpochTrainLoss}, {"train acc", row.EpochTrainAcc}, {"val loss", row.ValLoss}, {"val acc", row.ValAcc}} {
		if !math.IsNaN(v.value) {
			parts = append(parts, fmt.Sprintf("%s %.4f", v.name, v.value))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(row.Extra)) {
		parts = append(parts, fmt.Sprintf("%s %.4f", strings.ReplaceAll(name, "_", " "), row.Extra[name]))
	}
	return strings.Join(append(parts, fmt.Sprintf("%.1f samples/s", row.SamplesPerS)), ", ")
}

func (r *run) evaluate(ctx context.Context, s *bindings.Scope, p *train.Part, phase string) (train.Evaluation, error) {
	r.on.Group.At(fmt.Sprintf("step %d (%s)", r.trainer.At.Step, phase))
	// A batch may be wider than those trained on, but takes no more memory: without gradients tokens cost less than half.
	tokens := r.cfg.Loop.MaxTokens
	if tokens == 0 {
		tokens = r.cfg.Loop.BatchSize * slices.Max(r.data.train.Lengths)
	}
	return train.Evaluate(ctx, s, r.trainer.Model, r.data.scores, p, train.EvalOptions{Batch: r.trainer.Config.EvalBatch, MaxTokens: 2 * tokens, On: r.on,
		Progress: func(done, total int) { r.ui.Progress(phase, done, total, "") }})
}
