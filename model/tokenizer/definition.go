package tokenizer

import (
	"encoding/json"
	"fmt"
)

// definition is what a tokenizer is built from, whatever file it was read from: the parts of a tokenizer.json, in its
// own notation but for the model.
type definition struct {
	model                                            modelDefinition
	normalizer, preTokenizer, postProcessor, decoder json.RawMessage

	added           []addedToken
	configAdded     []addedToken    // further ones, which a tokenizer_config.json adds to those of a tokenizer.json
	further         []addedToken    // those that With has added
	isAdded         map[string]bool // the contents of added, for addToken
	addedNormalizer json.RawMessage // of the contents of added tokens; nil: normalizer
	padToken        string          // that of a padding section, the padding token where nothing else names one
}

// modelDefinition is a vocabulary and how words are cut with it.
type modelDefinition struct {
	kind   string // BPE or WordPiece
	vocab  map[string]int32
	tokens []string // by id
	unk    string
	hasUnk bool
	prefix string // of a symbol (BPE) or piece (WordPiece) within a word

	maxChars int // WordPiece: a longer word is unknown

	merges       []mergeRule // BPE, by rank
	suffix       string      // of the symbol that ends a word
	fuseUnk      bool
	byteFallback bool
	ignoreMerges bool
}

// maxTokens bounds ids, so that a few bytes of a malformed file cannot ask for gigabytes.
const maxTokens = 1 << 21

// maxPiece bounds the bytes of a token that is tried to be put together from two others at every place: the time it takes
// grows with the square of them.
const maxPiece = 64 << 10

// setVocab takes over a vocabulary after a check of its ids.
func (m *modelDefinition) setVocab(vocab map[string]int64) error {
	m.vocab = make(map[string]int32, len(vocab))
	size := int64(0)
	for token, id := range vocab {
		if id < 0 || id >= maxTokens {
			return fmt.Errorf("vocab: token %q has the id %d, outside 0 to %d", token, id, maxTokens-1)
		}
		size = max(size, id+1)
		m.vocab[token] = int32(id)
	}
	m.tokens = make([]string, size)
	for token, id := range m.vocab {
		if old := m.tokens[id]; old == "" || token < old {
			m.tokens[id] = token
		}
	}
	return nil
}

// addMerge appends the merge of two tokens at the next rank.
func (m *modelDefinition) addMerge(left, right string) error {
	i := len(m.merges)
	l, ok := m.vocab[left]
	if !ok {
		return fmt.Errorf("merges[%d]: token %q is not in the vocabulary", i, left)
	}
	r, ok := m.vocab[right]
	if !ok {
		return fmt.Errorf("merges[%d]: token %q is not in the vocabulary", i, right)
	}
	if len(right) < len(m.prefix) {
		return fmt.Errorf("merges[%d]: token %q is shorter than the prefix %q", i, right, m.prefix)
	}
	both := left + right[len(m.prefix):]
	id, ok := m.vocab[both]
	if !ok {
		return fmt.Errorf("merges[%d]: what %q and %q merge to, %q, is not in the vocabulary", i, left, right, both)
	}
	m.merges = append(m.merges, mergeRule{l, r, id})
	return nil
}

// addToken enters an added token, unless one of that content is there already.
func (s *definition) addToken(a addedToken) {
	if s.isAdded == nil {
		s.isAdded = make(map[string]bool, len(s.added))
		for _, old := range s.added {
			s.isAdded[old.Content] = true
		}
	}
	if !s.isAdded[a.Content] {
		s.isAdded[a.Content] = true
		s.added = append(s.added, a)
	}
}

// addNamed enters the special tokens that the configuration names, as far as they are new.
func (s *definition) addNamed(tokens []configToken) {
	for _, t := range tokens {
		t.Special = true
		s.addToken(t.addedToken)
	}
}

// addSpecial enters a token of the vocabulary as a special one.
func (s *definition) addSpecial(token string) {
	s.addToken(addedToken{ID: int64(s.model.vocab[token]), Content: token, Special: true})
}

// build makes a tokenizer of its description.
func build(s *definition, config *folderConfig) (*Tokenizer, error) {
	t := &Tokenizer{definition: s, folder: config, special: map[int64]bool{}, rawAdded: newAddedSearch(), normalizedAdded: newAddedSearch()}
	var err error
	if t.normalizer, err = parseNormalizer(s.normalizer); err != nil {
		return nil, fmt.Errorf("normalizer: %w", err)
	}
	if t.preTokenizers, err = parsePreTokenizer(s.preTokenizer); err != nil {
		return nil, fmt.Errorf("pre_tokenizer: %w", err)
	}
	byteMode := false
	for i, p := range t.preTokenizers {
		if _, ok := p.(byteLevel); !ok {
			continue
		}
		if i+1 < len(t.preTokenizers) {
			return nil, fmt.Errorf("pre_tokenizer: something follows ByteLevel, which is not supported")
		}
		byteMode = true
	}
	switch s.model.kind {
	case "BPE":
		t.model = newBPE(&s.model, byteMode)
	case "WordPiece":
		if byteMode {
			return nil, fmt.Errorf("pre_tokenizer: ByteLevel in front of WordPiece is not supported")
		}
		t.model = newWordPiece(&s.model)
	default:
		return nil, fmt.Errorf("model: type %q is not supported: want BPE or WordPiece", s.model.kind)
	}
	t.tokens = s.model.tokens
	t.ids = make(map[string]int64, len(s.model.vocab)+len(s.added))
	for token, id := range s.model.vocab {
		t.ids[token] = int64(id)
	}
	ids, err := s.addedIDs()
	if err != nil {
		return nil, err
	}
	ofAdded := t.normalizer
	if len(s.addedNormalizer) > 0 {
		if ofAdded, err = parseNormalizer(s.addedNormalizer); err != nil {
			return nil, fmt.Errorf("normalizer: %w", err)
		}
	}
	t.addTokens(ids, ofAdded, s.added, s.configAdded)
	t.addTokens(ids, t.normalizer, s.further)
	if t.post, err = parsePostProcessor(s.postProcessor, len(t.tokens)); err != nil {
		return nil, err
	}
	if t.post.trimOffsets {
		t.margins = make([]margin, len(t.tokens))
		for id, token := range t.tokens {
			t.margins[id] = marginOf(token)
		}
	}
	if t.decoder, t.byteFallback, err = parseDecoder(s.decoder); err != nil {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	if _, ok := t.decoder.(byteLevelDecoder); ok {
		t.rawTokens = make([]string, len(t.tokens))
		for id, token := range t.tokens {
			t.rawTokens[id] = token
			if raw, ok := rawBytes(token); ok {
				t.rawTokens[id] = raw
			}
		}
	}
	t.behind = behindSpaces(t)
	t.tidy = config.CleanUp
	t.findRoles(config)
	return t, nil
}

// addedIDs gives the added tokens their ids. As in the library, the id of one that the model knows is the model's, and of
// another the next free one, whatever the file says.
func (s *definition) addedIDs() (map[string]int64, error) {
	ids := make(map[string]int64, len(s.added)+len(s.configAdded)+len(s.further))
	next := int64(len(s.model.vocab))
	for _, list := range [][]addedToken{s.added, s.configAdded, s.further} {
		for _, a := range list {
			if _, ok := ids[a.Content]; ok || a.Content == "" {
				continue
			}
			id := next
			if known, ok := s.model.vocab[a.Content]; ok {
				id = int64(known)
			}
			if id >= maxTokens {
				return nil, fmt.Errorf("added_tokens: more than %d tokens", maxTokens)
			}
			ids[a.Content] = id
			next = max(next, id+1)
		}
	}
	return ids, nil
}

// addTokens enters added tokens, one list after the other, with their ids, and makes them findable; normalized ones as
// the normalizer n, if there is one, writes them.
func (t *Tokenizer) addTokens(ids map[string]int64, n normalizer, lists ...[]addedToken) {
	var special, plain []addedToken
	isSpecial := map[string]bool{}
	last := map[string]addedToken{}
	for _, list := range lists {
		for _, a := range list { // the special ones are known before any is entered
			if a.Special && a.Content != "" && !isSpecial[a.Content] {
				isSpecial[a.Content] = true
				special = append(special, a)
			}
		}
		for _, a := range list {
			a.ID = 0
			if a.Content == "" || last[a.Content] == a {
				continue
			}
			last[a.Content] = a
			id := ids[a.Content]
			for int64(len(t.tokens)) <= id {
				t.tokens = append(t.tokens, "")
			}
			t.ids[a.Content], t.tokens[id] = id, a.Content
			if !isSpecial[a.Content] {
				plain = append(plain, a)
			}
		}
	}
	for _, a := range append(special, plain...) {
		id := ids[a.Content]
		if isSpecial[a.Content] {
			t.special[id] = true
		}
		// Of several entries of a token, the last says how it is searched.
		flags := last[a.Content]
		m := addedMatch{id: int32(id), singleWord: flags.SingleWord, lstrip: flags.LStrip, rstrip: flags.RStrip}
		if !a.Normalized {
			t.rawAdded.add(a.Content, m)
			continue
		}
		pattern := text{b: []byte(a.Content)}
		if n != nil {
			pattern = n.normalize(newEncoder(t), pattern)
		}
		t.normalizedAdded.add(string(pattern.b), m)
	}
}
