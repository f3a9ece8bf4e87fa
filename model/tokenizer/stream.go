package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// Stream decodes ids one at a time, without the special tokens; it is not for concurrent use.
//
// What its calls return, put together, is what Decode would have said of all the ids, but where
// that depends on what comes later: text once returned stays. So a Stream does not tidy text up,
// and of a run of byte tokens that in the end is not UTF-8 the characters before the first wrong
// byte stay, while Decode makes every byte of the run a U+FFFD.
type Stream struct {
	t       *Tokenizer
	ids     []int64 // the last ids, the first of them for context alone
	context int     // how many ids of that have been returned as text
	shown   string  // the text of the context
	held    []int64 // the byte tokens of an unfinished character
	raw     []byte  // its bytes
	broken  bool    // the run of byte tokens at the end is not UTF-8
}

// NewStream starts an incremental decoding.
func (t *Tokenizer) NewStream() *Stream { return &Stream{t: t} }

// Push takes the next id and returns the text that is certain by now, often that of the id. The
// first bytes of a character are held back until its last.
func (s *Stream) Push(id int64) string {
	if s.t.special[id] {
		return ""
	}
	if s.t.rawTokens != nil {
		if id >= 0 && id < int64(len(s.t.rawTokens)) {
			s.raw = append(s.raw, s.t.rawTokens[id]...)
		}
		whole := len(s.raw) - unfinished(s.raw)
		text := lossy(s.raw[:whole])
		s.raw = append(s.raw[:0], s.raw[whole:]...)
		return text
	}
	token, ok := s.t.IDToToken(id)
	if !ok {
		return ""
	}
	if b, ok := byteToken(token); ok && s.t.byteFallback {
		return s.pushByte(id, b)
	}
	lost := s.giveUp()
	s.broken = false
	s.ids = append(s.ids, id)
	return lost + s.show()
}

// pushByte takes a byte token.
func (s *Stream) pushByte(id int64, b byte) string {
	s.held, s.raw = append(s.held, id), append(s.raw, b)
	if !s.broken && !utf8.FullRune(s.raw) {
		return ""
	}
	if r, n := utf8.DecodeRune(s.raw); s.broken || r == utf8.RuneError && n == 1 {
		s.broken = true
		return s.giveUp()
	}
	s.ids = append(s.ids, s.held...)
	s.held, s.raw = s.held[:0], s.raw[:0]
	return s.show()
}

// giveUp returns a U+FFFD for every byte token held back. They are the context of what follows.
func (s *Stream) giveUp() string {
	if len(s.held) == 0 {
		return ""
	}
	lost := strings.Repeat("\uFFFD", len(s.held))
	s.ids = append(s.ids[:0], s.held...)
	s.keep()
	s.held, s.raw = s.held[:0], s.raw[:0]
	return lost
}

// Flush returns what was held back, with U+FFFD for a character that was cut short. The stream
// starts afresh.
func (s *Stream) Flush() string {
	last := s.giveUp()
	if s.t.rawTokens != nil {
		last = lossy(s.raw)
	}
	*s = Stream{t: s.t}
	return last
}

// show returns what the ids say beyond the context, and makes what was new the context.
func (s *Stream) show() string {
	all := s.t.decode(s.ids, true)
	n := 0
	for n < len(all) && n < len(s.shown) && all[n] == s.shown[n] {
		n++
	}
	if n < len(s.shown) {
		// The new ids have changed what the old ones say: only what was said can be kept. Cut
		// between characters.
		n = min(len(s.shown), len(all))
		for n > 0 && n < len(all) && !utf8.RuneStart(all[n]) {
			n--
		}
	}
	s.ids = append(s.ids[:0], s.ids[s.context:]...)
	s.keep()
	return all[n:]
}

// keep makes the ids the context of what follows.
func (s *Stream) keep() {
	s.context = len(s.ids)
	s.shown = s.t.decode(s.ids, true)
}

// unfinished is the number of bytes at the end of b that the start of a character is made of.
func unfinished(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		tail := b[len(b)-n:]
		if utf8.RuneStart(tail[0]) {
			if !utf8.FullRune(tail) {
				return n
			}
			return 0
		}
	}
	return 0
}
