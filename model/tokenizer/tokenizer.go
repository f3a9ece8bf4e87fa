package tokenizer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	sugarme "github.com/sugarme/tokenizer"

	"gopeft/model/fsutil"
)

// Tokenizer turns text into token ids and back. It is safe for concurrent use.
type Tokenizer struct {
	definition      *definition
	normalizer      normalizer // nil: none
	behind          normalizer // of a text's later stretches; nil: all of it is normalized at once
	preTokenizers   []preTokenizer
	model           model
	rawAdded        *addedSearch // added tokens found in the text as it is,
	normalizedAdded *addedSearch // and in normalized text
	post            postProcessor
	margins         []margin // by id; nil where offsets keep white space
	decoder         sugarme.Decoder
	rawTokens       []string // by id, where decoding is no more than joining bytes
	byteFallback    bool     // decoding turns runs of tokens like <0x0A> into text
	tidy            bool     // clean_up_tokenization_spaces: spaces in front of punctuation go

	tokens  []string // by id; "" where there is none
	ids     map[string]int64
	special map[int64]bool
	named   namedTokens
	chat    string
	source  string // the folder it was read from; "" if none
	folder  *folderConfig

	encoders sync.Pool
}

// namedTokens are the special tokens with a role, -1 where there is none.
type namedTokens struct{ pad, unk, cls, sep, bos, eos int64 }

// Load reads the tokenizer of a HuggingFace folder: tokenizer.json, else vocab.txt (BERT), else
// tokenizer.model (SentencePiece, or the base64 ranks of LLaMA-3). The special tokens' roles, the
// chat template and some settings come from the files beside it, where there are such:
// tokenizer_config.json, chat_template.jinja, and where the first lists no added tokens
// special_tokens_map.json and added_tokens.json. Truncation and padding that a tokenizer.json
// prescribes are ignored: Options decide.
func Load(dir string) (*Tokenizer, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer: %w", err)
	}
	config, err := readConfig(abs)
	if err != nil {
		return nil, fmt.Errorf("load tokenizer: %w", err)
	}
	readers := []struct {
		name string
		read func(data []byte, c *folderConfig) (*definition, error)
	}{
		{"tokenizer.json", parseTokenizerJSON},
		{"vocab.txt", parseVocabTxt},
		{"tokenizer.model", parseTokenizerModel},
	}
	for _, r := range readers {
		path := filepath.Join(abs, r.name)
		data, err := fsutil.ReadSmall(path, maxTables)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("load tokenizer: %w", err)
		}
		s, err := r.read(data, config)
		if err != nil {
			return nil, fmt.Errorf("load tokenizer: %s: %w", filepath.Join(dir, r.name), err)
		}
		t, err := build(s, config)
		if err != nil {
			return nil, fmt.Errorf("load tokenizer: %s: %w", filepath.Join(dir, r.name), err)
		}
		t.source = abs
		return t, nil
	}
	return nil, &NoneError{dir}
}

// VocabSize is one more than the largest token id: the rows an embedding needs at least.
func (t *Tokenizer) VocabSize() int { return len(t.tokens) }

// TokenToID is the id of a token as the vocabulary writes it.
func (t *Tokenizer) TokenToID(token string) (int64, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// IDToToken is the token of an id, as the vocabulary writes it.
func (t *Tokenizer) IDToToken(id int64) (string, bool) {
	if id < 0 || id >= int64(len(t.tokens)) || t.tokens[id] == "" {
		return "", false
	}
	return t.tokens[id], true
}

// Around gives the special tokens that AddSpecial puts in front of a single text and behind it.
func (t *Tokenizer) Around() (before, after []int64) {
	return slices.Clone(t.post.before), slices.Clone(t.post.after)
}

// IsSpecial tells whether an id is a special token, one that Decode can skip.
func (t *Tokenizer) IsSpecial(id int64) bool { return t.special[id] }

// PadID is the id of the padding token; false if the tokenizer has none.
func (t *Tokenizer) PadID() (int64, bool) { return t.named.pad, t.named.pad >= 0 }

// UnkID is the id of the unknown token; false if the tokenizer has none.
func (t *Tokenizer) UnkID() (int64, bool) { return t.named.unk, t.named.unk >= 0 }

// CLSID is the id of the token that stands for the whole sequence; false if the tokenizer has none.
func (t *Tokenizer) CLSID() (int64, bool) { return t.named.cls, t.named.cls >= 0 }

// SEPID is the id of the separator; false if the tokenizer has none.
func (t *Tokenizer) SEPID() (int64, bool) { return t.named.sep, t.named.sep >= 0 }

// BOSID is the id of the beginning-of-sequence token; false if the tokenizer has none.
func (t *Tokenizer) BOSID() (int64, bool) { return t.named.bos, t.named.bos >= 0 }

// EOSID is the id of the end-of-sequence token; false if the tokenizer has none.
func (t *Tokenizer) EOSID() (int64, bool) { return t.named.eos, t.named.eos >= 0 }

// ChatTemplate is the Jinja template of a chat model, "" if there is none.
func (t *Tokenizer) ChatTemplate() string { return t.chat }

// NoneError is of a folder without a tokenizer.
type NoneError struct{ Folder string }

func (e *NoneError) Error() string {
	return fmt.Sprintf("load tokenizer: %s has no tokenizer.json, vocab.txt or tokenizer.model", e.Folder)
}
