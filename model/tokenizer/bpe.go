package tokenizer

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// bpe merges the symbols of a word pair by pair, always the pair of the lowest rank and among
// equals the leftmost, until none can be (Sennrich et al., 2016).
type bpe struct {
	vocab  map[string]int32
	merges *mergeTable
	// In byte mode the symbols are bytes, and words are given as bytes although the vocabulary
	// writes them as printable characters.
	byteMode bool
	byteID   [256]int32 // of every single byte, -1 where there is none
	allBytes bool
	runeID   map[rune]int32 // of every single character, without byte mode
	asciiID  [utf8.RuneSelf]int32
	whole    map[string]int32 // words that are tokens as they are, where merges are ignored for these

	prefix, suffix string     // of symbols within, and at the end of, a word
	fallback       [256]int32 // the tokens <0x00> to <0xFF>, -1 where there is none
	byteFallback   bool
	unk            int32 // -1: unknown symbols vanish
	unkToken       string
	hasUnk         bool
	fuseUnk        bool
	// In front of a boundary character no merge reaches back, so that text without pre-tokenizer
	// falls apart into words there; 0 where merges do.
	boundary rune
}

const none = int32(-1)

func newBPE(m *modelDefinition, byteMode bool) *bpe {
	b := &bpe{
		vocab: m.vocab, merges: newMergeTable(m.merges), byteMode: byteMode, prefix: m.prefix, suffix: m.suffix,
		byteFallback: m.byteFallback, unk: none, unkToken: m.unk, hasUnk: m.hasUnk, fuseUnk: m.fuseUnk,
	}
	if id, ok := m.vocab[m.unk]; ok && m.hasUnk {
		b.unk = id
	}
	id := func(s string) int32 {
		if id, ok := m.vocab[s]; ok {
			return id
		}
		return none
	}
	for i := range b.fallback {
		b.fallback[i] = id(fmt.Sprintf("<0x%02X>", i))
	}
	plain := m.prefix == "" && m.suffix == ""
	b.allBytes = plain
	for i, r := range byteChars() {
		b.byteID[i] = id(string(r))
		b.allBytes = b.allBytes && b.byteID[i] != none
	}
	b.runeID = map[rune]int32{}
	for i := range b.asciiID {
		b.asciiID[i] = none
	}
	for token, id := range m.vocab {
		r, n := utf8.DecodeRuneInString(token)
		if n != len(token) || n == 0 {
			continue
		}
		if r < utf8.RuneSelf {
			b.asciiID[r] = id
		} else {
			b.runeID[r] = id
		}
	}
	if m.ignoreMerges {
		b.whole = m.vocab
		if byteMode {
			b.whole = make(map[string]int32, len(m.vocab))
			for token, id := range m.vocab {
				if raw, ok := rawBytes(token); ok {
					b.whole[raw] = id
				}
			}
		}
	}
	if plain && !byteMode && !m.ignoreMerges && b.boundaryHolds(m, '▁') {
		b.boundary = '▁'
	}
	return b
}

// boundaryHolds tells whether every merge whose right half starts with r has a left half that
// ends with it, so that no token spans from another character to r.
func (b *bpe) boundaryHolds(m *modelDefinition, r rune) bool {
	if _, ok := b.runeID[r]; !ok {
		return false // it may become part of an unknown stretch
	}
	if strings.HasSuffix(m.unk, string(r)) {
		return false
	}
	for _, p := range m.merges {
		if strings.HasPrefix(m.tokens[p.right], string(r)) && !strings.HasSuffix(m.tokens[p.left], string(r)) {
			return false
		}
	}
	return true
}

func (b *bpe) tokenize(e *encoder, t text) error {
	if b.boundary == 0 {
		return b.word(e, t)
	}
	mark := []byte(string(b.boundary))
	for from, i := 0, 0; from < len(t.b); {
		// A word: boundary characters, then others up to the next boundary character.
		for bytes.HasPrefix(t.b[i:], mark) {
			i += len(mark)
		}
		if k := bytes.Index(t.b[i:], mark); k >= 0 {
			i += k
		} else {
			i = len(t.b)
		}
		if err := b.word(e, t.slice(from, i)); err != nil {
			return err
		}
		from = i
		if e.full() {
			return nil
		}
	}
	return nil
}

func (b *bpe) word(e *encoder, t text) error {
	subs, slot, hash := []subword(nil), 0, uint32(0)
	cached := len(t.b) <= cacheKeyMax
	if cached {
		if subs, slot, hash = e.cache.lookup(t.b); subs != nil {
			e.addWord(t, 0, subs)
			return nil
		}
	}
	if b.whole != nil {
		if id, ok := b.whole[string(t.b)]; ok {
			e.subs = append(e.subs[:0], subword{id, int32(len(t.b))})
			if cached {
				e.cache.store(slot, hash, t.b, e.subs)
			}
			e.addWord(t, 0, e.subs)
			return nil
		}
	}
	if b.byteMode && !b.allBytes {
		// What becomes of a missing byte is defined on the printable form.
		t = e.printable(t)
		cached = false
	}
	if len(t.b) > longWord && b.prefix == "" && b.suffix == "" {
		if done, err := b.pieces(e, t, longWord/2); done || err != nil {
			return err
		}
	}
	if err := b.encode(e, t.b); err != nil {
		return err
	}
	if cached {
		e.cache.store(slot, hash, t.b, e.subs)
	}
	e.addWord(t, 0, e.subs)
	return nil
}

// encode fills e.subs with the tokens of a word.
func (b *bpe) encode(e *encoder, word []byte) error {
	e.subs = e.subs[:0]
	if b.byteMode && b.allBytes {
		e.subs = slices.Grow(e.subs, len(word))
		for _, c := range word {
			e.subs = append(e.subs, subword{b.byteID[c], 1})
		}
	} else if err := b.symbols(e, word); err != nil {
		return err
	}
	b.merge(e)
	return nil
}

// symbols appends the symbols of word: a token per character, else the tokens of its bytes, else
// the unknown token, which may stand for several characters in a row.
func (b *bpe) symbols(e *encoder, word []byte) error {
	pending := int32(0) // bytes of the unknown token that has not been added yet
	flush := func() {
		if pending > 0 {
			e.subs = append(e.subs, subword{b.unk, pending})
			pending = 0
		}
	}
	for i := 0; i < len(word); {
		r, n := utf8.DecodeRune(word[i:])
		id := b.symbol(r, i == 0, i+n == len(word))
		if id != none {
			flush()
			e.subs = append(e.subs, subword{id, int32(n)})
			i += n
			continue
		}
		if b.byteFallback && b.spell(e, word[i:i+n], i == 0, i+n == len(word)) {
			i += n
			continue
		}
		if b.hasUnk {
			if b.unk == none {
				return errUnknown(b.unkToken, string(word[i:i+n]))
			}
			if !b.fuseUnk {
				flush()
			}
			pending += int32(n)
		}
		i += n
	}
	flush()
	return nil
}

// symbol is the token of one character.
func (b *bpe) symbol(r rune, first, last bool) int32 {
	if (first || b.prefix == "") && (!last || b.suffix == "") {
		if r < utf8.RuneSelf {
			return b.asciiID[r]
		}
		if id, ok := b.runeID[r]; ok {
			return id
		}
		return none
	}
	if id, ok := b.vocab[b.affixed(string(r), first, last)]; ok {
		return id
	}
	return none
}

func (b *bpe) affixed(s string, first, last bool) string {
	if !first {
		s = b.prefix + s
	}
	if last {
		s += b.suffix
	}
	return s
}

// spell appends the byte tokens of a character, if there is one for every byte.
func (b *bpe) spell(e *encoder, char []byte, first, last bool) bool {
	from := len(e.subs)
	s := b.affixed(string(char), first, last)
	for i := range len(s) {
		id := b.fallback[s[i]]
		if id == none {
			e.subs = e.subs[:from]
			return false
		}
		e.subs = append(e.subs, subword{id, 1})
	}
	return true
}

// shortWord is the number of symbols up to which looking for the best pair one by one is
// faster than keeping a heap of them.
const shortWord = 40

// merge merges e.subs in place.
func (b *bpe) merge(e *encoder) {
	if len(e.subs) < 2 {
		return
	}
	if len(e.subs) > shortWord {
		b.mergeLong(e)
		return
	}
	subs := e.subs
	var ranks [shortWord]uint32 // of the pair that starts at each symbol
	const last = math.MaxUint32
	rank := func(i int) uint32 {
		if i+1 < len(subs) {
			if m, ok := b.merges.find(subs[i].id, subs[i+1].id); ok {
				return m.rank
			}
		}
		return last
	}
	for i := range subs {
		ranks[i] = rank(i)
	}
	for {
		best, at := uint32(last), -1
		for i, r := range ranks[:len(subs)] {
			if r < best {
				best, at = r, i
			}
		}
		if at < 0 {
			break
		}
		subs[at] = subword{b.merges.result[best], subs[at].n + subs[at+1].n}
		copy(subs[at+1:], subs[at+2:])
		copy(ranks[at+1:], ranks[at+2:len(subs)])
		subs = subs[:len(subs)-1]
		ranks[at] = rank(at)
		if at > 0 {
			ranks[at-1] = rank(at - 1)
		}
	}
	e.subs = subs
}

// link connects a symbol of a long word to its neighbours that are left, -1 at the ends.
type link struct{ prev, next int32 }

// mergeLong is merge by a queue of pairs, ordered by rank and then position. Pairs that have
// changed since they were put there are recognised by what they would merge to.
func (b *bpe) mergeLong(e *encoder) {
	subs := e.subs
	links := slices.Grow(e.links[:0], len(subs))[:len(subs)]
	q := &e.pairs
	q.begin(len(b.merges.result), len(subs))
	for i := range subs {
		links[i] = link{int32(i) - 1, int32(i) + 1}
		if i+1 < len(subs) {
			if m, ok := b.merges.find(subs[i].id, subs[i+1].id); ok {
				q.push(m.rank, int32(i))
			}
		}
	}
	links[len(subs)-1].next = -1
	for {
		rank, at, ok := q.pop()
		if !ok {
			break
		}
		id, next := b.merges.result[rank], links[at].next
		if subs[at].n == 0 || next < 0 {
			continue
		}
		if m, ok := b.merges.find(subs[at].id, subs[next].id); !ok || m.id != id {
			continue
		}
		subs[at] = subword{id, subs[at].n + subs[next].n}
		subs[next].n = 0
		links[at].next = links[next].next
		if after := links[at].next; after >= 0 {
			links[after].prev = at
			if m, ok := b.merges.find(id, subs[after].id); ok {
				q.push(m.rank, at)
			}
		}
		if before := links[at].prev; before >= 0 {
			if m, ok := b.merges.find(subs[before].id, id); ok {
				q.push(m.rank, before)
			}
		}
	}
	n := 0
	for _, s := range subs {
		if s.n != 0 {
			subs[n] = s
			n++
		}
	}
	e.subs, e.links = subs[:n], links
}
