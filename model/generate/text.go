package generate

import "strings"

// textStream is a continuation's text, released as far as no stop string can begin in it.
type textStream struct {
	decoder Decoder
	stops   []string
	longest int
	out     strings.Builder // released
	held    string          // a beginning of a stop string, maybe
	over    bool
}

func newTextStream(o Options, prompt []int64) *textStream {
	t := &textStream{stops: o.Stop}
	if o.Decode != nil {
		t.decoder = o.Decode(prompt)
	}
	for _, s := range o.Stop {
		t.longest = max(t.longest, len(s))
	}
	return t
}

func (t *textStream) String() string { return t.out.String() }

// push takes a token and returns the text it releases; stopped reports that a stop string is complete.
func (t *textStream) push(id int64) (text string, stopped bool) {
	if t.decoder == nil {
		return "", false
	}
	return t.add(t.decoder.Push(id))
}

// flush releases everything.
func (t *textStream) flush() (text string, stopped bool) {
	if t.decoder == nil || t.over {
		return "", false
	}
	text, stopped = t.add(t.decoder.Flush())
	if !stopped {
		text += t.release(len(t.held))
	}
	return text, stopped
}

func (t *textStream) add(piece string) (string, bool) {
	t.held += piece
	first := -1
	for _, stop := range t.stops {
		if i := strings.Index(t.held, stop); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	if first >= 0 {
		t.over = true
		return t.release(first), true
	}
	return t.release(len(t.held) - t.pending()), false
}

// pending is how much at the end of the held text may be the beginning of a stop string.
func (t *textStream) pending() int {
	for n := min(len(t.held), t.longest-1); n > 0; n-- {
		end := t.held[len(t.held)-n:]
		for _, stop := range t.stops {
			if strings.HasPrefix(stop, end) {
				return n
			}
		}
	}
	return 0
}

func (t *textStream) release(n int) string {
	text := t.held[:n]
	t.held = t.held[n:]
	t.out.WriteString(text)
	return text
}
