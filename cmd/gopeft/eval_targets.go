package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/infer"
	"gopeft/train/metrics"
	"gopeft/train/report"
)

// evaluatedTargets is what eval prints of regression and of any number of labels to a row.
type evaluatedTargets struct {
	Task    string                   `json:"task"`
	Rows    int                      `json:"rows"`
	Skipped int                      `json:"skipped"` // bad rows
	Loss    report.Number            `json:"loss"`    // the mean squared error, or the mean cross-entropy of a decision
	Scores  map[string]report.Number `json:"scores"`
	Labels  []string                 `json:"labels"`

	figures []metrics.Figure
}

// evalTargets scores a head that gives each label, or number, a score of its own.
func evalTargets(c *cli.Context, s *bindings.Scope, p *infer.Predictor, perRow io.Writer) (*evaluatedTargets, error) {
	u := newUI(c)
	kind := data.Numbers
	if p.Problem() == model.AnyLabels {
		kind = data.AnyLabels
	}
	rows, err := openExamples(c, p.Run(), kind, p.Labels)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	say := sync.OnceFunc(func() { u.Note("%s", rows.Columns()) }) // known once the first row is read
	e := json.NewEncoder(perRow)
	var want, got [][]float32
	loss := 0.0
	for part := range p.Stream(c.Context, rows, stretch, p.MaxLength) {
		if part.Err != nil {
			return nil, part.Err
		}
		say()
		predictions, err := p.Predict(c.Context, s, part.IDs)
		if err != nil {
			return nil, err
		}
		for i, r := range predictions {
			wanted := part.Examples[i].Targets(kind, len(p.Labels))
			nll := rowLoss(r, wanted)
			loss += nll
			want, got = append(want, wanted), append(got, r.Logits)
			line := map[string]any{"loss": nll, "targets": wanted, "logits": r.Logits}
			if kind == data.AnyLabels {
				line = map[string]any{"loss": nll, "labels": namesOf(p.Labels, part.Examples[i].Given), "prediction": namesOf(p.Labels, r.Chosen), "logits": r.Logits}
			}
			if err := e.Encode(line); err != nil {
				return nil, err
			}
		}
	}
	saySkipped(u, rows)
	if len(want) == 0 {
		return nil, fmt.Errorf("%s holds no rows", c.String("data"))
	}
	result := &evaluatedTargets{Task: train.TaskOf(p.Problem()), Rows: len(want), Skipped: rows.Stats().Skipped, Loss: report.Number(loss / float64(len(want))),
		Labels: p.Labels, Scores: map[string]report.Number{}, figures: train.Targets{Problem: p.Problem()}.Score(want, got)}
	for _, f := range result.figures {
		result.Scores[f.Name] = report.Number(f.Value)
	}
	return result, c.Context.Err()
}

// rowLoss is the mean loss of a row's targets.
func rowLoss(r infer.Prediction, wanted []float32) (sum float64) {
	for k, x := range r.Logits {
		x, y := float64(x), float64(wanted[k])
		if r.Problem == model.AnyLabels {
			sum += max(x, 0) - x*y + math.Log1p(math.Exp(-math.Abs(x)))
		} else {
			sum += (x - y) * (x - y)
		}
	}
	return sum / float64(len(wanted))
}

func namesOf(labels []string, chosen []int) []string {
	names := make([]string, len(chosen))
	for i, k := range chosen {
		names[i] = labels[k]
	}
	return names
}

func (e *evaluatedTargets) print(c *cli.Context, w io.Writer) error {
	if c.Bool("json") {
		return printJSON(w, e)
	}
	parts := []string{fmt.Sprintf("loss %.4f", e.Loss)}
	for _, f := range e.figures {
		parts = append(parts, fmt.Sprintf("%s %.4f", strings.ReplaceAll(f.Name, "_", " "), f.Value))
	}
	_, err := fmt.Fprintf(w, "%d rows: %s\n", e.Rows, strings.Join(parts, ", "))
	return err
}
