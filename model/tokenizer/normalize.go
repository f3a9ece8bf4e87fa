package tokenizer

import (
	"slices"
	"unicode/utf8"
)

// normalizer rewrites a text, keeping track of where its characters came from.
type normalizer interface {
	normalize(e *encoder, t text) text
}

type (
	normalizers  []normalizer
	prepender    struct{ prefix string }
	replacer     struct{ old, with string }
	stripper     struct{ left, right bool }
	lowercase    struct{}
	stripAccents struct{}
	canonical    struct{ compose bool } // NFD, or NFC
	// bertNormalizer is BERT's own: clean the text, put spaces around Chinese characters, strip
	// accents, lowercase.
	bertNormalizer struct{ clean, chinese, accents, lower bool }
)

func (s normalizers) normalize(e *encoder, t text) text {
	for _, n := range s {
		t = n.normalize(e, t)
	}
	return t
}

func (n prepender) normalize(e *encoder, t text) text { return e.prepend(t, n.prefix) }

func (n replacer) normalize(e *encoder, t text) text { return e.replace(t, n.old, n.with) }

func (n stripper) normalize(e *encoder, t text) text {
	from, to := 0, len(t.b)
	for n.left && from < to {
		r, size := utf8.DecodeRune(t.b[from:])
		if e.u.class(r)&whitespace == 0 {
			break
		}
		from += size
	}
	for n.right && from < to {
		r, size := utf8.DecodeLastRune(t.b[:to])
		if e.u.class(r)&whitespace == 0 {
			break
		}
		to -= size
	}
	return t.slice(from, to)
}

func (lowercase) normalize(e *encoder, t text) text { return e.mapped(t, 0, true) }

func (stripAccents) normalize(e *encoder, t text) text { return e.mapped(t, mark, false) }

func (n canonical) normalize(e *encoder, t text) text {
	if !e.has(t, normalizes) {
		return t
	}
	e.changes = e.decompose(e.changes[:0], t.b)
	if n.compose {
		e.changes = e.compose(e.changes)
	}
	return e.apply(t, e.changes)
}

func (n bertNormalizer) normalize(e *encoder, t text) text {
	if n.clean || n.chinese {
		t = e.cleaned(t, n.clean, n.chinese)
	}
	var drop class
	if n.accents {
		t = canonical{}.normalize(e, t)
		drop = nonspacing
	}
	if n.accents || n.lower {
		t = e.mapped(t, drop, n.lower)
	}
	return t
}

// has tells whether a character of t has the property.
func (e *encoder) has(t text, p class) bool {
	for i := 0; i < len(t.b); {
		if t.b[i] < utf8.RuneSelf {
			if e.ascii[t.b[i]]&p != 0 {
				return true
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(t.b[i:])
		if e.u.class(r)&p != 0 {
			return true
		}
		i += n
	}
	return false
}

// cleaned drops control characters and turns white space into spaces, and puts spaces around
// Chinese characters.
func (e *encoder) cleaned(t text, clean, chinese bool) text {
	if e.clean(t, clean, chinese) {
		return t
	}
	w := e.buffer(len(t.b))
	for i := 0; i < len(t.b); {
		r, n := rune(t.b[i]), 1
		c := class(0)
		if r < utf8.RuneSelf {
			c = e.ascii[r]
		} else {
			r, n = utf8.DecodeRune(t.b[i:])
			c = e.u.class(r)
		}
		at := t.span(i, n)
		i += n
		if clean && c&(dropped|whitespace) != 0 {
			if c&dropped != 0 {
				continue
			}
			r = ' '
		}
		if chinese && isChinese(r) {
			w.put(' ', at)
			w.put(r, at)
			w.put(' ', at)
			continue
		}
		w.put(r, at)
	}
	return w.text(t)
}

// clean tells that cleaned would change nothing.
func (e *encoder) clean(t text, clean, chinese bool) bool {
	for i := 0; i < len(t.b); {
		r, n := rune(t.b[i]), 1
		c := class(0)
		if r < utf8.RuneSelf {
			c = e.ascii[r]
		} else {
			r, n = utf8.DecodeRune(t.b[i:])
			c = e.u.class(r)
		}
		if clean && r != ' ' && c&(dropped|whitespace) != 0 || chinese && isChinese(r) {
			return false
		}
		i += n
	}
	return true
}

// mapped drops the characters that have a property, and lowercases the rest if asked.
func (e *encoder) mapped(t text, drop class, lower bool) text {
	skip := drop
	if lower {
		skip |= lowers
	}
	if !e.has(t, skip) {
		return t
	}
	w := e.buffer(len(t.b))
	for i := 0; i < len(t.b); {
		r, n := rune(t.b[i]), 1
		c := class(0)
		if r < utf8.RuneSelf {
			c = e.ascii[r]
		} else {
			r, n = utf8.DecodeRune(t.b[i:])
			c = e.u.class(r)
		}
		at := t.span(i, n)
		i += n
		if c&drop != 0 {
			continue
		}
		if lower && c&lowers != 0 {
			if r == 'İ' { // the one that becomes two
				w.put('i', at)
				w.put('\u0307', at)
				continue
			}
			r = e.u.lower[r]
		}
		w.put(r, at)
	}
	return w.text(t)
}

// decompose appends the canonical decomposition of b in canonical order. What a character
// decomposes to is one replacement and insertions; the order may move these apart, as it does
// in the library whose offsets are the measure.
func (e *encoder) decompose(dst []change, b []byte) []change {
	pending := len(dst) // the characters from here on are not sorted yet
	sorted := func() {
		if len(dst)-pending > 1 {
			slices.SortStableFunc(dst[pending:], func(a, b change) int {
				return int(e.u.combining[a.r]) - int(e.u.combining[b.r])
			})
		}
		pending = len(dst)
	}
	var buf [8]rune
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		i += n
		if e.u.class(r)&normalizes == 0 {
			sorted()
			dst = append(dst, change{r: r})
			pending = len(dst)
			continue
		}
		for k, d := range e.u.appendDecomposed(buf[:0], r) {
			if e.u.combining[d] == 0 {
				sorted()
			}
			dst = append(dst, change{d, int32(min(k, 1))})
			if e.u.combining[d] == 0 {
				pending = len(dst)
			}
		}
	}
	sorted()
	return dst
}

// compose composes a decomposed text in place (The Unicode Standard, section 3.11, D117). The
// starter takes over what its marks replaced.
func (e *encoder) compose(in []change) []change {
	out := in[:0]
	starter := -1     // index in out of the character that may compose
	var blocked uint8 // the class of the last mark kept behind it; 0 for none
	kept := false
	for _, c := range in {
		k := e.u.combining[c.r]
		if starter >= 0 && (!kept || blocked < k) {
			if r, ok := e.u.composed(out[starter].r, c.r); ok {
				out[starter].r = r
				out[starter].n += c.n - 1
				continue
			}
		}
		out = append(out, c)
		switch {
		case k == 0:
			starter, kept = len(out)-1, false
		case starter >= 0:
			blocked, kept = k, true
		}
	}
	return out
}
