package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/rows"
	"gopeft/train/dist"
	"gopeft/train/infer"
	"gopeft/train/metrics"
	"gopeft/train/prompted"
)

// promptSettings are the settings of a run that eval takes too.
var promptSettings = [...]string{"shots", "shot-draws", "label-words", "length-normalize", "calibrate", "seed"}

// promptFlags ask a language model by a prompt.
func promptFlags() []cli.Flag {
	return append(inGroup(groupPrompts,
		&cli.StringFlag{Name: "method", Usage: "in-context: ask a language model as it is, with examples of --train in its prompt"},
		&cli.StringFlag{Name: "train", Usage: "of in-context: file to take the examples from"},
	), inGroup(groupPrompts, chosenFlags(promptSettings[:]...)...)...)
}

// asks reports whether a prompt of the flags' is to be used.
func asks(c *cli.Context) (bool, error) {
	switch method := c.String("method"); method {
	case prompted.InContext:
		if c.Int("shots") > 0 && c.String("train") == "" {
			return false, train.Usage("--method in-context: give --train to take the examples from, or --shots 0 for none")
		}
		return true, nil
	case "":
		for _, name := range append([]string{"train"}, promptSettings[:]...) {
			if c.IsSet(name) {
				return false, train.Usage("--%s goes with --method in-context", name)
			}
		}
		return false, nil
	case prompted.HardPrompt:
		return false, train.Usage("--method hard-prompt chooses among templates: that is for train and compare; eval takes one, with --method in-context --shots 0 --template")
	default:
		return false, train.Usage("--method %q is not known to eval: in-context", method)
	}
}

func promptOf(c *cli.Context) (prompted.Settings, uint64, error) {
	settings := prompted.Defaults()
	if err := setFromFlags(c, reflect.ValueOf(&settings).Elem()); err != nil {
		return settings, 0, err
	}
	return settings, c.Uint64("seed"), settings.Check()
}

// loadLabelled reads all of a file of labelled texts.
func loadLabelled(c *cli.Context, path string, labels []string) (*data.Set, error) {
	set, err := data.Load(c.Context, path, data.LoadOptions{Read: rows.Options{Format: rows.Format(c.String("format"))}, TextColumn: c.String("text-column"),
		LabelColumn: c.String("label-column"), Labels: labels, SkipBadRows: c.Bool("skip-bad-rows")})
	if err == nil && set.Len() == 0 {
		err = fmt.Errorf("%s holds no rows", path)
	}
	return set, err
}

// evalAsked scores a language model that is asked for labels by a prompt.
func evalAsked(c *cli.Context, group *dist.Group, src infer.Source, perRow io.Writer) error {
	settings, seed, err := promptOf(c)
	if err != nil {
		return err
	}
	u := newUI(c)
	path := c.String("data")
	switch path {
	case "":
		return train.Usage("--data is missing: give a file")
	case "-":
		return train.Usage("--method in-context looks at all rows before it asks: give --data as a file")
	}
	var training, asked *data.Set
	var labels []string
	if from := c.String("train"); from != "" {
		if training, err = loadLabelled(c, from, nil); err != nil {
			return err
		}
		if err := prompted.CheckShots(settings.Shots, training.Len(), from); err != nil {
			return err
		}
		labels = training.Labels
	}
	if asked, err = loadLabelled(c, path, labels); err != nil {
		return err
	}
	if n := c.Int("limit"); n > 0 && n < asked.Len() {
		asked.Examples = asked.Examples[:n]
	}
	if labels = asked.Labels; len(labels) < 2 {
		return fmt.Errorf("%s: labels are needed, at least two: found %s", path, rows.BriefList(labels))
	}
	words, note, err := settings.WordsOf(labels)
	if err != nil {
		return err
	}
	for _, text := range append(asked.Notes(), note) {
		if text != "" {
			u.Note("%s", text)
		}
	}
	source := c.String("template")
	if source == "" {
		source = prompted.DefaultTemplate
		u.Note("template: %s (--template gives another)", source)
	}
	template, err := prompted.ParseTemplate(source, prompted.Columns{Text: asked.Columns.Text, Label: asked.Columns.Label})
	if err != nil {
		return train.Usage("--%w", err)
	}
	e := askedEval{c: c, training: training, set: asked, settings: settings, seed: seed, out: json.NewEncoder(perRow), confusion: metrics.NewConfusion(len(labels)),
		prompt: prompted.Prompt{Template: template, Labels: labels, Words: words, PerToken: settings.PerToken, Calibrate: settings.Calibrate, MaxLength: c.Int("max-length")}}
	e.out.SetEscapeHTML(false)
	err = bindings.Do(c.Context, func(s *bindings.Scope) (err error) {
		g, err := openGeneratorFor(c, s, src, group)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Close()) }()
		return e.run(s, g)
	})
	if err != nil {
		return err
	}
	return e.print(firstPrints(c, group))
}

// askedEval is an evaluation by prompts in progress.
type askedEval struct {
	c         *cli.Context
	training  *data.Set // nil: no examples are wanted
	set       *data.Set
	settings  prompted.Settings
	seed      uint64
	prompt    prompted.Prompt
	out       *json.Encoder
	confusion *metrics.Confusion // of all draws
	accuracy  []float64          // of each draw
	loss      float64
}

func (e *askedEval) run(s *bindings.Scope, g *infer.Generator) error {
	c, u := e.c, newUI(e.c)
	draws := e.settings.Draws
	if e.settings.Shots == 0 {
		draws = 1
	}
	var training []data.Example
	if e.training != nil {
		training = e.training.Examples
	}
	for draw := range draws {
		name := fmt.Sprintf("draw %d of %d", draw+1, draws)
		sc, err := g.Scorer(c.Int("batch-size"), c.Int("max-tokens"), func(done, total int) { u.Progress("ask, "+name, done, total, "") })
		if err != nil {
			return err
		}
		prompt := e.prompt
		clf := &prompted.Classifier{Prompt: &prompt, Encoder: g.Encoder(0, false), Scorer: sc, Workers: train.MachineSettings{Threads: c.Int("threads")}.Cores()}
		n, err := clf.Choose(c.Context, training, e.settings.Shots, e.seed, uint64(draw), e.set.Examples)
		if err != nil {
			return err
		}
		if draw == 0 {
			u.Note("%s", prompted.SayShots(n, e.settings.Shots, sc.Room()))
		}
		scores, err := clf.Scores(c.Context, s, e.set.Examples)
		if err != nil {
			return err
		}
		if cut := clf.Cut.Load(); cut > 0 && draw == 0 {
			u.Note("%d texts were cut to --max-length, or to what the model has room for", cut)
		}
		m := prompted.Measure(scores, e.set.Examples)
		if draws > 1 {
			u.Note("%s: accuracy %.4f", name, m.Accuracy)
		}
		e.accuracy = append(e.accuracy, m.Accuracy)
		e.loss += m.Loss / float64(draws)
		if err := e.write(infer.Asked(scores, e.prompt.Labels), draw, draws); err != nil {
			return err
		}
	}
	return nil
}

// write counts the predictions of a draw, and writes a line for each.
func (e *askedEval) write(predictions []infer.Prediction, draw, draws int) error {
	for i, r := range predictions {
		label := e.set.Examples[i].Label
		if err := e.confusion.Add(label, r.Label); err != nil {
			return err
		}
		line := map[string]any{"label": r.Labels[label], "prediction": r.Labels[r.Label], "nll": -math.Log(max(float64(r.Probs[label]), 1e-45)), "logits": r.Logits}
		if draws > 1 {
			line["draw"] = draw + 1
		}
		if err := e.out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

// evaluatedAsked is what eval prints of a model that was asked by prompts.
type evaluatedAsked struct {
	evaluated
	Draws  []float64 `json:"draws"` // the accuracy of each
	Spread float64   `json:"accuracy_spread"`
}

func (e *askedEval) print(w io.Writer) error {
	mean, spread := prompted.Spread(e.accuracy)
	r := evaluatedAsked{evaluated{Rows: e.set.Len(), Skipped: e.set.Stats.Skipped, Accuracy: mean, MacroF1: e.confusion.MacroF1(), Loss: e.loss,
		Labels: e.prompt.Labels, Confusion: e.confusion.Table(), Scores: e.confusion.Scores(e.prompt.Labels)}, e.accuracy, spread}
	if e.c.Bool("json") {
		return printJSON(w, r)
	}
	if n := len(e.accuracy); n > 1 {
		fmt.Fprintf(w, "%d draws of examples: accuracy %.4f ± %.4f, each draw's rows counted below\n", n, mean, spread)
	}
	printLabels(w, r.evaluated, e.confusion)
	return nil
}

// chooseExamples readies the examples that come before each instruction, or those of the run that is used.
func chooseExamples(c *cli.Context, g *infer.Generator, src infer.Source, o data.CausalOptions, length int) (*prompted.FewShot, error) {
	sc, err := g.Scorer(c.Int("batch-size"), c.Int("max-tokens"), nil)
	if err != nil {
		return nil, err
	}
	f := &prompted.FewShot{Encoder: g.Encoder(length, false), Room: sc.Room()}
	if c.String("method") == "" {
		n, err := f.Load(src.Prompt)
		newUI(c).Note("the run's %d examples in the prompt", n)
		return f, err
	}
	settings, seed, err := promptOf(c)
	if err != nil || settings.Shots == 0 {
		return f, err
	}
	o.Limit = 0
	set, err := data.LoadCausal(c.Context, c.String("train"), o)
	if err != nil {
		return nil, err
	}
	if err := prompted.CheckShots(settings.Shots, set.Len(), c.String("train")); err != nil {
		return nil, err
	}
	n, err := f.Choose(set.Examples, settings.Shots, sc.Room()/2, seed, 0) // rows are not known before they are asked about
	if err != nil {
		return nil, err
	}
	newUI(c).Note("%s, which they may fill by half", prompted.SayShots(n, settings.Shots, sc.Room()))
	return f, nil
}

// shotFlags refuses flags of prompts that instruction data has no use for.
func shotFlags(c *cli.Context) error {
	for _, name := range []string{"shot-draws", "label-words", "length-normalize", "calibrate"} {
		if c.IsSet(name) {
			return train.Usage("--%s goes with --task classify: here one draw of examples comes before each instruction", name)
		}
	}
	if !c.Bool("mask-prompt") {
		return train.Usage("--mask-prompt=false: method in-context scores answers, the prompt is where its examples are")
	}
	return nil
}

// stopsOf are the texts that end an answer: those given, or the beginning of another example.
func stopsOf(c *cli.Context, f *prompted.FewShot) []string {
	if stops := unescape(c.StringSlice("stop")); len(stops) > 0 || f == nil {
		return stops
	}
	if stop := f.Stop(); stop != "" {
		return []string{stop}
	}
	return nil
}
