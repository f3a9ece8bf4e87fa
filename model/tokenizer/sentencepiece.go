package tokenizer

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
)

// parseTokenizerModel reads a tokenizer.model: a SentencePiece model, or LLaMA-3's base64 ranks.
func parseTokenizerModel(data []byte, c *folderConfig) (*definition, error) {
	if ranks, ok := looksLikeRanks(data); ok {
		return parseRanks(ranks, c)
	}
	m, err := parseSentencePiece(data)
	if err != nil {
		return nil, fmt.Errorf("SentencePiece model: %w", err)
	}
	return m.definition(c)
}

// pieceType is the role of a SentencePiece piece.
type pieceType int32

const (
	pieceNormal      pieceType = 1
	pieceUnknown     pieceType = 2
	pieceControl     pieceType = 3
	pieceUserDefined pieceType = 4
	pieceUnused      pieceType = 5
	pieceByte        pieceType = 6
)

// spm is what counts of a SentencePiece model.
type spm struct {
	pieces      []piece
	bpe         bool
	dummyPrefix bool
	unk, bos    int
	eos, pad    int
}

type piece struct {
	text  string
	score float32
	kind  pieceType
}

// parseSentencePiece reads a serialized sentencepiece.ModelProto.
func parseSentencePiece(data []byte) (*spm, error) {
	m := &spm{dummyPrefix: true, unk: 0, bos: 1, eos: 2, pad: -1}
	model := uint64(1) // unigram, the default of the format
	err := eachField(data, func(f field) error {
		switch f.number {
		case 1: // pieces
			p := piece{kind: pieceNormal}
			err := eachField(f.bytes, func(f field) error {
				switch f.number {
				case 1:
					p.text = string(f.bytes)
				case 2:
					p.score = math.Float32frombits(uint32(f.value))
				case 3:
					p.kind = pieceType(f.value)
				}
				return nil
			})
			if err == nil && !utf8.ValidString(p.text) {
				err = errors.New("its text is not valid UTF-8")
			}
			if err == nil && math.IsNaN(float64(p.score)) {
				err = errors.New("its score is not a number")
			}
			if err != nil {
				return fmt.Errorf("piece %d: %w", len(m.pieces), err)
			}
			m.pieces = append(m.pieces, p)
		case 2: // trainer_spec
			return eachField(f.bytes, func(f field) error {
				switch f.number {
				case 3:
					model = f.value
				case 40:
					m.unk = int(int32(f.value))
				case 41:
					m.bos = int(int32(f.value))
				case 42:
					m.eos = int(int32(f.value))
				case 43:
					m.pad = int(int32(f.value))
				}
				return nil
			})
		case 3: // normalizer_spec
			return eachField(f.bytes, func(f field) error {
				if f.number == 3 {
					m.dummyPrefix = f.value != 0
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	m.bpe = model == 2
	if len(m.pieces) == 0 {
		return nil, errors.New("no pieces")
	}
	if !m.bpe {
		return nil, fmt.Errorf("model type %d is not supported: want BPE (2)", model)
	}
	return m, nil
}

// field is one field of a protobuf message: value for the number types, bytes for the others.
type field struct {
	number uint64
	value  uint64
	bytes  []byte
}

var errProto = errors.New("not a valid protobuf message")

// eachField calls do for the fields of a message in their order.
func eachField(data []byte, do func(field) error) error {
	for len(data) > 0 {
		tag, n := binary.Uvarint(data)
		if n <= 0 || tag>>3 == 0 {
			return errProto
		}
		data = data[n:]
		f := field{number: tag >> 3}
		switch tag & 7 {
		case 0:
			if f.value, n = binary.Uvarint(data); n <= 0 {
				return errProto
			}
		case 1:
			if n = 8; len(data) < n {
				return errProto
			}
			f.value = binary.LittleEndian.Uint64(data)
		case 2:
			size, k := binary.Uvarint(data)
			if k <= 0 || size > uint64(len(data)-k) {
				return errProto
			}
			f.bytes = data[k : k+int(size)]
			n = k + int(size)
		case 5:
			if n = 4; len(data) < n {
				return errProto
			}
			f.value = uint64(binary.LittleEndian.Uint32(data))
		default:
			return errProto
		}
		data = data[n:]
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

// definition makes of a SentencePiece BPE model what transformers' LlamaTokenizerFast does. Whether a
// space is put in front is as the model says, unless the configuration says otherwise.
func (m *spm) definition(c *folderConfig) (*definition, error) {
	s := &definition{model: modelDefinition{kind: "BPE", hasUnk: true, fuseUnk: true, byteFallback: true}}
	vocab := make(map[string]int64, len(m.pieces))
	for id, p := range m.pieces {
		if p.text == "" {
			return nil, fmt.Errorf("piece %d is empty", id)
		}
		if len(p.text) > maxPiece {
			return nil, fmt.Errorf("piece %d has %d bytes, more than %d", id, len(p.text), maxPiece)
		}
		if _, ok := vocab[p.text]; ok {
			return nil, fmt.Errorf("piece %d: %q is there twice", id, p.text)
		}
		vocab[p.text] = int64(id)
	}
	if err := s.model.setVocab(vocab); err != nil {
		return nil, err
	}
	s.model.merges = mergesByScore(s.model.vocab, m.pieces)
	given := c.special()
	named := func(role string, id int) string {
		if token := c.roles[role]; token != "" {
			return token
		}
		if id < 0 || id >= len(m.pieces) {
			return ""
		}
		c.roles[role] = m.pieces[id].text
		return m.pieces[id].text
	}
	unk, bos, eos := named("unk_token", m.unk), named("bos_token", m.bos), named("eos_token", m.eos)
	named("pad_token", m.pad)
	if s.model.unk = unk; m.unk >= 0 && m.unk < len(m.pieces) {
		s.model.unk = m.pieces[m.unk].text
	}
	s.added = c.addedTokens
	for id, p := range m.pieces {
		if p.kind == pieceControl || p.kind == pieceUserDefined {
			s.addToken(addedToken{ID: int64(id), Content: p.text, Special: p.kind == pieceControl})
		}
	}
	for _, token := range []string{unk, bos, eos} {
		s.addSpecial(token)
	}
	s.addNamed(given)
	prefix := m.dummyPrefix
	if c.PrefixSpace != nil {
		prefix = *c.PrefixSpace
	}
	s.sentencePiece(prefix, c.Legacy == nil || *c.Legacy)
	addBOS := c.AddBOS == nil || *c.AddBOS
	addEOS := c.AddEOS != nil && *c.AddEOS
	if err := s.around(bos, addBOS, eos, addEOS); err != nil {
		return nil, err
	}
	return s, nil
}

// sentencePiece sets the normalization and the decoder of a SentencePiece model: spaces become
// U+2581, one of which is put in front. The legacy way does so after every special token too.
func (s *definition) sentencePiece(prefix, legacy bool) {
	type m = map[string]any
	toMark := m{"type": "Replace", "pattern": m{"String": " "}, "content": "▁"}
	switch {
	case legacy && prefix:
		s.normalizer = raw(m{"type": "Sequence", "normalizers": []any{m{"type": "Prepend", "prepend": "▁"}, toMark}})
	case legacy:
		s.normalizer = raw(m{"type": "Sequence", "normalizers": []any{toMark}})
	case prefix:
		s.preTokenizer = raw(m{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false})
	default:
		s.preTokenizer = raw(m{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": false})
	}
	decoders := []any{
		m{"type": "Replace", "pattern": m{"String": "▁"}, "content": " "}, m{"type": "ByteFallback"}, m{"type": "Fuse"},
	}
	if prefix {
		decoders = append(decoders, m{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	s.decoder = raw(m{"type": "Sequence", "decoders": decoders})
}

// around sets the template: bos in front of every text and eos behind, as asked.
func (s *definition) around(bos string, addBOS bool, eos string, addEOS bool) error {
	if !addBOS && !addEOS {
		return nil
	}
	added, err := s.addedIDs()
	if err != nil {
		return err
	}
	type m = map[string]any
	special := m{}
	var single, pair []any
	for i, seq := range []string{"A", "B"} {
		var part []any
		add := func(name, token string) error {
			if token == "" {
				return fmt.Errorf("add_%s_token is true, or not said, but there is no %s_token", name, name)
			}
			id, ok := added[token]
			if known, inModel := s.model.vocab[token]; inModel {
				id, ok = int64(known), true
			}
			if !ok {
				return fmt.Errorf("special token %q, to be put around texts, is not in the vocabulary", token)
			}
			special[token] = m{"id": token, "ids": []any{id}, "tokens": []any{token}}
			part = append(part, m{"SpecialToken": m{"id": token, "type_id": i}})
			return nil
		}
		if addBOS {
			if err := add("bos", bos); err != nil {
				return err
			}
		}
		part = append(part, m{"Sequence": m{"id": seq, "type_id": i}})
		if addEOS {
			if err := add("eos", eos); err != nil {
				return err
			}
		}
		if i == 0 {
			single = part
		}
		pair = append(pair, part...)
	}
	s.postProcessor = raw(m{"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
	return nil
}

// mergesByScore lists the merges that a SentencePiece BPE vocabulary implies: every way to put a
// piece together from two others, the pieces by falling score. Among equal scores the ways with
// the longer left and right half come first, as in transformers' conversion.
func mergesByScore(vocab map[string]int32, pieces []piece) []mergeRule {
	type way struct {
		mergeRule
		score                 float32
		leftRunes, rightRunes int
	}
	var lengths [maxPiece + 1]bool // which pieces have, so that few halves are looked up
	for _, p := range pieces {
		lengths[len(p.text)] = true
	}
	var all []way
	for id, p := range pieces {
		from := len(all)
		n := utf8.RuneCountInString(p.text)
		k := 0
		for i := range p.text {
			if i == 0 {
				continue
			}
			k++
			if !lengths[i] || !lengths[len(p.text)-i] {
				continue
			}
			left, ok := vocab[p.text[:i]]
			if !ok {
				continue
			}
			if right, ok := vocab[p.text[i:]]; ok {
				all = append(all, way{mergeRule{left, right, int32(id)}, p.score, k, n - k})
			}
		}
		slices.SortStableFunc(all[from:], func(a, b way) int {
			return cmp.Or(cmp.Compare(a.left, b.left), cmp.Compare(a.right, b.right))
		})
	}
	slices.SortStableFunc(all, func(a, b way) int {
		return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(b.leftRunes, a.leftRunes), cmp.Compare(b.rightRunes, a.rightRunes))
	})
	merges := make([]mergeRule, len(all))
	for i, w := range all {
		merges[i] = w.mergeRule
	}
	return merges
}

// looksLikeRanks tells a file of base64 ranks by its first line: it has a space and a number at
// its end, which the first bytes of a SentencePiece model have not.
func looksLikeRanks(data []byte) ([]byte, bool) {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	token, rank, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
	if !ok || len(token) == 0 || len(rank) == 0 {
		return nil, false
	}
	for _, c := range rank {
		if c < '0' || c > '9' {
			return nil, false
		}
	}
	return data, true
}
