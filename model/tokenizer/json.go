package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// parseTokenizerJSON reads a tokenizer.json and puts the configuration over it.
func parseTokenizerJSON(data []byte, c *folderConfig) (*definition, error) {
	var file struct {
		Added         []addedToken    `json:"added_tokens"`
		Normalizer    json.RawMessage `json:"normalizer"`
		PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
		PostProcessor json.RawMessage `json:"post_processor"`
		Decoder       json.RawMessage `json:"decoder"`
		Model         json.RawMessage `json:"model"`
		Padding       *struct {
			Token string `json:"pad_token"`
		} `json:"padding"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, jsonError(err)
	}
	if len(file.Model) == 0 {
		return nil, errors.New("no model section")
	}
	s := &definition{
		added: file.Added, normalizer: file.Normalizer, preTokenizer: file.PreTokenizer,
		postProcessor: file.PostProcessor, decoder: file.Decoder,
	}
	if file.Padding != nil {
		s.padToken = file.Padding.Token
	}
	if err := s.model.parse(file.Model); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if err := s.configure(c); err != nil {
		return nil, err
	}
	return s, nil
}

func (m *modelDefinition) parse(raw json.RawMessage) error {
	var head struct {
		Type  string          `json:"type"`
		Vocab json.RawMessage `json:"vocab"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return jsonError(err)
	}
	if head.Type != "BPE" && head.Type != "WordPiece" {
		return fmt.Errorf("type %q is not supported: want BPE or WordPiece", head.Type)
	}
	m.kind = head.Type
	var vocab map[string]int64
	if err := json.Unmarshal(head.Vocab, &vocab); err != nil {
		return fmt.Errorf("vocab: %w", jsonError(err))
	}
	if err := m.setVocab(vocab); err != nil {
		return err
	}
	var rest struct {
		Unk          *string         `json:"unk_token"`
		Prefix       string          `json:"continuing_subword_prefix"`
		MaxChars     *int            `json:"max_input_chars_per_word"`
		Dropout      *float64        `json:"dropout"`
		Suffix       string          `json:"end_of_word_suffix"`
		FuseUnk      bool            `json:"fuse_unk"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
		Merges       json.RawMessage `json:"merges"`
	}
	if err := json.Unmarshal(raw, &rest); err != nil {
		return jsonError(err)
	}
	if rest.Dropout != nil && *rest.Dropout != 0 {
		return fmt.Errorf("dropout %v is not supported: the same text would have different ids", *rest.Dropout)
	}
	m.prefix, m.suffix = rest.Prefix, rest.Suffix
	m.fuseUnk, m.byteFallback, m.ignoreMerges = rest.FuseUnk, rest.ByteFallback, rest.IgnoreMerges
	m.maxChars = 100
	if rest.MaxChars != nil {
		m.maxChars = *rest.MaxChars
	}
	if m.hasUnk = rest.Unk != nil; m.hasUnk {
		m.unk = *rest.Unk
	}
	if m.kind == "WordPiece" {
		return nil
	}
	return m.parseMerges(rest.Merges)
}

// parseMerges accepts a list of pairs, and the older list of strings with a space between.
func (m *modelDefinition) parseMerges(raw json.RawMessage) error {
	if len(raw) == 0 {
		return errors.New("no merges")
	}
	var lines []string
	if err := json.Unmarshal(raw, &lines); err == nil {
		m.merges = make([]mergeRule, 0, len(lines))
		for i, line := range lines {
			left, right, ok := strings.Cut(line, " ")
			if !ok || strings.Contains(right, " ") {
				return fmt.Errorf("merges[%d]: %q is not two tokens", i, line)
			}
			if err := m.addMerge(left, right); err != nil {
				return err
			}
		}
		return nil
	}
	var pairs [][]string
	if err := json.Unmarshal(raw, &pairs); err != nil {
		return fmt.Errorf("merges: %w", jsonError(err))
	}
	m.merges = make([]mergeRule, 0, len(pairs))
	for i, p := range pairs {
		if len(p) != 2 {
			return fmt.Errorf("merges[%d]: %d tokens, want 2", i, len(p))
		}
		if err := m.addMerge(p[0], p[1]); err != nil {
			return err
		}
	}
	return nil
}
