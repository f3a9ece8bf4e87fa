package tokenizer

import (
	"sync"
	"unicode/utf8"
)

// byteChars are the printable characters that byte-level vocabularies write bytes as (GPT-2):
// the visible ones of Latin-1 stand for themselves, the others for U+0100 and up.
var byteChars = sync.OnceValue(func() *[256]rune {
	var chars [256]rune
	next := rune(0x100)
	for b := range rune(256) {
		switch {
		case b >= '!' && b <= '~', b >= 0xA1 && b <= 0xAC, b >= 0xAE:
			chars[b] = b
		default:
			chars[b] = next
			next++
		}
	}
	return &chars
})

// charBytes is the inverse of byteChars; -1 where a character stands for no byte.
var charBytes = sync.OnceValue(func() *[0x144]int16 {
	var bytes [0x144]int16
	for i := range bytes {
		bytes[i] = -1
	}
	for b, r := range byteChars() {
		bytes[r] = int16(b)
	}
	return &bytes
})

// rawBytes is the byte string that a token of a byte-level vocabulary stands for; false if it
// has characters that stand for none.
func rawBytes(token string) (string, bool) {
	table := charBytes()
	raw := make([]byte, 0, len(token))
	for _, r := range token {
		if int(r) >= len(table) || table[r] < 0 {
			return "", false
		}
		raw = append(raw, byte(table[r]))
	}
	return string(raw), true
}

// printable is t with every byte written as its printable character.
func (e *encoder) printable(t text) text {
	w := e.buffer(2 * len(t.b))
	chars := byteChars()
	for i := 0; i < len(t.b); {
		_, n := utf8.DecodeRune(t.b[i:])
		at := t.span(i, n)
		for _, b := range t.b[i : i+n] {
			w.put(chars[b], at)
		}
		i += n
	}
	return w.text(t)
}
