package tokenizer

import "bytes"

// A long text of SentencePiece's kind is one piece: there is no pre-tokenizer. Where its words are known to fall apart at
// spaces it goes through in stretches, so that what is made of it on the way is not as long as the text.

// stretch is about how many bytes of a text are normalized at once, where that makes no difference.
const stretch = 1 << 20

// behindSpaces is the normalizer of what follows a cut in front of a space: t's but for what it puts in front of a text.
// It is nil where a text must not be cut so.
func behindSpaces(t *Tokenizer) normalizer {
	b, ok := t.model.(*bpe)
	if !ok || b.boundary == 0 || len(t.preTokenizers) > 0 || len(t.normalizedAdded.tokens) > 0 {
		return nil
	}
	steps, ok := t.normalizer.(normalizers)
	if !ok {
		steps = normalizers{t.normalizer}
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
