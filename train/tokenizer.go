package train

import (
	"os"

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
