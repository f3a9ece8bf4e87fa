package tokenizer

import (
	"sync"
	"unicode/utf8"
)

// class is the set of properties of a code point that tokenization asks about, as HuggingFace's
// library answers them; see unicode_tables.go for why they are not Go's.
type class uint16

const (
	letter      class = 1 << iota // \p{L} in its regular expressions
	number                        // \p{N} there
	regexSpace                    // \s there
	whitespace                    // White_Space
	numeric                       // what the Digits pre-tokenizer splits at
	punctuation                   // what BERT splits at
	nonspacing                    // Mn: what BERT strips as an accent
	dropped                       // what BERT's clean_text removes
	wordChar                      // \w where single_word tokens are searched
	mark                          // what StripAccents removes
	normalizes                    // NFD or NFC may change a text with it
	lowers                        // has a lower case
)

type pair [2]rune

// unicodeData is the expanded form of the tables.
type unicodeData struct {
	page      [0x110000 >> 8]uint16
	blocks    [][256]class
	combining map[rune]uint8
	lower     map[rune]rune
	decompose map[rune][]rune
	compose   map[pair]rune
}

// unicodeTables expands the generated tables on first use; they are read-only afterwards.
var unicodeTables = sync.OnceValue(func() *unicodeData {
	u := &unicodeData{
		combining: map[rune]uint8{}, lower: map[rune]rune{},
		decompose: map[rune][]rune{}, compose: map[pair]rune{},
	}
	seen := map[[256]class]uint16{}
	var block [256]class
	run := 0
	for c := range rune(utf8.MaxRune + 1) {
		for run+1 < len(classRuns) && rune(classRuns[run+1]>>16) <= c {
			run++
		}
		block[c&0xFF] = class(classRuns[run] & 0xFFFF)
		if c&0xFF != 0xFF {
			continue
		}
		at, ok := seen[block]
		if !ok {
			at = uint16(len(u.blocks))
			seen[block] = at
			u.blocks = append(u.blocks, block)
		}
		u.page[c>>8] = at
	}
	for i, r := range combiningRuns {
		if k := uint8(r); k != 0 {
			for c := rune(r >> 16); c < rune(combiningRuns[i+1]>>16); c++ {
				u.combining[c] = k
			}
		}
	}
	for _, r := range lowerRuns {
		for c := r[0]; c <= r[1]; c += r[2] {
			u.lower[c] = c + r[3]
		}
	}
	composites := [5][]rune{} // by the length of what they decompose to
	for i := 0; i < len(decompositions); {
		c, n := decompositions[i], decompositions[i+1]
		if n < 0 {
			n = -n
			composites[n] = append(composites[n], c)
		}
		u.decompose[c] = decompositions[i+2 : i+2+int(n)]
		i += 2 + int(n)
	}
	// Shorter ones first: the pair that composes to c is what everything but the last code point
	// of its decomposition composes to, and the last.
	for n, cs := range composites {
		for _, c := range cs {
			d := u.decompose[c]
			head := d[0]
			for _, next := range d[1 : n-1] {
				head = u.compose[pair{head, next}]
			}
			u.compose[pair{head, d[n-1]}] = c
		}
	}
	return u
})

func (u *unicodeData) class(c rune) class {
	if uint32(c) > utf8.MaxRune {
		return 0
	}
	return u.blocks[u.page[c>>8]][c&0xFF]
}

// isChinese tells the code points that BERT puts spaces around: the blocks of the original
// BERT code as the library has them, not a Unicode property.
func isChinese(c rune) bool {
	switch {
	case c < 0x3400:
		return false
	case c <= 0x4DBF, c >= 0x4E00 && c <= 0x9FFF, c >= 0xF900 && c <= 0xFAFF:
		return true
	}
	return c >= 0x20000 && c <= 0x2A6DF || c >= 0x2A700 && c <= 0x2B81F ||
		c >= 0x2B920 && c <= 0x2CEAF || c >= 0x2F800 && c <= 0x2FA1F
}

// Hangul syllables decompose and compose by arithmetic (The Unicode Standard, section 3.12).
const (
	hangulS, hangulL, hangulV, hangulT     = 0xAC00, 0x1100, 0x1161, 0x11A7
	hangulLs, hangulVs, hangulTs, hangulSs = 19, 21, 28, 19 * 21 * 28
)

// appendDecomposed appends the full canonical decomposition of c.
func (u *unicodeData) appendDecomposed(dst []rune, c rune) []rune {
	if s := c - hangulS; s >= 0 && s < hangulSs {
		dst = append(dst, hangulL+s/(hangulVs*hangulTs), hangulV+s%(hangulVs*hangulTs)/hangulTs)
		if t := s % hangulTs; t > 0 {
			dst = append(dst, hangulT+t)
		}
		return dst
	}
	if d, ok := u.decompose[c]; ok {
		return append(dst, d...)
	}
	return append(dst, c)
}

// composed is the primary composite of a and b.
func (u *unicodeData) composed(a, b rune) (rune, bool) {
	l, v := a-hangulL, b-hangulV
	if l >= 0 && l < hangulLs && v >= 0 && v < hangulVs {
		return hangulS + (l*hangulVs+v)*hangulTs, true
	}
	s, t := a-hangulS, b-hangulT
	if s >= 0 && s < hangulSs && s%hangulTs == 0 && t > 0 && t < hangulTs {
		return a + t, true
	}
	c, ok := u.compose[pair{a, b}]
	return c, ok
}
