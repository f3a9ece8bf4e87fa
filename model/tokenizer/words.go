package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// wordPattern cuts a text into words the way one family of regular expressions does. They look
// ahead, which Go's regexp cannot, and all of them cover any text without a gap.
type wordPattern struct {
	foldCase   bool // contractions in any case
	openLetter bool // any character but a digit or a line break may lead a run of letters, not just a space
	maxDigits  int  // of a run of digits; 0: any number, and a space may lead it
	lineBreaks bool // line breaks end a piece: those behind symbols stay with them
}

const gpt2Pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

const llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

const qwen2Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

// knownPatterns are the expressions found in published tokenizers, by their exact text.
var knownPatterns = map[string]wordPattern{
	// GPT-2, which ByteLevel has built in
	gpt2Pattern: {},
	// LLaMA-3
	llama3Pattern: {
		foldCase: true, openLetter: true, maxDigits: 3, lineBreaks: true},
	// Qwen2
	qwen2Pattern: {
		foldCase: true, openLetter: true, maxDigits: 1, lineBreaks: true},
}

func (p *wordPattern) split(e *encoder, t text, next int) {
	for i := 0; i < len(t.b); {
		n := p.match(e, t.b[i:])
		e.run(t.slice(i, i+n), next)
		i += n
	}
}

// match is the length of the first word of b, which is not empty.
func (p *wordPattern) match(e *encoder, b []byte) int {
	if b[0] == '\'' {
		if n := p.contraction(b); n > 0 {
			return n
		}
	}
	c, n := e.classAt(b)
	after, _ := e.classAt(b[n:])
	leads := b[0] == ' '
	switch {
	case c&letter != 0:
		return n + e.runOf(b[n:], letter)
	case after&letter != 0 && (leads || p.openLetter && c&number == 0 && b[0] != '\r' && b[0] != '\n'):
		return n + e.runOf(b[n:], letter)
	case c&number != 0 && p.maxDigits == 0:
		return n + e.runOf(b[n:], number)
	case c&number != 0:
		for range p.maxDigits - 1 {
			d, k := e.classAt(b[n:])
			if d&number == 0 {
				break
			}
			n += k
		}
		return n
	case p.maxDigits == 0 && leads && after&number != 0:
		return n + e.runOf(b[n:], number)
	case c&regexSpace == 0 || leads && len(b) > 1 && after&(regexSpace|letter|number) == 0:
		for n < len(b) {
			d, k := e.classAt(b[n:])
			if d&(regexSpace|letter|number) != 0 {
				break
			}
			n += k
		}
		for p.lineBreaks && n < len(b) && (b[n] == '\r' || b[n] == '\n') {
			n++
		}
		return n
	}
	return p.space(e, b)
}

// space is the length of the piece that a run of white space starts with: up to its last line
// break where these count, else all but its last character if a word follows.
func (p *wordPattern) space(e *encoder, b []byte) int {
	n, last, breaks := 0, 0, 0
	for n < len(b) {
		d, k := e.classAt(b[n:])
		if d&regexSpace == 0 {
			break
		}
		if b[n] == '\r' || b[n] == '\n' {
			breaks = n + 1
		}
		last = n
		n += k
	}
	switch {
	case p.lineBreaks && breaks > 0:
		return breaks
	case n == len(b) || last == 0:
		return n
	}
	return last
}

// contraction is the length of 's, 't, 're, 've, 'm, 'll or 'd at the start of b, or 0.
func (p *wordPattern) contraction(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	if p.foldCase && strings.HasPrefix(string(b[1:min(3, len(b))]), "ſ") {
		return 3 // the long s folds to s
	}
	var tail [2]byte
	for i := range min(2, len(b)-1) {
		tail[i] = b[1+i]
		if p.foldCase && tail[i] >= 'A' && tail[i] <= 'Z' {
			tail[i] += 'a' - 'A'
		}
	}
	switch tail[0] {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if tail[1] == 'e' {
			return 3
		}
	case 'l':
		if tail[1] == 'l' {
			return 3
		}
	}
	return 0
}

// classAt is the class and length of the first character of b; no class at the end.
func (e *encoder) classAt(b []byte) (class, int) {
	if len(b) == 0 {
		return 0, 0
	}
	if b[0] < utf8.RuneSelf {
		return e.ascii[b[0]], 1
	}
	r, n := utf8.DecodeRune(b)
	return e.u.class(r), n
}

// runOf is the length of the run of characters with a property that b starts with.
func (e *encoder) runOf(b []byte, p class) int {
	n := 0
	for n < len(b) {
		c, k := e.classAt(b[n:])
		if c&p == 0 {
			break
		}
		n += k
	}
	return n
}
