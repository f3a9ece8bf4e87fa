package run

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"gopeft/bindings/fault"
	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/tokenizer"
	"gopeft/train"
	"gopeft/train/corpus"
	"gopeft/train/data"
	"gopeft/train/data/spool"
	"gopeft/train/data/tokens"
	"gopeft/train/prompted"
)

// runData is a run's data: labels at once, tokens when wait returns.
type runData struct {
	labels           []string
	learns, scores   train.Task // in training, and in evaluations
	train, val, test *train.Part
	hash             string   // of the sets they were made of
	notes            []string // for people, once wait has returned
	ready            chan error
	file             *tokens.File // that the parts read from; nil: they are in memory
	weights          []float64    // of the training data's files, if they have any
}

// close ends the reading of the data.
func (d *runData) close() error {
	if d == nil || d.file == nil {
		return nil
	}
	return d.file.Close()
}

// parts are what a run trains on and is measured with, by their names in a file of tokens.
func (d *runData) parts() map[string]**train.Part {
	return map[string]**train.Part{corpus.TrainPart: &d.train, corpus.ValPart: &d.val, corpus.TestPart: &d.test}
}

// loadData reads the files, and starts tokenizing them on the other cores; or opens the file that holds them as tokens.
func (r *run) loadData(ctx context.Context) error {
	if r.cfg.Model.Task == train.TaskCausal {
		return r.loadCausal(ctx)
	}
	pad, err := train.PadID(r.tok, r.cfg.Model.folder())
	if err != nil {
		return err
	}
	source, err := r.cfg.classification(r.tok, r.noTok, r.ui)
	if err != nil {
		return err
	}
	without := r.cfg.Machine.Without
	task := train.Classification{EveryPosition: !without.Use(train.LeverPooling)}
	d := &runData{scores: task, ready: make(chan error, 1)}
	if d.weights, err = r.cfg.Data.Weights(); err != nil {
		return err
	}
	if d.file, err = source.Open(ctx); err != nil {
		return err
	}
	r.data = d
	if d.file != nil {
		d.labels, d.hash = d.file.Info().Labels, d.file.Hash()
		for name, part := range d.parts() {
			if *part, err = readClassification(d.file.Part(name), pad, !without.Use(train.LeverOverlap)); err != nil {
				return err
			}
		}
		if d.weights != nil {
			if d.train.Sources, err = d.file.Part(corpus.TrainPart).Sources(); err != nil {
				return err
			}
		}
		counts := func() ([]int, error) { return countClasses(d.file.Part(corpus.TrainPart), len(d.labels)) }
		if d.learns, err = r.cfg.learns(task, d.labels, counts); err != nil {
			return err
		}
		d.ready <- nil
		return nil
	}
	splits, err := r.cfg.splits(ctx, nil)
	if err != nil {
		return err
	}
	for _, note := range splits.Notes() {
		r.ui.Note("%s", note)
	}
	if err := splits.Train.CheckTrainable(); err != nil {
		return err
	}
	d.labels = splits.Train.Labels
	if r.cfg.Model.kind() != data.OneLabel {
		d.learns = train.Targets{Problem: train.ProblemOf(r.cfg.Model.Task), EveryPosition: task.EveryPosition}
		d.scores = d.learns
	} else if d.learns, err = r.cfg.learns(task, d.labels, func() ([]int, error) { return splits.Train.Counts(), nil }); err != nil {
		return err
	}
	go func() {
		d.ready <- fault.Guard(func() (err error) {
			if d.hash, err = splits.Sum(ctx); err != nil {
				return err
			}
			for _, p := range []struct {
				set  *data.Set
				part **train.Part
			}{{splits.Train, &d.train}, {splits.Val, &d.val}, {splits.Test, &d.test}} {
				if p.set == nil || len(p.set.Examples) == 0 {
					continue
				}
				ids, err := data.EncodeAll(ctx, source.Encoder, p.set.Examples, source.MaxLength, source.Vocab, source.Workers)
				if err != nil {
					return fmt.Errorf("%s: %w", p.set.File, err)
				}
				if p.set.Kind == data.OneLabel {
					*p.part = train.ClassificationPart(ids, classes(p.set), pad)
				} else {
					*p.part = train.TargetsPart(ids, targets(p.set), pad)
				}
				(*p.part).InTurn = !without.Use(train.LeverOverlap)
			}
			if d.weights != nil {
				d.train.Sources = splits.Train.Sources()
			}
			return nil
		})
	}()
	return nil
}

// learns is task as it is trained: with what classes count, by the rows of each in the training part, and smoothed targets.
func (c Config) learns(task train.Classification, labels []string, counts func() ([]int, error)) (_ train.Task, err error) {
	task.Smoothing = c.Loop.Smoothing
	var n []int
	if c.Loop.Weights == data.Balanced {
		if n, err = counts(); err != nil {
			return nil, err
		}
	}
	if task.Weights, err = data.ClassWeights(c.Loop.Weights, labels, n); err != nil {
		return nil, train.Usage("--class-weights: %w", err)
	}
	return task, nil
}

// countClasses gives the number of examples of each class.
func countClasses(p *tokens.Part, classes int) ([]int, error) {
	counts := make([]int, classes)
	labels, err := p.Labels()
	for _, label := range labels {
		if label >= 0 && label < classes {
			counts[label]++
		}
	}
	return counts, err
}

// readClassification makes a part of one in a file of tokens, nil of none.
func readClassification(p *tokens.Part, pad int64, inTurn bool) (*train.Part, error) {
	if p == nil {
		return nil, nil
	}
	lengths, err := p.Lengths()
	if err != nil {
		return nil, err
	}
	part := train.ReadClassification(lengths, func(i int) ([]int64, int, error) {
		e, err := p.Example(i)
		return e.IDs, e.Label, err
	}, pad)
	part.InTurn = inTurn
	return part, nil
}

// readNewTokens puts the tokens of --add-tokens in the place of the file that names them, and takes over those of the
// adapter gone on from.
func (c *Config) readNewTokens() error {
	given := &c.Peft.AddTokens
	if dir := c.Model.AdapterInit; dir != "" && len(*given) == 0 {
		info, err := c.Methods.Probe(dir)
		*given = info.Options.AddTokens
		return err
	}
	if len(*given) != 1 || !fsutil.Exists((*given)[0]) {
		return nil
	}
	path := (*given)[0]
	raw, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
	if err != nil {
		return fmt.Errorf("--add-tokens: %w", err)
	}
	*given = nil
	for _, line := range strings.Split(string(raw), "\n") {
		if line = strings.TrimRight(line, "\r"); line != "" {
			*given = append(*given, line)
		}
	}
	if len(*given) == 0 {
		return train.Usage("--add-tokens: %s has no tokens", path)
	}
	return nil
}

// tokenizer is the model's with the new tokens, and their ids.
func (c Config) tokenizer() (*tokenizer.Tokenizer, []int64, error) {
	tok, err := train.OpenTokenizer(c.Model.folder())
	if err != nil || len(c.Peft.AddTokens) == 0 {
		return tok, nil, err
	}
	more, ids, err := tok.With(c.Peft.AddTokens...)
	if err != nil {
		return nil, nil, train.Usage("--add-tokens: %w", err)
	}
	return more, ids, nil
}

// source says what the data is, of whatever task.
func (c Config) source(tok *tokenizer.Tokenizer, ui train.UI) (corpus.Source, error) {
	length, err := c.maxLength()
	if err != nil {
		return corpus.Source{}, err
	}
	facts, err := model.ReadFacts(c.Model.folder())
	if tok != nil && len(c.Peft.AddTokens) > 0 {
		facts.Vocab = max(facts.Vocab, tok.VocabSize())
	}
	return corpus.Source{Settings: c.Data, Seed: c.Machine.Seed, Model: c.Model.folder(), MaxLength: length, Vocab: facts.Vocab, NewTokens: c.Peft.AddTokens, UI: ui,
		Workers: c.Machine.Cores()}, err
}

// classification says what a classifier's data is. Without a tokenizer missing says why.
func (c Config) classification(tok *tokenizer.Tokenizer, missing error, ui train.UI) (corpus.Classification, error) {
	source, err := c.source(tok, ui)
	if err != nil {
		return corpus.Classification{}, err
	}
	if c.Model.kind() != data.OneLabel {
		source.Settings.CacheDir = corpus.None // files of tokens hold classes
	}
	orders, err := c.labelOrders()
	return corpus.Classification{Source: source, Orders: orders, Encoder: train.Encoder{Tokenizer: tok, Missing: missing}, Load: c.splits}, err
}

// labelOrders are the labels of the head that training starts from, of --adapter-init and of the model, as far as there
// are such.
func (c Config) labelOrders() ([][]string, error) {
	facts, err := model.ReadFacts(c.Model.folder())
	if err != nil {
		return nil, err
	}
	orders := [][]string{nil, facts.Labels}
	if c.Model.AdapterInit != "" {
		info, err := c.Methods.Probe(c.Model.AdapterInit)
		if err != nil {
			return nil, err
		}
		orders[0] = info.HeadLabels(facts.Labels)
	}
	return orders, nil
}

// splits reads the data with its labels in the order of the head that training starts from, where that head
// has the same ones: that of --adapter-init, which must, or the model's own. The rows are kept in memory, or in on.
func (c Config) splits(ctx context.Context, on *spool.File) (*data.Splits, error) {
	if !c.trains() {
		return c.loadSplits(ctx, nil, on)
	}
	orders, err := c.labelOrders()
	if err != nil {
		return nil, err
	}
	head, base := orders[0], orders[1]
	if len(head) > 0 {
		return c.loadSplits(ctx, head, on)
	}
	splits, err := c.loadSplits(ctx, nil, on)
	if err == nil && c.Model.kind() != data.Numbers && !slices.Equal(splits.Train.Labels, base) && slices.Equal(slices.Sorted(slices.Values(splits.Train.Labels)), slices.Sorted(slices.Values(base))) {
		return c.loadSplits(ctx, base, on)
	}
	return splits, err
}

// loadSplits reads the data; labels, when not nil, are the only ones accepted.
func (c Config) loadSplits(ctx context.Context, labels []string, on *spool.File) (*data.Splits, error) {
	seed := c.Machine.Seed
	o := c.Data.LoadOptions(labels, seed)
	o.Spool, o.Kind = on, c.Model.kind()
	return data.LoadSplits(ctx, c.Data.Sources(seed), o)
}

// causalSplits reads the data of a language model.
func (c Config) causalSplits(ctx context.Context, on *spool.File) (*data.CausalSplits, error) {
	seed := c.Machine.Seed
	o := c.Data.CausalOptions(seed)
	o.Spool = on
	return data.LoadCausalSplits(ctx, c.Data.Sources(seed), o)
}

// dataHash reads the data and identifies it: the hashes of its parts.
func (c Config) dataHash(ctx context.Context, ui train.UI) (string, error) {
	if !c.trains() && c.Model.Task == "classify" { // whose features are kept, or texts asked about, and not its tokens
		splits, err := c.splits(ctx, nil)
		if err != nil {
			return "", err
		}
		return c.sum(ctx, splits)
	}
	tok, _, missing := c.tokenizer()
	if c.Model.Task == train.TaskCausal {
		source, err := c.causal(tok, missing, ui)
		if err != nil {
			return "", err
		}
		return source.Hash(ctx)
	}
	source, err := c.classification(tok, missing, ui)
	if err != nil {
		return "", err
	}
	return source.Hash(ctx)
}

// sum identifies a classifier's data, with the templates that are read besides.
func (c Config) sum(ctx context.Context, splits *data.Splits) (string, error) {
	hash, err := splits.Sum(ctx)
	if path := c.Prompt.Templates; err == nil && path != "" && c.Model.Method == prompted.HardPrompt {
		var of string
		of, err = fsutil.HashFile(ctx, path)
		hash += of
	}
	return hash, err
}

// describe tells a process's data from another's.
func (d *runData) describe() string {
	text := d.hash
	for _, p := range []*train.Part{d.train, d.val, d.test} {
		if p != nil {
			tokens := 0
			for _, n := range p.Lengths {
				tokens += n
			}
			text += fmt.Sprintf(", %d rows of %d tokens", len(p.Lengths), tokens)
		}
	}
	return text
}

// wait returns when every text is tokenized.
func (d *runData) wait(ctx context.Context) error {
	select {
	case err := <-d.ready:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sampler orders the training data as the settings say.
func (d *runData) sampler(c train.LoopSettings, seed uint64) data.Sampler {
	s := data.Sampler{Lengths: d.train.Lengths, BatchSize: c.BatchSize, MaxTokens: c.MaxTokens, Shuffle: !c.NoShuffle, Bucket: !c.NoBucket, Seed: seed}
	if d.weights != nil {
		s.Mix = &data.Mix{Source: d.train.Sources, Weights: d.weights}
	}
	return s
}

func classes(set *data.Set) []int {
	ys := make([]int, len(set.Examples))
	for i, e := range set.Examples {
		ys[i] = e.Label
	}
	return ys
}

func targets(set *data.Set) [][]float32 {
	out := make([][]float32, len(set.Examples))
	for i, e := range set.Examples {
		out[i] = e.Targets(set.Kind, len(set.Labels))
	}
	return out
}

// maxLength is how many tokens of a text are read: what was asked for, or what the model has room for beside
// the method's virtual tokens.
func (c Config) maxLength() (int, error) {
	facts, err := model.ReadFacts(c.Model.folder())
	if err != nil {
		return 0, err
	}
	room := facts.Room
	if c.trains() { // virtual tokens take positions
		settings := c.Peft
		if dir := c.Model.AdapterInit; dir != "" {
			info, err := c.Methods.Probe(dir)
			if err != nil {
				return 0, err
			}
			settings = info.Options
		}
		method, err := c.Methods.New(c.Model.Method, settings)
		if err != nil {
			return 0, &train.UsageError{Err: err}
		}
		room -= method.Needs().VirtualTokens
	}
	return train.ClampLength(c.Data.MaxLength, room)
}
