package tokenizer

import (
	"strconv"
	"strings"
	"unicode/utf8"

	sugarme "github.com/sugarme/tokenizer"
)

// Decode is the text of some ids, without the special tokens if asked. An id outside the
// vocabulary has no text. Bytes that do not make up UTF-8 come out as U+FFFD. Where the
// tokenizer's configuration asks for it, the text is tidied up: spaces go that stand in front of
// English punctuation.
func (t *Tokenizer) Decode(ids []int64, skipSpecial bool) string {
	text := t.decode(ids, skipSpecial)
	if t.tidy {
		return tidied(text)
	}
	return text
}

// untidy is what clean_up_tokenization_spaces replaces, in this order.
var untidy = [][2]string{
	{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"},
	{" 're", "'re"},
}

func tidied(text string) string {
	for _, r := range untidy {
		text = strings.ReplaceAll(text, r[0], r[1])
	}
	return text
}

// decode is the text of some ids as the decoder gives it.
func (t *Tokenizer) decode(ids []int64, skipSpecial bool) string {
	if t.rawTokens != nil {
		var raw []byte
		for _, id := range ids {
			if id >= 0 && id < int64(len(t.rawTokens)) && !(skipSpecial && t.special[id]) {
				raw = append(raw, t.rawTokens[id]...)
			}
		}
		return lossy(raw)
	}
	tokens := make([]string, 0, len(ids))
	for _, id := range ids {
		if token, ok := t.IDToToken(id); ok && !(skipSpecial && t.special[id]) {
			tokens = append(tokens, token)
		}
	}
	if len(tokens) == 0 {
		return ""
	}
	if t.decoder == nil {
		return strings.Join(tokens, " ")
	}
	return t.decoder.Decode(tokens)
}

// lossy is b as text, every maximal invalid stretch that starts like a character replaced by one
// U+FFFD (The Unicode Standard, section 3.9, the practice that Rust follows).
func lossy(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			n = badPrefix(b)
		}
		out.WriteRune(r)
		b = b[n:]
	}
	return out.String()
}

// badPrefix is the length of the longest start of a character, at least one byte, at the start
// of b, which does not start with a whole one.
func badPrefix(b []byte) int {
	need, low, high := 0, byte(0x80), byte(0xBF)
	switch c := b[0]; {
	case c >= 0xC2 && c <= 0xDF:
		need = 1
	case c >= 0xE0 && c <= 0xEF:
		need = 2
		switch c {
		case 0xE0:
			low = 0xA0
		case 0xED:
			high = 0x9F
		}
	case c >= 0xF0 && c <= 0xF4:
		need = 3
		switch c {
		case 0xF0:
			low = 0x90
		case 0xF4:
			high = 0x8F
		}
	}
	n := 1
	for n <= need && n < len(b) && b[n] >= low && b[n] <= high {
		n++
		low, high = 0x80, 0xBF
	}
	return n
}

// The decoders here stand in for those of the sugarme package that do not do: its ByteLevel makes NUL of a character
// outside its alphabet and leaves bad UTF-8 in the text, its ByteFallback and Strip panic on tokens like <0xZZ> and on
// short ones, and its Replace compiles a regular expression for every token. All implement its interface: DecodeChain
// rewrites tokens, Decode joins them.
type (
	byteLevelDecoder    struct{}
	byteFallbackDecoder struct{}
	replaceDecoder      struct{ old, with string }
	stripDecoder        struct {
		char        string
		start, stop int
	}
)

var (
	_ sugarme.Decoder = byteLevelDecoder{}
	_ sugarme.Decoder = byteFallbackDecoder{}
	_ sugarme.Decoder = replaceDecoder{}
	_ sugarme.Decoder = stripDecoder{}
)

func (d byteLevelDecoder) Decode(tokens []string) string {
	return strings.Join(d.DecodeChain(tokens), "")
}

func (byteLevelDecoder) DecodeChain(tokens []string) []string {
	var all []byte
	for _, token := range tokens {
		if raw, ok := rawBytes(token); ok {
			token = raw
		}
		all = append(all, token...)
	}
	return []string{lossy(all)}
}

func (d byteFallbackDecoder) Decode(tokens []string) string {
	return strings.Join(d.DecodeChain(tokens), "")
}

// DecodeChain turns runs of byte tokens, <0x00> to <0xFF>, into text; if a run is not UTF-8,
// each of its bytes becomes a U+FFFD.
func (byteFallbackDecoder) DecodeChain(tokens []string) []string {
	out := make([]string, 0, len(tokens))
	var run []byte
	flush := func() {
		if utf8.Valid(run) {
			if len(run) > 0 {
				out = append(out, string(run))
			}
		} else {
			for range run {
				out = append(out, "\uFFFD")
			}
		}
		run = run[:0]
	}
	for _, token := range tokens {
		if b, ok := byteToken(token); ok {
			run = append(run, b)
			continue
		}
		flush()
		out = append(out, token)
	}
	flush()
	return out
}

// byteToken is the byte that a token like <0x0A> stands for.
func byteToken(token string) (byte, bool) {
	if len(token) != 6 || token[:3] != "<0x" || token[5] != '>' {
		return 0, false
	}
	hex := token[3:5]
	if hex[0] == '+' { // Rust's number parser, which the library uses, lets a sign pass
		hex = hex[1:]
	}
	b, err := strconv.ParseUint(hex, 16, 8)
	return byte(b), err == nil
}

func (d replaceDecoder) Decode(tokens []string) string {
	return strings.Join(d.DecodeChain(tokens), "")
}

func (d replaceDecoder) DecodeChain(tokens []string) []string {
	if d.old == "" {
		return tokens
	}
	out := make([]string, len(tokens))
	for i, token := range tokens {
		out[i] = strings.ReplaceAll(token, d.old, d.with)
	}
	return out
}

func (d stripDecoder) Decode(tokens []string) string {
	return strings.Join(d.DecodeChain(tokens), "")
}

func (d stripDecoder) DecodeChain(tokens []string) []string {
	out := make([]string, len(tokens))
	for i, token := range tokens {
		for range d.start {
			rest, ok := strings.CutPrefix(token, d.char)
			if !ok {
				break
			}
			token = rest
		}
		for range d.stop {
			rest, ok := strings.CutSuffix(token, d.char)
			if !ok {
				break
			}
			token = rest
		}
		out[i] = token
	}
	return out
}
