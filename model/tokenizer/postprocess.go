package tokenizer

import (
	"fmt"

	"github.com/sugarme/tokenizer/processor"
)

// postProcessor puts special tokens around the tokens of one or two texts.
type postProcessor struct {
	template      *processor.TemplateProcessing // nil: no special tokens
	before, after []int64                       // the special tokens around a single text, where that is all there is to it
	trimOffsets   bool                          // leave white space out of the offsets
	keepPrefix    bool                          // though not a space that was put in front of the text
}

func (p *postProcessor) added(pair bool) int {
	if p.template == nil {
		return 0
	}
	return p.template.AddedTokens(pair)
}

func (p *postProcessor) single(t *Tokenizer, s sequence, addSpecial bool) Encoding {
	if p.template == nil {
		return join(t, processor.Template{processor.NewSequencePiece("A", 0)}, nil, []sequence{s}, false)
	}
	return join(t, p.template.Single, p.template.SpecialTokens, []sequence{s}, addSpecial)
}

func (p *postProcessor) pair(t *Tokenizer, a, b sequence, addSpecial bool) Encoding {
	if p.template == nil {
		both := processor.Template{processor.NewSequencePiece("A", 0), processor.NewSequencePiece("B", 1)}
		return join(t, both, nil, []sequence{a, b}, false)
	}
	return join(t, p.template.Pair, p.template.SpecialTokens, []sequence{a, b}, addSpecial)
}

// join applies a template, whose special tokens are all known. The package that the template is from could do it too, but
// only on encodings of its own type, into which and out of which every token would be copied.
func join(t *Tokenizer, template processor.Template, special *processor.Tokens, in []sequence, addSpecial bool) Encoding {
	n := 0
	for _, s := range in {
		n += len(s.ids) + 4
	}
	e := Encoding{
		IDs: make([]int64, 0, n), TypeIDs: make([]int64, 0, n), Offsets: make([][2]int, 0, n),
		SpecialMask: make([]bool, 0, n), tok: t,
	}
	for _, piece := range template {
		switch p := piece.(type) {
		case *processor.SequencePiece:
			s := in[p.Id]
			for range s.ids {
				e.TypeIDs = append(e.TypeIDs, int64(p.TypeId))
				e.SpecialMask = append(e.SpecialMask, false)
			}
			e.IDs = append(e.IDs, s.ids...)
			e.Offsets = append(e.Offsets, s.offsets...)
		case *processor.SpecialTokenPiece:
			if !addSpecial {
				continue
			}
			token, _ := special.GetItemByKey(p.Id)
			for _, id := range token.Ids {
				e.IDs = append(e.IDs, int64(id))
				e.TypeIDs = append(e.TypeIDs, int64(p.TypeId))
				e.Offsets = append(e.Offsets, [2]int{})
				e.SpecialMask = append(e.SpecialMask, true)
			}
		}
	}
	return e
}

// setTemplate checks a template and takes it over.
func (p *postProcessor) setTemplate(single, pair processor.Template, tokens []processor.SpecialToken, vocab int) error {
	if p.template != nil {
		return fmt.Errorf("post_processor: more than one template")
	}
	known := processor.NewTokensFrom(tokens)
	for _, tok := range tokens {
		for _, id := range tok.Ids {
			if id < 0 || id >= vocab {
				return fmt.Errorf("post_processor: special token %q has the id %d, outside the vocabulary", tok.Id, id)
			}
		}
	}
	sequences := 0
	for _, piece := range single {
		switch piece := piece.(type) {
		case *processor.SequencePiece:
			if sequences++; piece.Id != processor.A {
				return fmt.Errorf("post_processor: the template of a single text asks for a second one")
			}
		case *processor.SpecialTokenPiece:
			if _, ok := known.GetItemByKey(piece.Id); !ok {
				return fmt.Errorf("post_processor: the template's special token %q is not declared", piece.Id)
			}
		}
	}
	for _, piece := range pair {
		if piece, ok := piece.(*processor.SpecialTokenPiece); ok {
			if _, ok := known.GetItemByKey(piece.Id); !ok {
				return fmt.Errorf("post_processor: the template's special token %q is not declared", piece.Id)
			}
		}
	}
	if sequences != 1 {
		return fmt.Errorf("post_processor: the template of a single text has it %d times, want once", sequences)
	}
	p.template = processor.NewTemplateProcessing(single, pair, known)
	side := &p.before
	for _, piece := range single {
		switch piece := piece.(type) {
		case *processor.SequencePiece:
			side = &p.after
		case *processor.SpecialTokenPiece:
			token, _ := known.GetItemByKey(piece.Id)
			for _, id := range token.Ids {
				*side = append(*side, int64(id))
			}
		}
	}
	return nil
}
