package run

import (
	"context"
	"errors"
	"fmt"

	"gopeft/bindings/fault"
	"gopeft/model/generate"
	"gopeft/model/tokenizer"
	"gopeft/train"
	"gopeft/train/corpus"
	"gopeft/train/data"
	"gopeft/train/data/tokens"
	"gopeft/train/report"
)

// loadCausal reads instruction data and starts tokenizing it on the other cores; or opens the file that holds it as tokens.
func (r *run) loadCausal(ctx context.Context) error {
	cfg := r.cfg
	pad, err := train.PadID(r.tok, cfg.Model.folder())
	if err != nil {
		return err
	}
	source, err := cfg.causal(r.tok, r.noTok, r.ui)
	if err != nil {
		return err
	}
	task := train.Causal{WholeLogits: !cfg.Machine.Without.Use(train.LeverChunks)}
	d := &runData{scores: task, ready: make(chan error, 1)}
	task.Smoothing = cfg.Loop.Smoothing
	d.learns = task
	if d.weights, err = cfg.Data.Weights(); err != nil {
		return err
	}
	if d.file, err = source.Open(ctx); err != nil {
		return err
	}
	r.data = d
	if d.file != nil {
		d.hash = d.file.Hash()
		for name, part := range d.parts() {
			if err := d.readCausal(cfg, d.file.Part(name), part, pad, source.MaxLength, name == corpus.TrainPart); err != nil {
				return err
			}
		}
		r.noteNoEnd(source.Encoder)
		d.ready <- nil
		return nil
	}
	splits, err := cfg.causalSplits(ctx, nil)
	if err != nil {
		return err
	}
	for _, note := range splits.Notes() {
		r.ui.Note("%s", note)
	}
	r.noteNoEnd(source.Encoder)
	go func() {
		d.ready <- fault.Guard(func() (err error) {
			if d.hash, err = splits.Sum(ctx); err != nil {
				return err
			}
			for _, p := range []struct {
				set   *data.CausalSet
				part  **train.Part
				learn bool
			}{{splits.Train, &d.train, true}, {splits.Val, &d.val, false}, {splits.Test, &d.test, false}} {
				if p.set == nil || len(p.set.Examples) == 0 {
					continue
				}
				seqs, err := train.EncodeCausal(ctx, source.Encoder, p.set, source.Workers)
				if err != nil {
					return err
				}
				lengths := make([]int, len(seqs))
				for i, s := range seqs {
					lengths[i] = len(s.IDs)
				}
				err = d.causalPart(cfg, p.part, lengths, p.set.Sources(), func(i int) (data.Sequence, error) { return seqs[i], nil }, pad, source.MaxLength, p.learn)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}()
	return nil
}

// readCausal makes a part of one in a file of tokens, if there is one.
func (d *runData) readCausal(cfg Config, p *tokens.Part, part **train.Part, pad int64, room int, learn bool) error {
	if p == nil {
		return nil
	}
	lengths, err := p.Lengths()
	if err != nil {
		return err
	}
	sources, err := p.Sources()
	if err != nil {
		return err
	}
	return d.causalPart(cfg, part, lengths, sources, func(i int) (data.Sequence, error) {
		e, err := p.Example(i)
		return data.Sequence{IDs: e.IDs, Targets: e.Targets}, err
	}, pad, room, learn)
}

// causalPart makes a part of sequences of these lengths, while the run fills in its own settings. Those to learn may be packed, and weighed by their sources.
func (d *runData) causalPart(cfg Config, part **train.Part, lengths []int, sources []uint16, read func(i int) (data.Sequence, error), pad int64, room int, learn bool) (err error) {
	width, pack := 0, learn && cfg.Data.Pack
	if !learn || d.weights == nil {
		sources = nil
	}
	if pack {
		width = packWidth(lengths, cfg.Data.MaxLength, room)
	}
	if *part, err = train.ReadCausal(lengths, sources, read, pad, width); err != nil {
		return err
	}
	(*part).InTurn = !cfg.Machine.Without.Use(train.LeverOverlap)
	if pack {
		d.notes = append(d.notes, fmt.Sprintf("%s examples packed into %s rows of up to %s tokens",
			report.Commas(int64(len(lengths))), report.Commas(int64(len((*part).Lengths))), report.Commas(int64(width))))
	}
	return nil
}

// causal says what a language model's data is. Without a tokenizer missing says why.
func (c Config) causal(tok *tokenizer.Tokenizer, missing error, ui train.UI) (corpus.Causal, error) {
	source, err := c.source(tok, ui)
	if err != nil {
		return corpus.Causal{}, err
	}
	enc := train.CausalEncoder{Tokenizer: tok, Missing: missing, Vocab: source.Vocab, MaxLength: source.MaxLength, TrainPrompt: !c.Data.MaskPrompt, Chat: train.ChatRenderer(tok)}
	enc.EOS, err = c.endTokens(tok)
	return corpus.Causal{Source: source, Encoder: enc, Load: c.causalSplits}, err
}

// endTokens are what the model ends its texts with, where the tokenizer names no end token.
func (c Config) endTokens(tok *tokenizer.Tokenizer) ([]int64, error) {
	if tok == nil {
		return nil, nil
	}
	if _, ok := tok.EOSID(); ok {
		return nil, nil
	}
	o, err := generate.Defaults(c.Model.folder())
	if err != nil && !errors.Is(err, generate.ErrSampling) {
		return nil, err
	}
	return o.EOS, nil
}

// noteNoEnd says where no end token is learned.
func (r *run) noteNoEnd(e train.CausalEncoder) {
	if r.tok == nil || len(e.EOS) > 0 {
		return
	}
	if _, ok := r.tok.EOSID(); !ok {
		r.ui.Note("neither the tokenizer nor the model names an end token: answers are learned without one, so the model will not learn to stop")
	}
}

// packedRow is how wide packed rows are unless --max-length says or an example is longer: attention's mask grows
// with the square of it.
const packedRow = 2048

// packWidth is how many tokens a packed row holds: what was asked for, else what the model reads, but no more than
// the longest example or packedRow.
func packWidth(lengths []int, asked, room int) int {
	if asked > 0 {
		return room
	}
	longest := 0
	for _, n := range lengths {
		longest = max(longest, n)
	}
	return min(room, max(longest, packedRow))
}
