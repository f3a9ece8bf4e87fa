package tokenizer

import (
	"bytes"
	"unicode/utf8"
)

// addedToken is a token found in the text before the model sees it.
type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// addedSearch finds added tokens in a text, the leftmost first and of those that start together
// the longest.
type addedSearch struct {
	tokens []addedMatch
	nodes  []trieNode // a trie over bytes; node 0 is the root
	first  [256]bool  // the bytes that tokens start with
	single int        // that byte, if there is just one; else -1
}

type addedMatch struct {
	id                         int32
	singleWord, lstrip, rstrip bool
}

type trieNode struct {
	next  map[byte]int32
	token int32 // index in tokens, -1 if none ends here
}

func newAddedSearch() *addedSearch {
	return &addedSearch{nodes: []trieNode{{next: map[byte]int32{}, token: none}}, single: -1}
}

// add makes pattern findable. Of equal patterns the first counts.
func (s *addedSearch) add(pattern string, m addedMatch) {
	if pattern == "" {
		return
	}
	at := int32(0)
	for i := range len(pattern) {
		next, ok := s.nodes[at].next[pattern[i]]
		if !ok {
			next = int32(len(s.nodes))
			s.nodes[at].next[pattern[i]] = next
			s.nodes = append(s.nodes, trieNode{next: map[byte]int32{}, token: none})
		}
		at = next
	}
	if s.nodes[at].token != none {
		return
	}
	s.nodes[at].token = int32(len(s.tokens))
	s.tokens = append(s.tokens, m)
	s.first[pattern[0]] = true
	if len(s.nodes[0].next) == 1 {
		s.single = int(pattern[0])
	} else {
		s.single = -1
	}
}

// find is the first match in b from offset i on.
func (s *addedSearch) find(b []byte, i int) (start, end int, m *addedMatch) {
	if len(s.tokens) == 0 {
		return 0, 0, nil
	}
	for ; i < len(b); i++ {
		if s.single >= 0 {
			k := bytes.IndexByte(b[i:], byte(s.single))
			if k < 0 {
				return 0, 0, nil
			}
			i += k
		} else if !s.first[b[i]] {
			continue
		}
		at := int32(0)
		for k := i; k < len(b); {
			next, ok := s.nodes[at].next[b[k]]
			if !ok {
				break
			}
			at = next
			k++
			if token := s.nodes[at].token; token != none {
				end, m = k, &s.tokens[token]
			}
		}
		if m != nil {
			return i, end, m
		}
	}
	return 0, 0, nil
}

// split adds the tokens found in t, and hands what lies between them to rest.
func (s *addedSearch) split(e *encoder, t text, rest func(text)) {
	from := 0
	for i := 0; i < len(t.b) && !e.full(); {
		start, end, m := s.find(t.b, i)
		if m == nil {
			break
		}
		i = end
		if m.singleWord && (e.wordBefore(t.b[:start]) || e.wordAfter(t.b[end:])) {
			continue
		}
		if m.lstrip {
			for start > from {
				r, n := utf8.DecodeLastRune(t.b[from:start])
				if e.u.class(r)&whitespace == 0 {
					break
				}
				start -= n
			}
			start = max(start, from) // the match before may have stripped what this one is made of
		}
		if m.rstrip {
			for end < len(t.b) {
				r, n := utf8.DecodeRune(t.b[end:])
				if e.u.class(r)&whitespace == 0 {
					break
				}
				end += n
			}
		}
		if start >= end {
			continue
		}
		if from < start {
			rest(t.slice(from, start))
		}
		if e.full() {
			return
		}
		e.addWhole(t.slice(start, end), m.id)
		from = end
	}
	if from < len(t.b) {
		rest(t.slice(from, len(t.b)))
	}
}

func (e *encoder) wordBefore(b []byte) bool {
	r, n := utf8.DecodeLastRune(b)
	return n > 0 && e.u.class(r)&wordChar != 0
}

func (e *encoder) wordAfter(b []byte) bool {
	r, n := utf8.DecodeRune(b)
	return n > 0 && e.u.class(r)&wordChar != 0
}
