package train

import (
	"gopeft/model"
	"gopeft/model/tokenizer"
)

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
	if asked > room {
		return 0, Usage("--max-length is %d, the model reads at most %d tokens", asked, room)
	}
	if asked == 0 {
		return room, nil
	}
	return asked, nil
}
