package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/dist"
	"gopeft/train/metrics"
)

func evalCommand() *cli.Command {
	return &cli.Command{
		Name: "eval", Usage: "score a model or adapter on labelled data",
		Flags: slices.Concat(
			inGroup(groupModel, &cli.StringFlag{Name: "task", Usage: "classify, multi-label, regression, or causal for a language model", DefaultText: "the run's, or as the head's files say, else classify"}),
			modelFlags(), distTimeoutFlag(), adapterFlag(), dataFlags(), lengthFlag(),
			promptFlags(),
			inGroup(groupData,
				&cli.StringFlag{Name: "template", Usage: "causal: prompt and answer from columns, e.g. '{question} -> {answer}'; in-context: how a text and its label are written, e.g. 'Review: {text}\\nSentiment: {label}'", DefaultText: "the run's"},
				&cli.BoolFlag{Name: "mask-prompt", Value: true, Usage: "causal: score the answer only; --mask-prompt=false scores the prompt too"}),
			inGroup(groupDecoding,
				&cli.StringFlag{Name: "match", Usage: "causal: let the model answer, and compare what this regular expression (or its group) finds first, e.g. '#### (-?[0-9,]+)'"},
				&cli.IntFlag{Name: "max-new-tokens", Value: 256, Usage: "of --match: most tokens of an answer"},
				&cli.StringSliceFlag{Name: "stop", Usage: "of --match: end an answer at this text; may be given more than once"}),
			inGroup(groupOutput, &cli.StringFlag{Name: "per-row", Usage: "JSONL file to write with each row's nll and tokens, or its label, prediction and logits"}),
			uiFlags()),
		Action: func(c *cli.Context) error { return shared(c, func(group *dist.Group) error { return eval(c, group) }) },
	}
}

// evaluated is what eval prints.
type evaluated struct {
	Rows      int            `json:"rows"`
	Skipped   int            `json:"skipped"` // bad rows
	Accuracy  float64        `json:"accuracy"`
	MacroF1   float64        `json:"macro_f1"`
	Loss      float64        `json:"loss"`
	Labels    []string       `json:"labels"`
	Confusion [][]int        `json:"confusion,omitempty"` // [label][prediction]; none where there are very many labels
	Scores    metrics.Scores `json:"scores"`
}

func eval(c *cli.Context, group *dist.Group) error {
	src, err := resolve(c)
	if err != nil {
		return err
	}
	task := c.String("task")
	if task == "" && src.Run != nil {
		task = src.Run.Task
	}
	asked, err := asks(c)
	if err != nil {
		return err
	}
	to := func(w io.Writer) error { return evalLabels(c, group, w) }
	switch {
	case asked && task == train.TaskCausal:
		err = shotFlags(c)
	case asked && task != "" && task != train.TaskClassify:
		err = train.Usage("--method in-context asks for a label or an answer: it has no --task %s", task)
	case asked:
		to = func(w io.Writer) error { return evalAsked(c, group, src, w) }
	}
	if err != nil {
		return err
	}
	switch task {
	case "", train.TaskClassify, train.TaskRegression, train.TaskMultiLabel:
		for _, name := range []string{"template", "mask-prompt", "match", "stop", "max-new-tokens"} {
			if c.IsSet(name) && !(asked && name == "template") {
				return &train.UsageError{Err: fmt.Errorf("--%s goes with --task causal", name)}
			}
		}
	case train.TaskCausal:
		to = func(w io.Writer) error { return evalCausal(c, group, src, w) }
	default:
		return train.CheckTask(task)
	}
	if path := firstWrites(group, c.String("per-row")); path != "" {
		return writeFile(c.Context, path, to)
	}
	return to(io.Discard)
}

// evalLabels scores a classifier.
func evalLabels(c *cli.Context, group *dist.Group, perRow io.Writer) error {
	u := newUI(c)
	var result evaluated
	var confusion *metrics.Confusion
	var targets *evaluatedTargets // in place of both, of a head that gives each label a score of its own
	err := bindings.Do(c.Context, func(s *bindings.Scope) (err error) {
		p, err := openPredictor(c, s, group)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.Close()) }()
		if p.Problem() != model.OneLabel {
			targets, err = evalTargets(c, s, p, perRow)
			return err
		}
		rows, err := openExamples(c, p.Run(), data.OneLabel, p.Labels)
		if err != nil {
			return err
		}
		defer rows.Close()
		say := sync.OnceFunc(func() { u.Note("%s", rows.Columns()) }) // known once the first row is read
		confusion = metrics.NewConfusion(len(p.Labels))
		e := json.NewEncoder(perRow)
		loss := 0.0
		for part := range p.Stream(c.Context, rows, stretch, p.MaxLength) {
			if part.Err != nil {
				return part.Err
			}
			say()
			predictions, err := p.PredictRows(c.Context, s, part, nil)
			if err != nil {
				return err
			}
			for i, r := range predictions {
				label := part.Examples[i].Label
				if label == data.Unlabelled {
					return fmt.Errorf("%s, row %d: no label to score against", part.Examples[i].File, part.Examples[i].Row)
				}
				if err := confusion.Add(label, r.Label); err != nil {
					return err
				}
				nll := -math.Log(max(float64(r.Probs[label]), 1e-45))
				loss += nll
				if err := e.Encode(map[string]any{"label": p.Labels[label], "prediction": p.Labels[r.Label], "nll": nll, "logits": r.Logits}); err != nil {
					return err
				}
			}
			result.Rows += len(predictions)
		}
		saySkipped(u, rows)
		result.Skipped = rows.Stats().Skipped
		if result.Rows == 0 {
			return fmt.Errorf("%s holds no rows", c.String("data"))
		}
		result.Loss, result.Labels = loss/float64(result.Rows), p.Labels
		return c.Context.Err()
	})
	if err != nil {
		return err
	}
	if targets != nil {
		return targets.print(c, firstPrints(c, group))
	}
	result.Accuracy, result.MacroF1, result.Scores = confusion.Accuracy(), confusion.MacroF1(), confusion.Scores(result.Labels)
	result.Confusion = confusion.Table()
	w := firstPrints(c, group)
	if c.Bool("json") {
		return printJSON(w, result)
	}
	printLabels(w, result, confusion)
	return nil
}

// printLabels prints a classifier's scores for people.
func printLabels(w io.Writer, result evaluated, confusion *metrics.Confusion) {
	fmt.Fprintf(w, "%d rows: accuracy %.4f, macro F1 %.4f, loss %.4f\n", result.Rows, result.Accuracy, result.MacroF1, result.Loss)
	for i, l := range result.Labels {
		fmt.Fprintf(w, "  %-20s F1 %.4f", l, confusion.Class(i).F1)
		if result.Confusion != nil {
			fmt.Fprintf(w, "  predicted as %s", countsOf(result.Labels, result.Confusion[i]))
		}
		fmt.Fprintln(w)
	}
}

// countsOf lists how often each label was predicted: "negative (14), positive (10)". Labels that never were are left out.
func countsOf(labels []string, counts []int) string {
	var parts []string
	for i, n := range counts {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s (%d)", labels[i], n))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
