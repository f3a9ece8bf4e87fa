package run

import (
	"context"
	"errors"
	"fmt"

	"gopeft/model"
	"gopeft/model/generate"
	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/report"
)

// loadCausal reads instruction data and starts tokenizing it on the other cores.
func (r *run) loadCausal(ctx context.Context) error {
	cfg := r.cfg
	splits, err := cfg.causalSplits(ctx)
	if err != nil {
		return err
	}
	for _, note := range splits.Notes() {
		r.ui.Note("%s", note)
	}
	length, err := r.maxLength()
	if err != nil {
		return err
	}
	facts, err := model.ReadFacts(cfg.Model.folder())
	if err != nil {
		return err
	}
	enc := train.CausalEncoder{Tokenizer: r.tok, Missing: r.noTok, Vocab: facts.Vocab, MaxLength: length, TrainPrompt: !cfg.Data.MaskPrompt, Chat: train.ChatRenderer(r.tok)}
	if err := r.endToken(&enc); err != nil {
		return err
	}
	pad, err := train.PadID(r.tok, cfg.Model.folder())
	if err != nil {
		return err
	}
	d := &runData{task: train.Causal{WholeLogits: !cfg.Machine.Without.Use(train.LeverChunks)}, ready: make(chan error, 1)}
	r.data = d
	go func() {
		d.ready <- func() error {
			for _, p := range []struct {
				set  *data.CausalSet
				part **train.Part
				pack bool
			}{{splits.Train, &d.train, cfg.Data.Pack}, {splits.Val, &d.val, false}, {splits.Test, &d.test, false}} {
				if p.set == nil || len(p.set.Examples) == 0 {
					continue
				}
				d.hash += p.set.Hash()
				seqs, err := train.EncodeCausal(ctx, enc, p.set, cfg.Machine.Cores())
				if err != nil {
					return err
				}
				width := 0
				if p.pack {
					width = packWidth(seqs, cfg.Data.MaxLength, length)
				}
				if *p.part, err = train.CausalPart(seqs, pad, width); err != nil {
					return err
				}
				(*p.part).InTurn = !cfg.Machine.Without.Use(train.LeverOverlap)
				if p.pack {
					d.notes = append(d.notes, fmt.Sprintf("%s examples packed into %s rows of up to %s tokens",
						report.Commas(int64(len(seqs))), report.Commas(int64(len((*p.part).Lengths))), report.Commas(int64(width))))
				}
			}
			return nil
		}()
	}()
	return nil
}

// endToken tells an encoder of texts whose tokenizer names no end token which the model ends its texts with.
func (r *run) endToken(e *train.CausalEncoder) error {
	if r.tok == nil {
		return nil
	}
	if _, ok := r.tok.EOSID(); ok {
		return nil
	}
	o, err := generate.Defaults(r.cfg.Model.folder())
	if err != nil && !errors.Is(err, generate.ErrSampling) {
		return err
	}
	if e.EOS = o.EOS; len(e.EOS) == 0 {
		r.ui.Note("neither the tokenizer nor the model names an end token: answers are learned without one, so the model will not learn to stop")
	}
	return nil
}

// packedRow is how wide packed rows are unless --max-length says or an example is longer: attention's mask grows
// with the square of it.
const packedRow = 2048

// packWidth is how many tokens a packed row holds: what was asked for, else what the model reads, but no more than
// the longest example or packedRow.
func packWidth(seqs []data.Sequence, asked, room int) int {
	if asked > 0 {
		return room
	}
	longest := 0
	for _, s := range seqs {
		longest = max(longest, len(s.IDs))
	}
	return min(room, max(longest, packedRow))
}
