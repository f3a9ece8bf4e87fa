package tokenizer

import (
	"fmt"
	"unicode/utf8"
)

// model turns a piece of text into tokens, which it adds to e.
type model interface {
	tokenize(e *encoder, t text) error
}

// encoder is the working memory of one encoding at a time; a Tokenizer keeps them in a pool.
type encoder struct {
	tok   *Tokenizer
	u     *unicodeData
	ascii [utf8.RuneSelf]class // a copy of the first classes, for the common case

	ids     []int64
	spans   []span // of every id, where offsets are asked for
	margins []margin
	offsets bool
	limit   int // stop after so many tokens; 0: never
	err     error

	buffers []*buffer // output of transformations, reused from segment to segment
	used    int
	changes []change
	subs    []subword
	links   []link
	pairs   pairQueue
	cache   wordCache
	input   []byte // never written to: it may be the caller's string
}

// margin counts the white space at the ends of a token, for those tokenizers that leave it out
// of the offsets.
type margin struct{ lead, trail int32 }

// keep is the capacity, in elements, up to which a buffer is kept for the next text.
const keep = 1 << 20

func newEncoder(t *Tokenizer) *encoder {
	e := &encoder{tok: t, u: unicodeTables()}
	for i := range e.ascii {
		e.ascii[i] = e.u.class(rune(i))
	}
	return e
}

// release drops the large buffers that a very long text needed.
func (e *encoder) release() {
	for i, b := range e.buffers {
		if cap(b.b) > keep || cap(b.align) > keep {
			e.buffers[i] = &buffer{}
		}
	}
	if cap(e.changes) > keep {
		e.changes = nil
	}
	if cap(e.subs) > keep {
		e.subs = nil
	}
	if cap(e.links) > keep {
		e.links = nil
	}
	if e.pairs.most > keep {
		e.pairs = pairQueue{}
	}
	e.input = nil
	if cap(e.ids) > keep || cap(e.spans) > keep || cap(e.margins) > keep {
		e.ids, e.spans, e.margins = nil, nil, nil
	}
	e.err = nil
}

// buffer is an empty buffer with room for n bytes.
func (e *encoder) buffer(n int) *buffer {
	if e.used == len(e.buffers) {
		e.buffers = append(e.buffers, &buffer{})
	}
	w := e.buffers[e.used]
	e.used++
	w.aligned, w.same = e.offsets, true
	w.b, w.align = w.b[:0], w.align[:0]
	if cap(w.b) < n {
		w.b = make([]byte, 0, n+n/8)
	}
	return w
}

// full tells that no more tokens are wanted.
func (e *encoder) full() bool {
	return e.err != nil || e.limit > 0 && len(e.ids) >= e.limit
}

// encode turns e.input, valid UTF-8, into tokens without any template.
func (e *encoder) encode() error {
	e.ids, e.spans, e.margins, e.err = e.ids[:0], e.spans[:0], e.margins[:0], nil
	t := e.tok
	whole := text{b: e.input}
	t.rawAdded.split(e, whole, func(piece text) {
		normalizer := t.normalizer
		if t.behind != nil {
			for len(piece.b) > stretch && !e.full() {
				cut := t.cutIn(e, piece.b, stretch)
				if cut < 0 {
					break
				}
				e.used = 0
				e.run(normalizer.normalize(e, piece.slice(0, cut)), 0)
				piece, normalizer = piece.slice(cut, len(piece.b)), t.behind
			}
		}
		if e.full() {
			return
		}
		e.used = 0
		if normalizer != nil {
			piece = normalizer.normalize(e, piece)
		}
		if len(t.normalizedAdded.tokens) == 0 {
			e.run(piece, 0)
			return
		}
		t.normalizedAdded.split(e, piece, func(piece text) {
			used := e.used
			e.run(piece, 0)
			e.used = used
		})
	})
	return e.err
}

// run takes a piece through the pre-tokenizers from number i on, and to the model.
func (e *encoder) run(t text, i int) {
	if len(t.b) == 0 || e.full() {
		return
	}
	if i < len(e.tok.preTokenizers) {
		used := e.used
		e.tok.preTokenizers[i].split(e, t, i+1)
		e.used = used
		return
	}
	used := e.used
	e.err = e.tok.model.tokenize(e, t)
	e.used = used
}

// addWord adds the tokens of a word, or of a part of it, which begins at byte from.
func (e *encoder) addWord(t text, from int, subs []subword) {
	for _, s := range subs {
		e.ids = append(e.ids, int64(s.id))
		if e.offsets {
			e.spans = append(e.spans, t.part(from, from+int(s.n)))
			if e.tok.margins != nil {
				e.margins = append(e.margins, e.tok.margins[s.id])
			}
			from += int(s.n)
		}
	}
}

// addWhole adds one token for all of t.
func (e *encoder) addWhole(t text, id int32) {
	e.ids = append(e.ids, int64(id))
	if e.offsets {
		e.spans = append(e.spans, t.cover(0, len(t.b)))
		if e.tok.margins != nil {
			e.margins = append(e.margins, marginOf(string(t.b)))
		}
	}
}

// marginOf counts the white space around s, as text or as byte-level vocabularies write it.
func marginOf(s string) margin {
	u := unicodeTables()
	space := byteChars()[' ']
	var m margin
	inside := false
	for _, r := range s {
		if r == space || u.class(r)&whitespace != 0 {
			m.trail++
			if !inside {
				m.lead++
			}
			continue
		}
		inside = true
		m.trail = 0
	}
	return m
}

func errUnknown(unk, piece string) error {
	if len(piece) > 20 {
		piece = piece[:20] + "..."
	}
	return fmt.Errorf("no token for %q, and the unknown token %q is not in the vocabulary", piece, unk)
}
