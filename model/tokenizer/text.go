package tokenizer

import (
	"bytes"
	"unicode/utf8"
)

// span is a range of bytes of the original text.
type span struct{ start, end int32 }

// text is a piece of input on its way through normalization and pre-tokenization: its bytes as
// they are by now, and where each byte comes from. All of it is valid UTF-8, cut between
// characters, and all bytes of a character share one span.
type text struct {
	b     []byte
	align []span // of every byte of b; nil where b still is the original text from base on
	base  int32
	// Without align: so many bytes were put in front, and come from where the first character does.
	lead  int32
	first span
}

// span is where the character of n bytes at offset i of t comes from.
func (t text) span(i, n int) span {
	if t.align != nil {
		return t.align[i]
	}
	if i < int(t.lead) {
		return t.first
	}
	at := t.base + int32(i) - t.lead
	return span{at, at + int32(n)}
}

// start is the original offset of the first byte of a text that is not empty.
func (t text) start() int32 {
	if t.align != nil {
		return t.align[0].start
	}
	if t.lead > 0 {
		return t.first.start
	}
	return t.base
}

// slice is t[i:j], both between characters.
func (t text) slice(i, j int) text {
	if t.align != nil {
		return text{b: t.b[i:j], align: t.align[i:j]}
	}
	if i < int(t.lead) {
		return text{b: t.b[i:j], base: t.base, lead: int32(min(int(t.lead), j) - i), first: t.first}
	}
	return text{b: t.b[i:j], base: t.base + int32(i) - t.lead}
}

// cover is the original range of the characters that t[i:j] has a byte of.
func (t text) cover(i, j int) span {
	if t.align != nil {
		return span{t.align[i].start, t.align[j-1].end}
	}
	for i > 0 && !utf8.RuneStart(t.b[i]) {
		i--
	}
	for j < len(t.b) && !utf8.RuneStart(t.b[j]) {
		j++
	}
	return span{t.span(i, 1).start, t.span(j-1, 1).end}
}

// part is cover of as much of t[i:j] as there is: the bytes of a suffix are tokens beyond the end, which cover nothing.
func (t text) part(i, j int) span {
	n := len(t.b)
	if j <= n && i < j {
		return t.cover(i, j)
	}
	if i >= n && n > 0 {
		end := t.cover(n-1, n).end
		return span{end, end}
	}
	if i >= n {
		return span{t.base, t.base}
	}
	return t.cover(i, n)
}

// buffer collects the output of one transformation of a text. The spans are kept only where
// somebody will ask for offsets, and only once they are not those of a text in its place.
type buffer struct {
	b       []byte
	align   []span
	aligned bool
	same    bool // every character so far is as long as where it comes from, and these are side by side from base on
	base    int32
}

func (w *buffer) put(r rune, at span) {
	n := len(w.b)
	w.b = utf8.AppendRune(w.b, r)
	if !w.aligned {
		return
	}
	if w.same {
		if n == 0 {
			w.base = at.start
		}
		if at == (span{w.base + int32(n), w.base + int32(len(w.b))}) {
			return
		}
		w.spell(n)
	}
	for range len(w.b) - n {
		w.align = append(w.align, at)
	}
}

// spell writes down the spans of the first n bytes, which are those of a text in its place.
func (w *buffer) spell(n int) {
	w.same = false
	if cap(w.align) < cap(w.b) {
		w.align = make([]span, 0, cap(w.b))
	}
	for i := 0; i < n; {
		_, size := utf8.DecodeRune(w.b[i:])
		at := span{w.base + int32(i), w.base + int32(i+size)}
		for range size {
			w.align = append(w.align, at)
		}
		i += size
	}
}

// copy appends t[i:j] as it is.
func (w *buffer) copy(t text, i, j int) {
	n := len(w.b)
	w.b = append(w.b, t.b[i:j]...)
	if !w.aligned || i == j {
		return
	}
	if w.same {
		if n == 0 {
			w.base = t.base + int32(i)
		}
		if t.align == nil && t.lead == 0 && w.base+int32(n) == t.base+int32(i) {
			return
		}
		w.spell(n)
	}
	if t.align != nil {
		w.align = append(w.align, t.align[i:j]...)
		return
	}
	for i < j {
		_, n := utf8.DecodeRune(t.b[i:])
		for range n {
			w.align = append(w.align, t.span(i, n))
		}
		i += n
	}
}

// text is what was written, standing for t.
func (w *buffer) text(t text) text {
	if w.aligned && !w.same {
		return text{b: w.b, align: w.align}
	}
	if w.aligned && len(w.b) > 0 {
		return text{b: w.b, base: w.base}
	}
	return text{b: w.b, base: t.base}
}

// change is one character of a transformed text and how it relates to the text before:
// 0 replaces one character, 1 is inserted after what was consumed so far,
// -n replaces one character and swallows the n after it.
type change struct {
	r rune
	n int32
}

// apply rewrites t by changes that cover all of it. An inserted character comes from where the
// character consumed before it came from; a swallowed one leaves no trace.
func (e *encoder) apply(t text, changes []change) text {
	w := e.buffer(len(t.b))
	if !w.aligned {
		for _, c := range changes {
			w.b = utf8.AppendRune(w.b, c.r)
		}
		return w.text(t)
	}
	i := 0
	last := span{t.base, t.base}
	for _, c := range changes {
		for k := c.n; k <= 0; k++ {
			_, n := utf8.DecodeRune(t.b[i:])
			at := t.span(i, n)
			if k == c.n {
				w.put(c.r, at)
			}
			last = at
			i += n
		}
		if c.n > 0 {
			w.put(c.r, last)
		}
	}
	return w.text(t)
}

// prepend puts s in front of t, coming from where t's first character does.
func (e *encoder) prepend(t text, s string) text {
	if len(t.b) == 0 || s == "" {
		return t
	}
	w := e.buffer(len(t.b) + len(s))
	_, n := utf8.DecodeRune(t.b)
	at := t.span(0, n)
	if t.align == nil && t.lead == 0 {
		w.b = append(append(w.b, s...), t.b...)
		return text{b: w.b, base: t.base, lead: int32(len(s)), first: at}
	}
	for _, r := range s {
		w.put(r, at)
	}
	w.copy(t, 0, len(t.b))
	return w.text(t)
}

// replace puts with in place of every old, coming from where the last character of old does.
func (e *encoder) replace(t text, old, with string) text {
	if old == "" || !bytes.Contains(t.b, []byte(old)) {
		return t
	}
	w := e.buffer(len(t.b) + len(t.b)/4*max(1, len(with)-len(old)))
	_, lastLen := utf8.DecodeLastRuneInString(old)
	i := 0
	for {
		k := bytes.Index(t.b[i:], []byte(old))
		if k < 0 {
			break
		}
		w.copy(t, i, i+k)
		i += k + len(old)
		at := t.span(i-lastLen, lastLen)
		for _, r := range with {
			w.put(r, at)
		}
	}
	w.copy(t, i, len(t.b))
	return w.text(t)
}
