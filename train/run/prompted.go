package run

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"time"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/prompted"
	"gopeft/train/report"
	"gopeft/train/run/inputs"
	"gopeft/train/run/provenance"
)

// templatesFile is where a run that chose among templates leaves how well each did.
const templatesFile = "templates.csv"

// promptRun is a run that asks a language model as it is.
type promptRun struct {
	cfg      Config
	ui       train.UI
	recorder *provenance.Recorder
	sum      report.Summary
	hash     string // of the data
}

// runPrompted scores a language model that is asked by prompts. Nothing is trained.
func runPrompted(ctx context.Context, cfg Config, ui train.UI, watch *inputs.Watch, rec *provenance.Recorder) (report.Summary, error) {
	r := &promptRun{cfg: cfg, ui: ui, recorder: rec}
	r.sum = report.Summary{Method: cfg.Model.Method, Model: cfg.Model.Path, Accuracy: report.MissingSplits(), Loss: report.MissingSplits(), PeakCUDAMB: report.Missing()}
	ask := r.askLabels
	if cfg.Model.Task == "causal" {
		ask = r.askAnswers
	}
	if err := ask(ctx); err != nil || !cfg.Machine.Group.First() {
		return r.sum, err
	}
	if err := watch.Settle(); err != nil {
		return r.sum, err
	}
	return r.sum, report.WriteSummary(filepath.Join(cfg.Output.Out, "summary.json"), r.sum)
}

// with loads the model, has fn ask it, and notes what that took. fn gives how many rows it has scored.
func (r *promptRun) with(ctx context.Context, fn func(s *bindings.Scope, sc prompted.Scorer, enc train.CausalEncoder) (rows int, err error)) error {
	cfg := r.cfg
	tok, missing := train.OpenTokenizer(cfg.Model.folder())
	pad, err := train.PadID(tok, cfg.Model.folder())
	if err != nil {
		return err
	}
	enc := train.CausalEncoder{Tokenizer: tok, Missing: missing, Chat: train.ChatRenderer(tok)}
	if enc.EOS, err = cfg.endTokens(tok); err != nil {
		return err
	}
	return bindings.Do(ctx, func(s *bindings.Scope) (err error) {
		o, err := cfg.openFrozen(ctx, s, r.hash, r.ui, r.recorder)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.model.Close()) }()
		lm, ok := o.model.(model.CausalLM)
		if !ok {
			return train.Usage("--method %s: %s is a %s model: it reads texts, it does not write them: give a language model", cfg.Model.Method, cfg.Model.Path, o.model.Info().Family)
		}
		enc.Vocab = lm.Info().Vocab
		begun := time.Now()
		rows, err := fn(s, prompted.Scorer{LM: lm, On: o.on, Pad: pad, Batch: max(32, cfg.Loop.BatchSize), MaxTokens: cfg.Loop.MaxTokens}, enc)
		if err != nil {
			return err
		}
		seconds := time.Since(begun).Seconds()
		r.sum.Seconds, r.sum.SamplesPerS = report.Number(seconds), report.Number(float64(rows)/seconds)
		_, total := lm.Params().Count()
		r.sum.Params = report.Params{Frozen: total, Total: total}
		r.sum.PeakRSSMB, r.sum.Fingerprint = report.Number(train.PeakRSSMB()), o.print
		r.sum.PeakCUDAMB, err = peakCUDAMB(o.on.Device)
		return err
	})
}

// askLabels classifies by the likelihood of labels.
func (r *promptRun) askLabels(ctx context.Context) error {
	splits, err := r.cfg.splits(ctx, nil)
	if err != nil {
		return err
	}
	for _, note := range splits.Notes() {
		r.ui.Note("%s", note)
	}
	labels := splits.Train.Labels
	words, note, err := r.cfg.Prompt.WordsOf(labels)
	if err != nil {
		return err
	}
	if note != "" {
		r.ui.Note("%s", note)
	}
	templates, err := r.templates(splits)
	if err != nil {
		return err
	}
	if r.hash, err = r.cfg.sum(ctx, splits); err != nil {
		return err
	}
	return r.with(ctx, func(s *bindings.Scope, sc prompted.Scorer, enc train.CausalEncoder) (int, error) {
		a := asking{promptRun: r, scorer: sc, encoder: enc, splits: splits, prompt: prompted.Prompt{Template: templates[0], Labels: labels, Words: words,
			PerToken: r.cfg.Prompt.PerToken, Calibrate: r.cfg.Prompt.Calibrate, MaxLength: r.cfg.Data.MaxLength}}
		var best *prompted.Classifier
		var err error
		if r.cfg.Model.Method == prompted.HardPrompt {
			best, err = a.chooseTemplate(ctx, s, templates)
		} else {
			best, err = a.drawShots(ctx, s)
		}
		if err != nil || !r.cfg.Machine.Group.First() {
			return a.rows, err
		}
		if n := best.Cut.Load(); n > 0 {
			r.ui.Note("%d texts were cut to --max-length, or to what the model has room for", n)
		}
		return a.rows, best.Save(r.cfg.Output.Out)
	})
}

// templates are those that the method asks by.
func (r *promptRun) templates(splits *data.Splits) ([]prompted.Template, error) {
	columns := prompted.Columns{Text: splits.Train.Columns.Text, Label: splits.Train.Columns.Label}
	if r.cfg.Model.Method == prompted.HardPrompt {
		if empty(splits.Val) {
			return nil, train.Usage("--method %s chooses its template by validation data: give --val, or --data with a --split that has it", prompted.HardPrompt)
		}
		return prompted.ReadTemplates(r.cfg.Prompt.Templates, columns)
	}
	if err := prompted.CheckShots(r.cfg.Prompt.Shots, splits.Train.Len(), splits.Train.File); err != nil {
		return nil, err
	}
	source := r.cfg.Data.Template
	if source == "" {
		source = prompted.DefaultTemplate
		r.ui.Note("template: %s (--template gives another)", source)
	}
	t, err := prompted.ParseTemplate(source, columns)
	if err != nil {
		return nil, train.Usage("--%w", err) // it begins with the setting's name
	}
	return []prompted.Template{t}, nil
}

func empty(set *data.Set) bool { return set == nil || set.Len() == 0 }

// asking is what a run's prompts have in common.
type asking struct {
	*promptRun
	scorer  prompted.Scorer
	encoder train.CausalEncoder
	splits  *data.Splits
	prompt  prompted.Prompt
	rows    int // scored so far
}

// classifier is one of a prompt of its own.
func (a *asking) classifier() *prompted.Classifier {
	p := a.prompt
	return &prompted.Classifier{Prompt: &p, Encoder: a.encoder, Scorer: a.scorer, Workers: a.cfg.Machine.Cores()}
}

// score measures a prompt on a part, under a name for people; missing of none.
func (a *asking) score(ctx context.Context, s *bindings.Scope, c *prompted.Classifier, set *data.Set, name string) (acc, loss report.Number, err error) {
	if empty(set) {
		return report.Missing(), report.Missing(), nil
	}
	c.Scorer.Progress = func(done, total int) { a.ui.Progress(name, done, total, "") }
	scores, err := c.Scores(ctx, s, set.Examples)
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", set.File, err)
	}
	a.rows += len(scores)
	m := prompted.Measure(scores, set.Examples)
	return report.Number(m.Accuracy), report.Number(m.Loss), nil
}

// drawShots scores the prompts of all draws, and gives the one that does best on the validation part, of several the first.
func (a *asking) drawShots(ctx context.Context, s *bindings.Scope) (best *prompted.Classifier, err error) {
	draws := a.cfg.Prompt.Draws
	if a.cfg.Prompt.Shots == 0 {
		draws = 1
	}
	var of [4][]float64 // accuracy and loss on the validation part, then on the test part
	for draw := range draws {
		c := a.classifier()
		n, err := c.Choose(ctx, a.splits.Train.Examples, a.cfg.Prompt.Shots, a.cfg.Machine.Seed, uint64(draw), examplesOf(a.splits.Val), examplesOf(a.splits.Test))
		if err != nil {
			return nil, err
		}
		if draw == 0 {
			a.ui.Note("%s", prompted.SayShots(n, a.cfg.Prompt.Shots, a.scorer.Room()))
		}
		name := fmt.Sprintf("draw %d of %d", draw+1, draws)
		valAcc, valLoss, err := a.score(ctx, s, c, a.splits.Val, "ask validation data, "+name)
		if err != nil {
			return nil, err
		}
		testAcc, testLoss, err := a.score(ctx, s, c, a.splits.Test, "ask test data, "+name)
		if err != nil {
			return nil, err
		}
		if draws > 1 {
			a.ui.Note("%s: accuracy %s on the validation part, %s on the test part", name, share(valAcc), share(testAcc))
		}
		if best == nil || float64(valAcc) > highest(of[0]) {
			best = c
		}
		for i, v := range []report.Number{valAcc, valLoss, testAcc, testLoss} {
			of[i] = append(of[i], float64(v))
		}
	}
	spread := report.MissingSplits()
	for i, to := range []struct{ mean, spread *report.Number }{{&a.sum.Accuracy.Val, &spread.Val}, {&a.sum.Loss.Val, nil}, {&a.sum.Accuracy.Test, &spread.Test}, {&a.sum.Loss.Test, nil}} {
		mean, deviation := prompted.Spread(of[i])
		*to.mean = report.Number(mean)
		if to.spread != nil {
			*to.spread = report.Number(deviation)
		}
	}
	if draws > 1 {
		a.sum.Spread = &spread
	}
	return best, nil
}

func examplesOf(set *data.Set) []data.Example {
	if set == nil {
		return nil
	}
	return set.Examples
}

func highest(values []float64) float64 {
	best := values[0]
	for _, v := range values {
		best = max(best, v)
	}
	return best
}

func share(n report.Number) string {
	if n != n {
		return "none"
	}
	return strconv.FormatFloat(float64(n), 'f', 4, 64)
}

// chooseTemplate scores every template on the validation part, and the best of them on the test part. Of equal accuracies
// the lower loss is better.
func (a *asking) chooseTemplate(ctx context.Context, s *bindings.Scope, templates []prompted.Template) (best *prompted.Classifier, err error) {
	var scored []scoredTemplate
	at := 0
	for i, t := range templates {
		a.prompt.Template = t
		c := a.classifier()
		if _, err := c.Choose(ctx, nil, 0, 0, 0); err != nil {
			return nil, err
		}
		acc, loss, err := a.score(ctx, s, c, a.splits.Val, fmt.Sprintf("ask validation data, template %d of %d", i+1, len(templates)))
		if err != nil {
			return nil, err
		}
		a.ui.Note("accuracy %s, loss %.4f on the validation part: %s", share(acc), float64(loss), t)
		scored = append(scored, scoredTemplate{t.String(), acc, loss})
		if was := scored[at]; best == nil || acc > was.acc || acc == was.acc && loss < was.loss {
			best, at = c, i
		}
	}
	a.sum.Accuracy.Val, a.sum.Loss.Val = scored[at].acc, scored[at].loss
	a.ui.Note("the best template: %s", scored[at].template)
	if a.sum.Accuracy.Test, a.sum.Loss.Test, err = a.score(ctx, s, best, a.splits.Test, "ask test data"); err != nil || !a.cfg.Machine.Group.First() {
		return best, err
	}
	return best, writeTemplates(filepath.Join(a.cfg.Output.Out, templatesFile), scored)
}

type scoredTemplate struct {
	template  string
	acc, loss report.Number
}

func writeTemplates(path string, scored []scoredTemplate) error {
	return fsutil.WriteFile(path, func(out io.Writer) error {
		w := csv.NewWriter(out)
		lines := [][]string{{"template", "val_acc", "val_loss"}}
		for _, t := range scored {
			lines = append(lines, []string{t.template, strconv.FormatFloat(float64(t.acc), 'f', 6, 64), strconv.FormatFloat(float64(t.loss), 'f', 6, 64)})
		}
		return w.WriteAll(lines)
	})
}

// askAnswers scores the answers of instruction data, with examples before each instruction.
func (r *promptRun) askAnswers(ctx context.Context) error {
	splits, err := r.cfg.causalSplits(ctx, nil)
	if err != nil {
		return err
	}
	for _, note := range splits.Notes() {
		r.ui.Note("%s", note)
	}
	shots := r.cfg.Prompt.Shots
	if err := prompted.CheckShots(shots, splits.Train.Len(), splits.Train.File); err != nil {
		return err
	}
	if r.hash, err = splits.Sum(ctx); err != nil {
		return err
	}
	return r.with(ctx, func(s *bindings.Scope, sc prompted.Scorer, enc train.CausalEncoder) (rows int, err error) {
		if enc.MaxLength, err = train.ClampLength(r.cfg.Data.MaxLength, sc.Room()); err != nil {
			return 0, err
		}
		f := prompted.FewShot{Encoder: enc, Room: sc.Room()}
		var asked [][]data.CausalExample
		for _, set := range []*data.CausalSet{splits.Val, splits.Test} {
			if set != nil {
				asked = append(asked, set.Examples)
			}
		}
		longest, err := f.Longest(asked...)
		if err != nil {
			return 0, err
		}
		n, err := f.Choose(splits.Train.Examples, shots, longest, r.cfg.Machine.Seed, 0)
		if err != nil {
			return 0, err
		}
		r.ui.Note("%s", prompted.SayShots(n, shots, sc.Room()))
		for _, part := range []struct {
			set  *data.CausalSet
			loss *report.Number
			name string
		}{{splits.Val, &r.sum.Loss.Val, "score validation data"}, {splits.Test, &r.sum.Loss.Test, "score test data"}} {
			if part.set == nil || part.set.Len() == 0 {
				continue
			}
			sc.Progress = func(done, total int) { r.ui.Progress(part.name, done, total, "") }
			loss, err := f.Loss(ctx, s, sc, part.set.Examples, r.cfg.Machine.Cores())
			if err != nil {
				return rows, err
			}
			*part.loss = report.Number(loss)
			rows += part.set.Len()
		}
		if !r.cfg.Machine.Group.First() {
			return rows, nil
		}
		return rows, f.Save(r.cfg.Output.Out)
	})
}
