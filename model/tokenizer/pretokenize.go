package tokenizer

import (
	"bytes"
	"unicode/utf8"
)

// preTokenizer cuts a text into the pieces that the model sees one at a time. It hands each to
// e.run with next, the number of the pre-tokenizer that follows.
type preTokenizer interface {
	split(e *encoder, t text, next int)
}

type (
	bertSplit       struct{} // at white space, which goes, and around punctuation
	whitespaceSplit struct{} // at white space, which goes
	digits          struct{ individual bool }
	metaspace       struct {
		replacement string
		prefix      prefixScheme
		cut         bool // a piece per word, each with its leading replacement
	}
	// byteLevel feeds a model whose symbols are bytes. It is the last of its kind in a sequence:
	// the model reads the bytes as they are, without the detour over printable characters.
	byteLevel struct {
		prefixSpace bool
		words       *wordPattern // nil: one piece
	}
	regexSplit struct{ words *wordPattern }
)

type prefixScheme uint8

const (
	prefixNever prefixScheme = iota
	prefixFirst
	prefixAlways
)

func (bertSplit) split(e *encoder, t text, next int) {
	from := 0
	for i := 0; i < len(t.b); {
		r, n := rune(t.b[i]), 1
		c := class(0)
		if r < utf8.RuneSelf {
			c = e.ascii[r]
		} else {
			r, n = utf8.DecodeRune(t.b[i:])
			c = e.u.class(r)
		}
		if c&(whitespace|punctuation) == 0 {
			i += n
			continue
		}
		if from < i {
			e.run(t.slice(from, i), next)
		}
		if c&whitespace == 0 {
			e.run(t.slice(i, i+n), next)
		}
		i += n
		from = i
	}
	if from < len(t.b) {
		e.run(t.slice(from, len(t.b)), next)
	}
}

func (whitespaceSplit) split(e *encoder, t text, next int) {
	from := 0
	for i := 0; i < len(t.b); {
		r, n := utf8.DecodeRune(t.b[i:])
		if e.u.class(r)&whitespace != 0 {
			if from < i {
				e.run(t.slice(from, i), next)
			}
			from = i + n
		}
		i += n
	}
	if from < len(t.b) {
		e.run(t.slice(from, len(t.b)), next)
	}
}

func (d digits) split(e *encoder, t text, next int) {
	from := 0
	within := false // whether the characters since from are digits
	for i := 0; i < len(t.b); {
		r, n := rune(t.b[i]), 1
		c := class(0)
		if r < utf8.RuneSelf {
			c = e.ascii[r]
		} else {
			r, n = utf8.DecodeRune(t.b[i:])
			c = e.u.class(r)
		}
		digit := c&numeric != 0
		if from < i && (digit != within || digit && d.individual) {
			e.run(t.slice(from, i), next)
			from = i
		}
		within = digit
		i += n
	}
	if from < len(t.b) {
		e.run(t.slice(from, len(t.b)), next)
	}
}

func (m metaspace) split(e *encoder, t text, next int) {
	// The library asks for the offset before it replaces anything.
	first := t.start() == 0
	t = e.replace(t, " ", m.replacement)
	if m.prefix == prefixAlways || m.prefix == prefixFirst && first {
		if !bytes.HasPrefix(t.b, []byte(m.replacement)) {
			t = e.prepend(t, m.replacement)
		}
	}
	from := 0
	for m.cut {
		k := bytes.Index(t.b[from+1:], []byte(m.replacement))
		if k < 0 {
			break
		}
		e.run(t.slice(from, from+1+k), next)
		from += 1 + k
	}
	e.run(t.slice(from, len(t.b)), next)
}

func (l byteLevel) split(e *encoder, t text, next int) {
	if l.prefixSpace && t.b[0] != ' ' {
		t = e.prepend(t, " ")
	}
	if l.words == nil {
		e.run(t, next)
		return
	}
	l.words.split(e, t, next)
}

func (s regexSplit) split(e *encoder, t text, next int) { s.words.split(e, t, next) }
