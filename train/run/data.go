package run

import (
	"context"
	"fmt"
	"slices"

	"gopeft/model"
	"gopeft/train"
	"gopeft/train/data"
)

// runData is a run's data: labels at once, tokens when wait returns.
type runData struct {
	labels           []string
	task             train.Task
	train, val, test *train.Part
	hash             string   // of the sets they were made of
	notes            []string // for people, once wait has returned
	ready            chan error
}

// loadData reads the files, and starts tokenizing them on the other cores.
func (r *run) loadData(ctx context.Context) error {
	if r.cfg.Model.Task == "causal" {
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
	without := r.cfg.Machine.Without
	d := &runData{labels: splits.Train.Labels, task: train.Classification{EveryPosition: !without.Use(train.LeverPooling)}, ready: make(chan error, 1)}
	r.data = d
	folder := r.cfg.Model.folder()
	pad, err := train.PadID(r.tok, folder)
	if err != nil {
		return err
	}
	length, err := r.maxLength()
	if err != nil {
		return err
	}
	facts, err := model.ReadFacts(folder)
	if err != nil {
		return err
	}
	enc := train.Encoder{Tokenizer: r.tok, Missing: r.noTok}
	cores := r.cfg.Machine.Cores() // read here: the run fills in its settings while this goes on
	go func() {
		d.ready <- func() error {
			d.hash = splitsHash(splits)
			for _, p := range []struct {
				set  *data.Set
				part **train.Part
			}{{splits.Train, &d.train}, {splits.Val, &d.val}, {splits.Test, &d.test}} {
				if p.set == nil || len(p.set.Examples) == 0 {
					continue
				}
				ids, err := data.EncodeAll(ctx, enc, p.set.Examples, length, facts.Vocab, cores)
				if err != nil {
					return fmt.Errorf("%s: %w", p.set.File, err)
				}
				*p.part = train.ClassificationPart(ids, classes(p.set), pad)
				(*p.part).InTurn = !without.Use(train.LeverOverlap)
			}
			return nil
		}()
	}()
	return nil
}

// splits reads the data with its labels in the order of the head that training starts from, where that head
// has the same ones: that of --adapter-init, which must, or the model's own.
func (c Config) splits(ctx context.Context) (*data.Splits, error) {
	if c.Model.Method == train.Features {
		return c.loadSplits(ctx, nil)
	}
	facts, err := model.ReadFacts(c.Model.folder())
	if err != nil {
		return nil, err
	}
	base := facts.Labels
	if c.Model.AdapterInit != "" {
		info, err := c.Methods.Probe(c.Model.AdapterInit)
		if err != nil {
			return nil, err
		}
		if labels := info.HeadLabels(base); len(labels) > 0 {
			return c.loadSplits(ctx, labels)
		}
	}
	splits, err := c.loadSplits(ctx, nil)
	if err == nil && !slices.Equal(splits.Train.Labels, base) && slices.Equal(slices.Sorted(slices.Values(splits.Train.Labels)), slices.Sorted(slices.Values(base))) {
		return c.loadSplits(ctx, base)
	}
	return splits, err
}

// loadSplits reads the data; labels, when not nil, are the only ones accepted.
func (c Config) loadSplits(ctx context.Context, labels []string) (*data.Splits, error) {
	seed := c.Machine.Seed
	return data.LoadSplits(ctx, c.Data.Sources(seed), c.Data.LoadOptions(labels, seed))
}

// causalSplits reads the data of a language model.
func (c Config) causalSplits(ctx context.Context) (*data.CausalSplits, error) {
	seed := c.Machine.Seed
	return data.LoadCausalSplits(ctx, c.Data.Sources(seed), c.Data.CausalOptions(seed))
}

// dataHash reads the data and identifies it: the hashes of its parts.
func (c Config) dataHash(ctx context.Context) (string, error) {
	if c.Model.Task == "causal" {
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
	return data.Sampler{Lengths: d.train.Lengths, BatchSize: c.BatchSize, MaxTokens: c.MaxTokens, Shuffle: !c.NoShuffle, Bucket: !c.NoBucket, Seed: seed}
}

func classes(set *data.Set) []int {
	ys := make([]int, len(set.Examples))
	for i, e := range set.Examples {
		ys[i] = e.Label
	}
	return ys
}

// maxLength is how many tokens of a text are read: what was asked for, or what the model has room for beside
// the method's virtual tokens.
func (r *run) maxLength() (int, error) {
	facts, err := model.ReadFacts(r.cfg.Model.folder())
	if err != nil {
		return 0, err
	}
	room := facts.Room
	if r.cfg.Model.Method != train.Features { // virtual tokens take positions
		settings := r.cfg.Peft
		if dir := r.cfg.Model.AdapterInit; dir != "" {
			info, err := r.cfg.Methods.Probe(dir)
			if err != nil {
				return 0, err
			}
			settings = info.Options
		}
		method, err := r.cfg.Methods.New(r.cfg.Model.Method, settings)
		if err != nil {
			return 0, &train.UsageError{Err: err}
		}
		room -= method.Needs().VirtualTokens
	}
	return train.ClampLength(r.cfg.Data.MaxLength, room)
}
