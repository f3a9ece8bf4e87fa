package tokenizer

import (
	"bytes"
	"unicode/utf8"
)

// A long text is normalized in stretches where its words are known to fall apart at spaces, so that what is made of it on
// the way is not as long as the text: texts of SentencePiece's kind, which are one piece since there is no pre-tokenizer, and
// those of BERT's.

// stretch is about how many bytes of a text are normalized at once, where that makes no difference.
const stretch = 1 << 20

// behindSpaces is the normalizer of what follows a cut in front of a space: t's but for what it puts in front of a text.
// It is nil where a text must not be cut so.
func behindSpaces(t *Tokenizer) normalizer {
	steps, ok := t.normalizer.(normalizers)
	if !ok {
		steps = normalizers{t.normalizer}
	}
	switch {
	case t.normalizer == nil || len(t.normalizedAdded.tokens) > 0:
		return nil
	case len(t.preTokenizers) > 0:
		return behindWhiteSpace(t, steps)
	}
	b, ok := t.model.(*bpe)
	if !ok || b.boundary == 0 {
		return nil
	}
	var behind normalizers
	for _, step := range steps {
		switch step := step.(type) {
		case prepender:
		case replacer:
			if step != (replacer{" ", string(b.boundary)}) {
				return nil
			}
			behind = append(behind, step)
		default:
			return nil
		}
	}
	if len(behind) != 1 {
		return nil
	}
	return behind
}

// behindWhiteSpace is behindSpaces where the first pre-tokenizer cuts at white space, which goes. The steps that may be
// change characters one by one, or with marks that follow them: what the text is cut in front of stays what it is.
func behindWhiteSpace(t *Tokenizer, steps normalizers) normalizer {
	switch t.preTokenizers[0].(type) {
	case bertSplit, whitespaceSplit:
	default:
		return nil
	}
	for _, step := range steps {
		switch step.(type) {
		case bertNormalizer, lowercase, stripAccents, canonical:
		default:
			return nil
		}
	}
	return t.normalizer
}

// cutIn is where, from byte from on, a text that is taken in stretches may be cut. -1: nowhere.
func (t *Tokenizer) cutIn(e *encoder, b []byte, from int) int {
	if len(t.preTokenizers) == 0 {
		return spaceIn(b, from)
	}
	at := whitespace
	if _, ok := t.preTokenizers[0].(bertSplit); ok {
		at |= punctuation
	}
	for from < len(b) && !utf8.RuneStart(b[from]) {
		from++
	}
	for i := from; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if c := e.u.class(r); c&at != 0 && c&(normalizes|dropped) == 0 {
			return i
		}
		i += n
	}
	return -1
}

// spaceIn is where, from byte from on, b may be cut: in front of a space that begins a word. -1: nowhere.
func spaceIn(b []byte, from int) int {
	for i := from; ; i++ {
		k := bytes.IndexByte(b[i:], ' ')
		if k < 0 {
			return -1
		}
		i += k
		if i > 0 && b[i-1] != ' ' && !bytes.HasSuffix(b[:i], []byte("▁")) {
			return i
		}
	}
}
