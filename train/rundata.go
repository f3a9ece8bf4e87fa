package train

import (
	"context"
	"fmt"
	"slices"

	"gopeft/model"
	"gopeft/model/tokenizer"
	"gopeft/peft"
	"gopeft/train/data"
)

// runData is a run's data: labels at once, tokens when wait returns.
type runData struct {
	labels           []string
	task             Task
	train, val, test *Part
	hash             string   // of the sets they were made of
	notes            []string // for people, once wait has returned
	ready            chan error
}

// loadData reads the files, and starts tokenizing them on the other cores.
func (r *run) loadData(ctx context.Context) error {
	if r.cfg.Task == "causal" {
		return r.loadCausal(ctx)
	}
	splits, err := r.cfg.splits(ctx)
	if err != nil {
		return err
	}
	for _, note := range splits.Notes() {
		r.ui.Note("%s", note)
	}
	if err := splits.Train.CheckTrainable(); err != nil {
		return err
	}
	d := &runData{labels: splits.Train.Labels, task: Classification{WholeBlocks: !r.cfg.Has(LeverPooling)}, ready: make(chan error, 1)}
	r.data = d
	pad, err := r.padID()
	if err != nil {
		return err
	}
	enc := Encoder{r.tok, r.noTok}
	length, err := r.maxLength()
	if err != nil {
		return err
	}
	facts, err := model.ReadFacts(r.cfg.folder())
	if err != nil {
		return err
	}
	cores, inTurn := threads(r.cfg.Threads), !r.cfg.Has(LeverOverlap) // the settings change while this goes on: see settle
	go func() {
		d.ready <- func() error {
			d.hash = splitsHash(splits)
			for _, p := range []struct {
				set  *data.Set
				part **Part
			}{{splits.Train, &d.train}, {splits.Val, &d.val}, {splits.Test, &d.test}} {
				if p.set == nil || len(p.set.Examples) == 0 {
					continue
				}
				ids, err := data.EncodeAll(ctx, enc, p.set.Examples, length, facts.Vocab, cores)
				if err != nil {
					return fmt.Errorf("%s: %w", p.set.File, err)
				}
				*p.part = ClassificationPart(ids, classes(p.set), pad)
				(*p.part).InTurn = inTurn
			}
			return nil
		}()
	}()
	return nil
}

// splits reads the data with its labels in the order of the head that training starts from, where that head
// has the same ones: that of --adapter-init, which must, or the model's own.
func (c Config) splits(ctx context.Context) (*data.Splits, error) {
	if c.Method == Features {
		return LoadSplits(ctx, c, nil)
	}
	facts, err := model.ReadFacts(c.folder())
	if err != nil {
		return nil, err
	}
	base := facts.Labels
	if c.AdapterInit != "" {
		info, err := peft.Probe(c.AdapterInit)
		if err != nil {
			return nil, err
		}
		if labels := info.HeadLabels(base); len(labels) > 0 {
			return LoadSplits(ctx, c, labels)
		}
	}
	splits, err := LoadSplits(ctx, c, nil)
	if err == nil && !slices.Equal(splits.Train.Labels, base) && slices.Equal(slices.Sorted(slices.Values(splits.Train.Labels)), slices.Sorted(slices.Values(base))) {
		return LoadSplits(ctx, c, base)
	}
	return splits, err
}

// causalSplits reads the data of a language model.
func (c Config) causalSplits(ctx context.Context) (*data.CausalSplits, error) {
	return data.LoadCausalSplits(ctx, c.sources(),
		data.CausalOptions{Template: c.Template, TextColumn: c.TextColumn, SkipBadRows: c.SkipBadRows, Limit: c.Limit,
			Sample: c.Sample, Seed: c.Seed})
}

// dataHash reads the data and identifies it: the hashes of its parts.
func (c Config) dataHash(ctx context.Context) (string, error) {
	if c.Task == "causal" {
		splits, err := c.causalSplits(ctx)
		if err != nil {
			return "", err
		}
		hash := ""
		for _, set := range []*data.CausalSet{splits.Train, splits.Val, splits.Test} {
			if set != nil && len(set.Examples) > 0 {
				hash += set.Hash()
			}
		}
		return hash, nil
	}
	splits, err := c.splits(ctx)
	if err != nil {
		return "", err
	}
	return splitsHash(splits), nil
}

// splitsHash is the hashes of the parts there are.
func splitsHash(splits *data.Splits) (hash string) {
	for _, set := range []*data.Set{splits.Train, splits.Val, splits.Test} {
		if set != nil && len(set.Examples) > 0 {
			hash += set.Hash()
		}
	}
	return hash
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

// sampler orders the training data as cfg says.
func (d *runData) sampler(cfg Config) data.Sampler {
	return data.Sampler{Lengths: d.train.Lengths, BatchSize: cfg.BatchSize, MaxTokens: cfg.MaxTokens,
		Shuffle: !cfg.NoShuffle, Bucket: !cfg.NoBucket, Seed: cfg.Seed}
}

func classes(set *data.Set) []int {
	ys := make([]int, len(set.Examples))
	for i, e := range set.Examples {
		ys[i] = e.Label
	}
	return ys
}

// sources names the data files.
func (c Config) sources() data.Sources {
	src := data.Sources{Train: c.Train, Val: c.Val, Test: c.Test, Data: c.Data, Seed: c.Seed}
	if c.Data != "" {
		src.Ratios, src.Stratify = c.Split, c.Stratify
	}
	return src
}

// LoadSplits reads a configuration's data; labels, when not nil, are the only ones accepted.
func LoadSplits(ctx context.Context, cfg Config, labels []string) (*data.Splits, error) {
	return data.LoadSplits(ctx, cfg.sources(), cfg.loadOptions(labels))
}

func (c Config) loadOptions(labels []string) data.LoadOptions {
	return data.LoadOptions{TextColumn: c.TextColumn, LabelColumn: c.LabelColumn, Labels: labels, SkipBadRows: c.SkipBadRows,
		Limit: c.Limit, Sample: c.Sample, Seed: c.Seed}
}

// padID is what fills rows up; attention never sees it.
func (r *run) padID() (int64, error) {
	return padID(r.tok, r.cfg.folder())
}

// padID is the tokenizer's padding token, else its end token, else some token that the model in folder has an embedding
// of: a token that only a configuration names may have an id beyond them. Without a tokenizer it is the model's own.
func padID(t *tokenizer.Tokenizer, folder string) (int64, error) {
	facts, err := model.ReadFacts(folder)
	if err != nil || t == nil {
		return facts.Pad, err
	}
	for _, find := range []func() (int64, bool){t.PadID, t.EOSID} {
		if id, ok := find(); ok && (facts.Vocab == 0 || id < int64(facts.Vocab)) {
			return id, nil
		}
	}
	return 0, nil
}

// Encoder tokenizes for package data, special tokens included. Without a Tokenizer, a row of text fails with
// Missing.
type Encoder struct {
	Tokenizer *tokenizer.Tokenizer
	Missing   error
}

// EncodeIDs implements data.Encoder.
func (e Encoder) EncodeIDs(dst []int64, text string, maxLength int) ([]int64, error) {
	if e.Tokenizer == nil {
		return dst, e.Missing
	}
	return e.Tokenizer.EncodeIDs(dst, text, tokenizer.Options{AddSpecial: true, MaxLength: maxLength})
}

// maxLength is how many tokens of a text are read: what was asked for, or what the model has room for beside
// the method's virtual tokens.
func (r *run) maxLength() (int, error) {
	facts, err := model.ReadFacts(r.cfg.folder())
	if err != nil {
		return 0, err
	}
	room := facts.Room
	if r.cfg.Method == "prompt" { // virtual tokens take positions
		settings := r.cfg.Peft
		if dir := r.cfg.AdapterInit; dir != "" {
			info, err := peft.Probe(dir)
			if err != nil {
				return 0, err
			}
			settings = info.Options
		}
		o, err := peft.New("prompt", settings)
		if err != nil {
			return 0, &UsageError{err}
		}
		room -= o.Options().VirtualTokens
	}
	return clampLength(r.cfg.MaxLength, room)
}
