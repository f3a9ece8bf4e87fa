package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxNew bounds how many tokens With adds.
const maxNew = 100_000

// With gives a tokenizer that has further tokens, behind those of t in their order, and their ids: as transformers' add_tokens
// adds them, found in normalized text as a whole. One that is empty, given twice or a token already is an error.
func (t *Tokenizer) With(tokens ...string) (*Tokenizer, []int64, error) {
	if len(tokens) > maxNew {
		return nil, nil, fmt.Errorf("%d new tokens, want at most %d", len(tokens), maxNew)
	}
	d := *t.definition
	d.further = slices.Clone(d.further)
	for i, token := range tokens {
		switch id, known := t.ids[token]; {
		case strings.TrimSpace(token) == "":
			return nil, nil, fmt.Errorf("new token %d is empty", i+1)
		case known:
			return nil, nil, fmt.Errorf("%q is a token already, %d", token, id)
		case slices.Contains(tokens[:i], token):
			return nil, nil, fmt.Errorf("new token %q is given twice", token)
		}
		d.further = append(d.further, addedToken{Content: token, Normalized: true})
	}
	next, err := build(&d, t.folder)
	if err != nil {
		return nil, nil, err
	}
	next.source = t.source
	var ids []int64
	for _, token := range tokens {
		ids = append(ids, next.ids[token])
	}
	return next, ids, nil
}

// extend puts the tokens that With has added into the files that the tokenizer was read from. Those that only the
// configuration adds go with them, since their ids are before; and the normalizer that the configuration makes, since the new
// ones are found in what that gives.
func (t *Tokenizer) extend(files map[string][]byte) error {
	further := t.definition.further
	if len(further) == 0 {
		return nil
	}
	known := map[string]bool{}
	for _, a := range t.definition.added {
		known[a.Content] = true
	}
	var all []addedToken
	for _, a := range slices.Concat(t.definition.configAdded, further) {
		if a.ID = t.ids[a.Content]; !known[a.Content] {
			known[a.Content] = true
			all = append(all, a)
		}
	}
	if files["tokenizer.json"] == nil { // of a folder without one, its place is empty
		whole, err := t.definition.json()
		if err != nil {
			return err
		}
		files["tokenizer.json"] = whole
	}
	err := edit(files, "tokenizer.json", "added_tokens", func(list *[]json.RawMessage) error {
		for _, a := range all {
			raw, err := marshal(a)
			if err != nil {
				return err
			}
			*list = append(*list, raw)
		}
		return nil
	})
	if err == nil && len(t.definition.addedNormalizer) > 0 {
		err = edit(files, "tokenizer.json", "normalizer", func(n *json.RawMessage) error {
			*n = t.definition.normalizer
			return nil
		})
	}
	if err != nil || files["tokenizer_config.json"] == nil {
		return err
	}
	return edit(files, "tokenizer_config.json", "added_tokens_decoder", func(m *map[string]json.RawMessage) error {
		if len(*m) == 0 { // transformers takes those of tokenizer.json then
			return nil
		}
		for _, a := range all[len(all)-len(further):] {
			raw, err := marshal(map[string]any{"content": a.Content, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false, "special": false})
			if err != nil {
				return err
			}
			(*m)[strconv.FormatInt(a.ID, 10)] = raw
		}
		return nil
	})
}

// edit changes one value of a JSON object among files; where the object has none of that key, it is left so unless change
// makes one.
func edit[T any](files map[string][]byte, name, key string, change func(*T) error) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(files[name], &all); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var value T
	if raw := all[key]; raw != nil {
		if err := json.Unmarshal(raw, &value); err != nil {
			return fmt.Errorf("%s: %s: %w", name, key, err)
		}
	}
	if err := change(&value); err != nil {
		return err
	}
	raw, err := marshal(value)
	if err != nil {
		return err
	}
	if all[key] != nil || string(raw) != "null" {
		all[key] = raw
	}
	files[name], err = marshal(all)
	return err
}

// marshal is JSON with < and > as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}
