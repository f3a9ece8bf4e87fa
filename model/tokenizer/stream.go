package tokenizer

import "unicode/utf8"

// Stream decodes ids one at a time, without the special tokens. What its calls return, put
// together, is what Decode would have said of all the ids; it is not for concurrent use.
type Stream struct {
	t       *Tokenizer
	ids     []int64 // the last ids, the first of them for context alone
	context int     // how many ids of that have been returned as text
	shown   string  // the text of the context
	raw     []byte  // the bytes held back, or of the run of byte tokens at the end
}

// maxHeld is the number of byte tokens at which a character must be complete.
const maxHeld = utf8.UTFMax

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
	s.ids = append(s.ids, id)
	token, _ := s.t.IDToToken(id)
	if b, ok := byteToken(token); ok && s.t.byteFallback {
		s.raw = append(s.raw, b)
		if unfinished(s.raw) > 0 && len(s.ids)-s.context < maxHeld {
			return ""
		}
	} else {
		s.raw = s.raw[:0]
	}
	return s.show(s.t.Decode(s.ids, true))
}

// Flush returns what was held back, with U+FFFD for a character that was cut short. The stream
// starts afresh.
func (s *Stream) Flush() string {
	last := ""
	if s.t.rawTokens != nil {
		last = lossy(s.raw)
	}
	if len(s.ids) > s.context {
		last = s.show(s.t.Decode(s.ids, true))
	}
	*s = Stream{t: s.t}
	return last
}

// show returns what all has beyond the context, and makes what was new the context.
func (s *Stream) show(all string) string {
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
	fresh := all[n:]
	s.ids = append(s.ids[:0], s.ids[s.context:]...)
	s.context = len(s.ids)
	s.shown = s.t.Decode(s.ids, true)
	return fresh
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
