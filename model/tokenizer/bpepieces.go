package tokenizer

import (
	"slices"
	"unicode/utf8"
)

const (
	// longWord is the number of bytes above which a word is encoded in pieces.
	longWord = 1 << 17
	// loose is how many tokens at the end of a piece are left to the next one: what follows may change them.
	loose = 8
	// tries is how often an earlier end is tried where a piece's end does not hold.
	tries = 4
)

// pieces adds the tokens that a long word has as a whole, and needs memory for a piece of about size bytes of it only.
//
// Let a word be cut into parts that are encoded by themselves, such that at every cut the last token x of the part before
// it and the first token y of the part behind it are the encoding of the word xy. Then the parts' tokens are the word's:
// consider the first merge that would go across a cut. Until then the symbols of x and y were merged as they are in the
// word xy, in the same order, because nothing has joined them with what lies on their other sides. So this merge would
// happen in the word xy too, which stays two tokens.
//
// A part is what the tokens of a piece cover but for the last ones. Where a cut does not hold an earlier one is tried.
// If none is found, the word has to be encoded at once: nothing is added then, and done is false.
func (b *bpe) pieces(e *encoder, t text, size int) (done bool, err error) {
	ids, spans, margins := len(e.ids), len(e.spans), len(e.margins)
	defer func() {
		if !done {
			e.ids = e.ids[:ids]
			if e.offsets {
				e.spans, e.margins = e.spans[:spans], e.margins[:min(margins, len(e.margins))]
			}
		}
	}()
	var part, next []subword // part ends where next begins, at byte at; its tokens wait until that is known to hold
	begin, at := 0, 0
	for failed := 0; ; {
		end := min(at+size, len(t.b))
		for end < len(t.b) && !utf8.RuneStart(t.b[end]) && !(b.byteMode && b.allBytes) {
			end--
		}
		if err := b.encode(e, t.b[at:end]); err != nil {
			return false, err
		}
		next = append(next[:0], e.subs...)
		kept := len(next)
		if end < len(t.b) {
			kept -= loose
		}
		if kept < 1 {
			return false, nil
		}
		if len(part) > 0 {
			holds, err := b.apart(e, t.b[:at], t.b[at:], part[len(part)-1], next[0])
			if err != nil {
				return false, err
			}
			if !holds {
				if failed++; failed > tries || len(part) <= loose {
					return false, nil
				}
				at -= width(part[len(part)-loose:])
				part = part[:len(part)-loose]
				continue
			}
		}
		if !e.full() { // what is not wanted any more shows whether the cuts hold
			e.addWord(t, begin, part)
		}
		part, next = append(part[:0], next[:kept]...), next[:0]
		begin, at, failed = at, at+width(part), 0
		if end == len(t.b) {
			if !e.full() {
				e.addWord(t, begin, part)
			}
			return true, nil
		}
	}
}

// apart reports whether x, at the end of before, and y, at the beginning of behind, are the tokens of the word of both.
func (b *bpe) apart(e *encoder, before, behind []byte, x, y subword) (bool, error) {
	word := slices.Concat(before[len(before)-int(x.n):], behind[:y.n])
	err := b.encode(e, word)
	return len(e.subs) == 2 && e.subs[0] == x && e.subs[1] == y, err
}

// width is how many bytes tokens stand for.
func width(subs []subword) (n int) {
	for _, s := range subs {
		n += int(s.n)
	}
	return n
}
