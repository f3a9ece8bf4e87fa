package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gopeft/model/fsutil"
)

// maxTables bounds what is read of a vocabulary with its merges. The largest known take 40 MB.
const maxTables = 256 << 20

// sourceFiles are the files of a HuggingFace folder that make up its tokenizer.
var sourceFiles = []string{
	"tokenizer.json", "vocab.txt", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
	"added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
}

// Save writes the tokenizer into a folder that exists: the files it was read from, byte for
// byte, or if it came from GGUF a tokenizer.json and a tokenizer_config.json that say the same.
// Tokens that With has added are entered in them.
func (t *Tokenizer) Save(dir string) error {
	files, err := t.files()
	if err != nil {
		return fmt.Errorf("save tokenizer: %w", err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return fmt.Errorf("save tokenizer: %w", err)
		}
	}
	return nil
}

func (t *Tokenizer) files() (map[string][]byte, error) {
	files := map[string][]byte{}
	if t.source == "" {
		var err error
		if files["tokenizer.json"], err = t.definition.json(); err != nil {
			return nil, err
		}
		if files["tokenizer_config.json"], err = json.MarshalIndent(t.config(), "", "  "); err != nil {
			return nil, err
		}
		return files, t.extend(files)
	}
	for _, name := range sourceFiles {
		data, err := fsutil.ReadSmall(filepath.Join(t.source, name), maxTables)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[name] = data
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the files it was read from, in %s, are gone", t.source)
	}
	return files, t.extend(files)
}

// config is the tokenizer_config.json of a tokenizer that has none.
func (t *Tokenizer) config() map[string]any {
	c := map[string]any{"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false}
	for role, id := range map[string]int64{
		"pad_token": t.named.pad, "unk_token": t.named.unk, "cls_token": t.named.cls,
		"sep_token": t.named.sep, "bos_token": t.named.bos, "eos_token": t.named.eos,
	} {
		if token, ok := t.IDToToken(id); ok {
			c[role] = token
		}
	}
	if t.chat != "" {
		c["chat_template"] = t.chat
	}
	return c
}

// json is the definition as a tokenizer.json.
func (s *definition) json() ([]byte, error) {
	type m = map[string]any
	model := m{"type": s.model.kind, "vocab": s.model.vocab, "unk_token": nil}
	if s.model.hasUnk {
		model["unk_token"] = s.model.unk
	}
	if s.model.kind == "WordPiece" {
		model["continuing_subword_prefix"] = s.model.prefix
		model["max_input_chars_per_word"] = s.model.maxChars
	} else {
		merges := make([][2]string, len(s.model.merges))
		for i, r := range s.model.merges {
			merges[i] = [2]string{s.model.tokens[r.left], s.model.tokens[r.right]}
		}
		model["merges"] = merges
		model["dropout"], model["continuing_subword_prefix"], model["end_of_word_suffix"] = nil, nil, nil
		model["fuse_unk"], model["byte_fallback"] = s.model.fuseUnk, s.model.byteFallback
		model["ignore_merges"] = s.model.ignoreMerges
	}
	null := func(raw json.RawMessage) json.RawMessage {
		if len(raw) == 0 {
			return json.RawMessage("null")
		}
		return raw
	}
	added := s.added
	if added == nil {
		added = []addedToken{}
	}
	return json.Marshal(m{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added,
		"normalizer": null(s.normalizer), "pre_tokenizer": null(s.preTokenizer),
		"post_processor": null(s.postProcessor), "decoder": null(s.decoder), "model": model,
	})
}
