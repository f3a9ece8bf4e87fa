package train

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/hf/files"
	"gopeft/model/tokenizer"
)

// OpenTokenizer reads the tokenizer of a model: of its folder, or of a GGUF file's metadata.
func OpenTokenizer(path string) (*tokenizer.Tokenizer, error) {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return tokenizer.Load(path)
	}
	g, err := files.OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	meta, err := ggufTokenizer(g)
	if err != nil {
		return nil, err
	}
	return tokenizer.FromGGUF(meta)
}

// TokenizerHash identifies all of a model's files that decide which tokens a text becomes: of its folder, or a GGUF file's
// metadata.
func TokenizerHash(ctx context.Context, path string) (string, error) {
	h := sha256.New()
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		g, err := files.OpenGGUF(path)
		if err != nil {
			return "", err
		}
		defer g.Close()
		meta, err := ggufTokenizer(g)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%q %q %v %v\n", meta.Tokens, meta.Merges, meta.Scores, meta.Types)
		meta.Tokens, meta.Merges, meta.Scores, meta.Types = nil, nil, nil, nil
		err = json.NewEncoder(h).Encode(meta) // through the pointers in it
		return hex.EncodeToString(h.Sum(nil)), err
	}
	// The configurations too: they name end tokens and sizes of vocabularies.
	for _, name := range []string{"tokenizer.json", "vocab.txt", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
		"vocab.json", "merges.txt", "chat_template.jinja", "config.json", "generation_config.json"} {
		sum, err := fsutil.HashFile(ctx, filepath.Join(path, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, name, sum)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ggufTokenizer collects what a GGUF file says about its tokenizer.
func ggufTokenizer(g *files.GGUF) (tokenizer.GGUF, error) {
	const prefix = "tokenizer.ggml."
	has := func(key string) bool { _, ok := g.Value(key); return ok }
	var failed error
	note := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	text := func(key string) string {
		if !has(key) {
			return ""
		}
		v, err := g.Text(key)
		note(err)
		return v
	}
	id := func(name string) int64 {
		if !has(prefix + name) {
			return -1
		}
		v, err := g.Int(prefix + name)
		note(err)
		return v
	}
	flag := func(name string) *bool {
		if !has(prefix + name) {
			return nil
		}
		v, err := g.Bool(prefix + name)
		note(err)
		return &v
	}
	meta := tokenizer.GGUF{
		Model: text(prefix + "model"), Pre: text(prefix + "pre"), ChatTemplate: text("tokenizer.chat_template"),
		BOS: id("bos_token_id"), EOS: id("eos_token_id"), UNK: id("unknown_token_id"), PAD: id("padding_token_id"),
		SEP: id("seperator_token_id"), CLS: id("cls_token_id"), // the misspelling is the format's
		AddBOS: flag("add_bos_token"), AddEOS: flag("add_eos_token"), AddSpacePrefix: flag("add_space_prefix"),
	}
	var err error
	if meta.Tokens, err = g.Texts(prefix + "tokens"); err != nil {
		return meta, err
	}
	if has(prefix + "scores") {
		scores, err := g.Floats(prefix + "scores")
		note(err)
		for _, v := range scores {
			meta.Scores = append(meta.Scores, float32(v))
		}
	}
	if has(prefix + "token_type") {
		types, err := g.Ints(prefix + "token_type")
		note(err)
		for _, v := range types {
			meta.Types = append(meta.Types, int32(v))
		}
	}
	if has(prefix + "merges") {
		meta.Merges, err = g.Texts(prefix + "merges")
		note(err)
	}
	return meta, failed
}

// Encoder tokenizes for package data, special tokens included. Without a Tokenizer, a row of text fails with
// Missing.
type Encoder struct {
	Tokenizer *tokenizer.Tokenizer
	Missing   error
}

// EncodeIDs implements data.Encoder.
func (e Encoder) EncodeIDs(dst []int64, text string, maxLength int) ([]int64, error) {
	if e.Tokenizer == nil {
		return dst, e.Missing
	}
	return e.Tokenizer.EncodeIDs(dst, text, tokenizer.Options{AddSpecial: true, MaxLength: maxLength})
}

// PadID is the tokenizer's padding token, else its end token, else some token that the model in folder has an embedding
// of: a token that only a configuration names may have an id beyond them. Without a tokenizer it is the model's own.
func PadID(t *tokenizer.Tokenizer, folder string) (int64, error) {
	facts, err := model.ReadFacts(folder)
	if err != nil || t == nil {
		return facts.Pad, err
	}
	for _, find := range []func() (int64, bool){t.PadID, t.EOSID} {
		if id, ok := find(); ok && (facts.Vocab == 0 || id < int64(facts.Vocab)) {
			return id, nil
		}
	}
	return 0, nil
}

// ClampLength is how many tokens of a text are read: what was asked for, at most what the model has room for.
func ClampLength(asked, room int) (int, error) {
	if room < 1 {
		return 0, Usage("the method's virtual tokens leave no room for a text: the model has positions for %d fewer than they need with one", 1-room)
	}
	if asked > room {
		return 0, Usage("--max-length is %d, the model reads at most %d tokens", asked, room)
	}
	if asked == 0 {
		return room, nil
	}
	return asked, nil
}
