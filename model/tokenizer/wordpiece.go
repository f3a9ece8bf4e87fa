package tokenizer

import "unicode/utf8"

// wordPiece cuts a word greedily into the longest pieces of its vocabulary, from left to right
// (Schuster and Nakajima, 2012); a word that cannot be cut so is unknown as a whole.
type wordPiece struct {
	first    map[string]int32 // pieces that start a word: the vocabulary
	rest     map[string]int32 // pieces within a word, without the prefix that marks them
	maxFirst int              // bytes of the longest in first
	maxRest  int
	maxChars int // a longer word is unknown
	unk      int32
	unkToken string
}

func newWordPiece(m *modelDefinition) *wordPiece {
	w := &wordPiece{first: m.vocab, rest: map[string]int32{}, maxChars: m.maxChars, unk: -1, unkToken: m.unk}
	for token, id := range m.vocab {
		w.maxFirst = max(w.maxFirst, len(token))
		if len(token) >= len(m.prefix) && token[:len(m.prefix)] == m.prefix {
			w.rest[token[len(m.prefix):]] = id
			w.maxRest = max(w.maxRest, len(token)-len(m.prefix))
		}
	}
	if id, ok := m.vocab[m.unk]; ok {
		w.unk = id
	}
	return w
}

func (w *wordPiece) tokenize(e *encoder, t text) error {
	subs, slot, hash := []subword(nil), 0, uint32(0)
	cached := len(t.b) <= cacheKeyMax
	if cached {
		subs, slot, hash = e.cache.lookup(t.b)
	}
	if subs == nil {
		if e.subs = w.cut(e.subs[:0], t.b); len(e.subs) == 0 {
			if w.unk < 0 {
				return errUnknown(w.unkToken, string(t.b))
			}
			e.subs = append(e.subs, subword{w.unk, int32(len(t.b))})
		}
		subs = e.subs
		if cached {
			e.cache.store(slot, hash, t.b, subs)
		}
	}
	e.addWord(t, 0, subs)
	return nil
}

// cut appends the pieces of word; none if there is no way to cut it.
func (w *wordPiece) cut(dst []subword, word []byte) []subword {
	if len(word) > w.maxChars && utf8.RuneCount(word) > w.maxChars {
		return dst
	}
	from := len(dst)
	pieces, longest := w.first, w.maxFirst
	for i := 0; i < len(word); {
		end := min(len(word), i+longest)
		for end > i && end < len(word) && !utf8.RuneStart(word[end]) {
			end--
		}
		found := false
		for end > i {
			if id, ok := pieces[string(word[i:end])]; ok {
				dst = append(dst, subword{id, int32(end - i)})
				found = true
				break
			}
			_, n := utf8.DecodeLastRune(word[i:end])
			end -= n
		}
		if !found {
			return dst[:from]
		}
		i = end
		pieces, longest = w.rest, w.maxRest
	}
	return dst
}
