package tokenizer

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"

	"gopeft/model/fsutil"
)

// folderConfig is what the files beside a tokenizer say about it: tokenizer_config.json, and where that lists no added
// tokens, as those written before transformers 4.34, special_tokens_map.json and added_tokens.json.
type folderConfig struct {
	found   bool                  // one of these files is there
	given   map[string]bool       // the keys that they have, even those with null
	roles   map[string]string     // from a role, such as pad_token, to its token
	flags   map[string]addedToken // of the tokens that an object describes, not just a text
	further []configToken         // additional_special_tokens: special tokens without a role
	extra   []configToken         // extra_special_tokens
	class   tokenizerClass
	chat    string

	TokenizerClass string                     `json:"tokenizer_class"`
	Lowercase      *bool                      `json:"do_lower_case"`
	StripAccents   *bool                      `json:"strip_accents"`
	ChineseChars   *bool                      `json:"tokenize_chinese_chars"`
	PrefixSpace    *bool                      `json:"add_prefix_space"`
	TrimOffsets    *bool                      `json:"trim_offsets"`
	Legacy         *bool                      `json:"legacy"`
	AddBOS         *bool                      `json:"add_bos_token"`
	AddEOS         *bool                      `json:"add_eos_token"`
	SplitSpecial   bool                       `json:"split_special_tokens"`
	CleanUp        bool                       `json:"clean_up_tokenization_spaces"`
	AddedTokens    map[string]json.RawMessage `json:"added_tokens_decoder"`
	ChatTemplate   json.RawMessage            `json:"chat_template"`
	addedTokens    []addedToken               // AddedTokens, or those of added_tokens.json, in the order of their ids
}

// configToken is a special token that the configuration names.
type configToken struct {
	addedToken
	role  bool
	flags bool // an object describes it, which also says how it is searched
}

// roleNames are in the order in which transformers gives new special tokens their ids.
var roleNames = []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}

// infillNames are the roles that CodeLLaMA's tokenizer has beside these.
var infillNames = []string{"prefix_token", "middle_token", "suffix_token", "eot_token"}

// readConfig reads the files beside a tokenizer; all of them may be absent.
func readConfig(dir string) (*folderConfig, error) {
	c := &folderConfig{given: map[string]bool{}, roles: map[string]string{}, flags: map[string]addedToken{}}
	if err := c.readFile(dir, "tokenizer_config.json", c.readFull); err != nil {
		return nil, err
	}
	if err := c.readClass(dir); err != nil {
		return nil, err
	}
	if c.AddedTokens == nil {
		if err := c.readFile(dir, "special_tokens_map.json", c.readMap); err != nil {
			return nil, err
		}
		if err := c.readFile(dir, "added_tokens.json", c.readAddedTokens); err != nil {
			return nil, err
		}
	}
	data, err := fsutil.ReadSmall(filepath.Join(dir, "chat_template.jinja"), fsutil.MaxSettings)
	switch {
	case err == nil:
		c.chat = string(data)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return c, nil
}

// readFile has a file read, if it is there.
func (c *folderConfig) readFile(dir, name string, read func(data []byte) error) error {
	path := filepath.Join(dir, name)
	data, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c.found = true
	if err := read(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// readFull takes in a tokenizer_config.json.
func (c *folderConfig) readFull(data []byte) error {
	fields, err := c.readRoles(data, false)
	if err != nil {
		return err
	}
	if c.further, err = readTokens(fields["additional_special_tokens"], false); err != nil {
		return fmt.Errorf("additional_special_tokens: %w", err)
	}
	if c.extra, err = readTokens(fields["extra_special_tokens"], false); err != nil {
		return fmt.Errorf("extra_special_tokens: %w", err)
	}
	if err := json.Unmarshal(data, c); err != nil {
		return jsonError(err)
	}
	if c.SplitSpecial {
		return errors.New("split_special_tokens, special tokens read as ordinary text, is not supported")
	}
	if c.given["add_bos_token"] && c.AddBOS == nil {
		c.AddBOS = new(bool) // Python takes null for false, but a missing key for true
	}
	if err := c.readChat(); err != nil {
		return fmt.Errorf("chat_template: %w", err)
	}
	for key, raw := range c.AddedTokens {
		a, err := readAdded(raw, false)
		if err != nil {
			return fmt.Errorf("added_tokens_decoder[%q]: %w", key, err)
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

// readMap takes in a special_tokens_map.json, whose tokens replace those read before it.
func (c *folderConfig) readMap(data []byte) error {
	fields, err := c.readRoles(data, true)
	if err != nil {
		return err
	}
	further, err := readTokens(fields["additional_special_tokens"], true)
	if err != nil {
		return fmt.Errorf("additional_special_tokens: %w", err)
	}
	for _, token := range further {
		if !slices.Contains(c.further, token) {
			c.further = append(c.further, token)
		}
	}
	return nil
}

// readRoles takes in the roles that a file gives, and hands back all its fields.
func (c *folderConfig) readRoles(data []byte, special bool) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, jsonError(err)
	}
	for key := range fields {
		c.given[key] = true
	}
	for _, role := range slices.Concat(roleNames, infillNames) {
		raw, ok := fields[role]
		if !ok {
			continue
		}
		token, err := readToken(raw, special)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", role, err)
		}
		delete(c.roles, role)
		delete(c.flags, role)
		if token.Content != "" {
			c.roles[role] = token.Content
		}
		if token.flags {
			c.flags[role] = token.addedToken
		}
	}
	return fields, nil
}

// readAddedTokens takes in a file that transformers wrote before 4.34: token to id. As there, those that are special by
// role or by name are found in the text as it is, the others in what normalization makes of it.
func (c *folderConfig) readAddedTokens(data []byte) error {
	var ids map[string]int64
	if err := json.Unmarshal(data, &ids); err != nil {
		return jsonError(err)
	}
	isSpecial := map[string]bool{}
	for _, token := range c.roles {
		isSpecial[token] = true
	}
	for _, token := range c.further {
		isSpecial[token.Content] = true
	}
	for token, id := range ids {
		if id < 0 || id >= maxTokens || token == "" {
			return fmt.Errorf("%q with id %d is no token", token, id)
		}
		special := isSpecial[token]
		c.addedTokens = append(c.addedTokens, addedToken{ID: id, Content: token, Special: special, Normalized: !special})
	}
	c.sortAdded()
	return nil
}

func (c *folderConfig) sortAdded() {
	slices.SortFunc(c.addedTokens, func(a, b addedToken) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Content, b.Content))
	})
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

// special lists the special tokens that the files name, in the order in which transformers does, each once.
func (c *folderConfig) special() []configToken {
	if !c.found {
		return nil
	}
	var all []configToken
	seen := map[string]bool{}
	add := func(t configToken) {
		if t.Content != "" && !seen[t.Content] {
			seen[t.Content] = true
			all = append(all, t)
		}
	}
	roles := func(names []string, role bool) {
		for _, name := range names {
			t := configToken{addedToken: addedToken{Content: c.roles[name], Special: true}, role: role}
			if a, ok := c.flags[name]; ok {
				t.addedToken, t.flags = a, true
			} else if name == "mask_token" && c.class.roberta {
				t.LStrip, t.flags = true, true
			}
			add(t)
		}
	}
	roles(roleNames, true)
	for _, t := range c.further {
		add(t)
	}
	if c.class.infills {
		roles(infillNames, false)
	}
	for _, t := range c.extra {
		add(t)
	}
	return all
}

// readTokens reads a list of tokens, or an object whose values are tokens, in its order.
func readTokens(raw json.RawMessage, special bool) ([]configToken, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var parts []json.RawMessage
	if json.Unmarshal(raw, &parts) != nil {
		d := json.NewDecoder(bytes.NewReader(raw))
		if open, err := d.Token(); err != nil || open != json.Delim('{') {
			return nil, errors.New("not a list of tokens")
		}
		for d.More() {
			if _, err := d.Token(); err != nil { // the name
				return nil, err
			}
			var part json.RawMessage
			if err := d.Decode(&part); err != nil {
				return nil, err
			}
			parts = append(parts, part)
		}
	}
	tokens := make([]configToken, len(parts))
	for i, part := range parts {
		var err error
		if tokens[i], err = readToken(part, special); err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

// readToken reads a token given as a string, as an object with its content, or as null.
func readToken(raw json.RawMessage, special bool) (configToken, error) {
	var content string
	if json.Unmarshal(raw, &content) == nil {
		return configToken{addedToken: addedToken{Content: content, Special: true}}, nil
	}
	a, err := readAdded(raw, special)
	if err != nil {
		return configToken{}, errors.New("neither a string nor an object with its content")
	}
	return configToken{addedToken: a, flags: true}, nil
}

// readAdded reads a token given as an object; special makes it a special one. As in the library, a token that is not
// special is found in normalized text unless the object says otherwise.
func readAdded(raw json.RawMessage, special bool) (addedToken, error) {
	object := struct {
		addedToken
		Normalized *bool `json:"normalized"`
	}{}
	if err := json.Unmarshal(raw, &object); err != nil {
		return addedToken{}, jsonError(err)
	}
	a := object.addedToken
	a.Special = a.Special || special
	a.Normalized = !a.Special
	if object.Normalized != nil {
		a.Normalized = *object.Normalized
	}
	return a, nil
}

// findRoles finds the token of every role: the one that the configuration names, else what the model's unknown token,
// the padding section and the template show it to be.
func (t *Tokenizer) findRoles(c *folderConfig) {
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
	if m := t.definition.model; m.hasUnk {
		if id, ok := m.vocab[m.unk]; ok {
			fill(&t.named.unk, int64(id))
		}
	}
	if id, ok := t.ids[t.definition.padToken]; ok {
		fill(&t.named.pad, id)
	}
	first, last := &t.named.bos, &t.named.eos
	if t.definition.model.kind == "WordPiece" {
		first, last = &t.named.cls, &t.named.sep
	}
	if len(t.post.before) == 1 {
		fill(first, t.post.before[0])
	}
	if len(t.post.after) == 1 {
		fill(last, t.post.after[0])
	}
}
