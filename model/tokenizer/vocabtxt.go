package tokenizer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// parseVocabTxt reads BERT's vocabulary, one piece a line, and makes of it what transformers'
// BertTokenizerFast does: it lowercases and strips accents unless the configuration says no.
func parseVocabTxt(data []byte, c *folderConfig) (*definition, error) {
	vocab := map[string]int64{}
	number := int64(0)
	for line := range bytes.Lines(data) {
		if !utf8.Valid(line) {
			return nil, fmt.Errorf("line %d is not valid UTF-8", number+1)
		}
		token := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
		vocab[token] = number // of two equal lines the later counts
		number++
	}
	if len(vocab) == 0 {
		return nil, errors.New("the vocabulary is empty")
	}
	if !c.given["clean_up_tokenization_spaces"] {
		c.CleanUp = true // which transformers does for this kind of folder alone
	}
	return bertDefinition(vocab, c)
}

// bertDefinition is BERT's tokenizer with a vocabulary.
func bertDefinition(vocab map[string]int64, c *folderConfig) (*definition, error) {
	s := &definition{model: modelDefinition{kind: "WordPiece", prefix: "##", maxChars: 100, hasUnk: true}}
	if err := s.model.setVocab(vocab); err != nil {
		return nil, err
	}
	given := c.special()
	role := func(name, usual string) string {
		if token := c.roles[name]; token != "" {
			return token
		}
		c.roles[name] = usual
		return usual
	}
	s.model.unk = role("unk_token", "[UNK]")
	cls, sep := role("cls_token", "[CLS]"), role("sep_token", "[SEP]")
	s.added = c.addedTokens
	for _, token := range []string{role("pad_token", "[PAD]"), s.model.unk, cls, sep, role("mask_token", "[MASK]")} {
		if _, ok := vocab[token]; ok {
			s.addSpecial(token)
		}
	}
	s.addNamed(given)
	for _, token := range []string{cls, sep} {
		if _, ok := vocab[token]; !ok {
			return nil, fmt.Errorf("special token %q is not in the vocabulary", token)
		}
	}
	s.setBERTNormalizer(true, c)
	s.preTokenizer = raw(map[string]any{"type": "BertPreTokenizer"})
	s.postProcessor = raw(map[string]any{
		"type": "BertProcessing", "sep": []any{sep, vocab[sep]}, "cls": []any{cls, vocab[cls]},
	})
	s.decoder = raw(map[string]any{"type": "WordPiece", "prefix": "##", "cleanup": true})
	return s, nil
}

// setBERTNormalizer has texts normalized as the configuration says: unless it says no, they are lowercased, and Chinese
// characters are words of their own.
func (s *definition) setBERTNormalizer(clean bool, c *folderConfig) {
	orTrue := func(b *bool) bool { return b == nil || *b }
	s.normalizer = raw(map[string]any{
		"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": orTrue(c.ChineseChars),
		"strip_accents": c.StripAccents, "lowercase": orTrue(c.Lowercase),
	})
}

// raw is v as JSON; v is made of maps, lists, strings, numbers and truth values alone.
func raw(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return data
}
