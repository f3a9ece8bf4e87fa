package tokenizer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// folderConfig is what the files beside a tokenizer say about it: tokenizer_config.json, and where
// that is silent special_tokens_map.json and added_tokens.json.
type folderConfig struct {
	roles   map[string]string // pad_token, ... to the token
	further map[string]bool   // special tokens without a role
	chat    string

	Lowercase    *bool                      `json:"do_lower_case"`
	StripAccents *bool                      `json:"strip_accents"`
	ChineseChars *bool                      `json:"tokenize_chinese_chars"`
	PrefixSpace  *bool                      `json:"add_prefix_space"`
	Legacy       *bool                      `json:"legacy"`
	AddBOS       *bool                      `json:"add_bos_token"`
	AddEOS       *bool                      `json:"add_eos_token"`
	AddedTokens  map[string]json.RawMessage `json:"added_tokens_decoder"`
	ChatTemplate json.RawMessage            `json:"chat_template"`
	addedTokens  []addedToken               // AddedTokens, or those of added_tokens.json, in the order of their ids
}

var roleNames = []string{"pad_token", "unk_token", "cls_token", "sep_token", "bos_token", "eos_token", "mask_token"}

// readConfig reads the files beside a tokenizer; all of them may be absent.
func readConfig(dir string) (*folderConfig, error) {
	c := &folderConfig{roles: map[string]string{}, further: map[string]bool{}}
	for _, name := range []string{"tokenizer_config.json", "special_tokens_map.json"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := c.read(data, name == "tokenizer_config.json"); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
	}
	if c.AddedTokens == nil {
		if err := c.readAddedTokens(filepath.Join(dir, "added_tokens.json")); err != nil {
			return nil, err
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "chat_template.jinja"))
	switch {
	case err == nil:
		c.chat = string(data)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return c, nil
}

// read takes in one of the two files. The roles of the first one read count.
func (c *folderConfig) read(data []byte, full bool) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return jsonError(err)
	}
	for _, role := range roleNames {
		token, err := tokenContent(fields[role])
		if err != nil {
			return fmt.Errorf("%s: %w", role, err)
		}
		if _, ok := c.roles[role]; !ok && token != "" {
			c.roles[role] = token
		}
	}
	var further []json.RawMessage
	if raw := fields["additional_special_tokens"]; len(raw) > 0 {
		if err := json.Unmarshal(raw, &further); err != nil {
			return fmt.Errorf("additional_special_tokens: %w", jsonError(err))
		}
	}
	for _, raw := range further {
		token, err := tokenContent(raw)
		if err != nil {
			return fmt.Errorf("additional_special_tokens: %w", err)
		}
		c.further[token] = true
	}
	if !full {
		return nil
	}
	if err := json.Unmarshal(data, c); err != nil {
		return jsonError(err)
	}
	if err := c.readChat(); err != nil {
		return fmt.Errorf("chat_template: %w", err)
	}
	for key, raw := range c.AddedTokens {
		var a addedToken
		if err := json.Unmarshal(raw, &a); err != nil {
			return fmt.Errorf("added_tokens_decoder[%q]: %w", key, jsonError(err))
		}
		id, err := strconv.ParseInt(key, 10, 64)
		if err != nil || id < 0 || id >= maxTokens {
			return fmt.Errorf("added_tokens_decoder: %q is no token id", key)
		}
		a.ID = id
		c.addedTokens = append(c.addedTokens, a)
	}
	c.sortAdded()
	return nil
}

// readAddedTokens reads a file that transformers wrote before 4.34: token to id. As there, those that are special by role
// or by name are found in the text as it is, the others in what normalization makes of it.
func (c *folderConfig) readAddedTokens(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var ids map[string]int64
	if err := json.Unmarshal(data, &ids); err != nil {
		return fmt.Errorf("%s: %w", path, jsonError(err))
	}
	roles := map[string]bool{}
	for _, token := range c.roles {
		roles[token] = true
	}
	for token, id := range ids {
		if id < 0 || id >= maxTokens || token == "" {
			return fmt.Errorf("%s: %q with id %d is no token", path, token, id)
		}
		special := roles[token] || c.further[token]
		c.addedTokens = append(c.addedTokens, addedToken{ID: id, Content: token, Special: special, Normalized: !special})
	}
	c.sortAdded()
	return nil
}

func (c *folderConfig) sortAdded() {
	slices.SortFunc(c.addedTokens, func(a, b addedToken) int { return cmp.Compare(a.ID, b.ID) })
}

// readChat accepts a template, or a list of named ones of which "default" counts.
func (c *folderConfig) readChat() error {
	if len(c.ChatTemplate) == 0 {
		return nil
	}
	if json.Unmarshal(c.ChatTemplate, &c.chat) == nil {
		return nil
	}
	var named []struct{ Name, Template string }
	if err := json.Unmarshal(c.ChatTemplate, &named); err != nil {
		return errors.New("neither a string nor a list of named templates")
	}
	for _, n := range named {
		if n.Name == "default" {
			c.chat = n.Template
		}
	}
	return nil
}

// tokenContent reads a token given as a string, as an object with its content, or as null.
func tokenContent(raw json.RawMessage) (string, error) {
	if len(raw) == 0 {
		return "", nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s, nil
	}
	var object struct{ Content string }
	if err := json.Unmarshal(raw, &object); err != nil {
		return "", errors.New("neither a string nor an object with its content")
	}
	return object.Content, nil
}

// name finds the tokens with a role: those the configuration names, else those that the model,
// the padding and the template of the tokenizer itself give away.
func (t *Tokenizer) name(c *folderConfig) {
	t.chat = c.chat
	id := func(role string) int64 {
		if token := c.roles[role]; token != "" {
			if id, ok := t.ids[token]; ok {
				return id
			}
		}
		return -1
	}
	t.named = namedTokens{
		pad: id("pad_token"), unk: id("unk_token"), cls: id("cls_token"),
		sep: id("sep_token"), bos: id("bos_token"), eos: id("eos_token"),
	}
	fill := func(to *int64, id int64) {
		if *to < 0 {
			*to = id
		}
	}
	if m := t.spec.model; m.hasUnk {
		if id, ok := m.vocab[m.unk]; ok {
			fill(&t.named.unk, int64(id))
		}
	}
	if id, ok := t.ids[t.spec.padToken]; ok {
		fill(&t.named.pad, id)
	}
	first, last := &t.named.bos, &t.named.eos
	if t.spec.model.kind == "WordPiece" {
		first, last = &t.named.cls, &t.named.sep
	}
	if len(t.post.before) == 1 {
		fill(first, t.post.before[0])
	}
	if len(t.post.after) == 1 {
		fill(last, t.post.after[0])
	}
}
