package tokenizer

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// GGUF is what the metadata of a GGUF file say about the tokenizer; the keys are those under
// "tokenizer.ggml.".
type GGUF struct {
	Model  string    // "model": llama (SentencePiece BPE), gpt2 (byte-level BPE) or bert (WordPiece)
	Pre    string    // "pre": how gpt2 cuts words
	Tokens []string  // "tokens"
	Scores []float32 // "scores": llama needs them
	Types  []int32   // "token_type": 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; may be absent
	Merges []string  // "merges": gpt2 needs them, two tokens with a space between

	// "bos_token_id" and so on; -1 where the file has none.
	BOS, EOS, UNK, PAD, SEP, CLS int64
	// "add_bos_token", "add_eos_token", "add_space_prefix"; nil where the file does not say.
	AddBOS, AddEOS, AddSpacePrefix *bool
	ChatTemplate                   string // "tokenizer.chat_template"
}

// FromGGUF makes a tokenizer of a GGUF file's metadata.
func FromGGUF(g GGUF) (*Tokenizer, error) {
	c := &folderConfig{roles: map[string]string{}, chat: g.ChatTemplate, AddBOS: g.AddBOS, AddEOS: g.AddEOS}
	s, err := g.definition(c)
	if err != nil {
		return nil, fmt.Errorf("tokenizer of a GGUF file: %w", err)
	}
	t, err := build(s, c)
	if err != nil {
		return nil, fmt.Errorf("tokenizer of a GGUF file: %w", err)
	}
	return t, nil
}

func (g *GGUF) definition(c *folderConfig) (*definition, error) {
	if len(g.Tokens) == 0 {
		return nil, errors.New("no tokens")
	}
	if len(g.Types) != 0 && len(g.Types) != len(g.Tokens) {
		return nil, fmt.Errorf("%d token types for %d tokens", len(g.Types), len(g.Tokens))
	}
	for id, token := range g.Tokens {
		if !utf8.ValidString(token) {
			return nil, fmt.Errorf("token %d is not valid UTF-8", id)
		}
	}
	for role, id := range map[string]int64{
		"bos_token": g.BOS, "eos_token": g.EOS, "unk_token": g.UNK, "pad_token": g.PAD, "sep_token": g.SEP, "cls_token": g.CLS,
	} {
		if id >= int64(len(g.Tokens)) {
			return nil, fmt.Errorf("%s has the id %d, but there are %d tokens", role, id, len(g.Tokens))
		}
		if id >= 0 {
			c.roles[role] = g.Tokens[id]
		}
	}
	switch g.Model {
	case "llama":
		return g.sentencePiece(c)
	case "gpt2":
		return g.byteLevel(c)
	case "bert":
		return g.wordPiece(c)
	}
	return nil, fmt.Errorf("model %q is not supported: want llama, gpt2 or bert", g.Model)
}

func (g *GGUF) kind(id int) pieceType {
	if len(g.Types) == 0 {
		return pieceNormal
	}
	return pieceType(g.Types[id])
}

func (g *GGUF) sentencePiece(c *folderConfig) (*definition, error) {
	if len(g.Scores) != len(g.Tokens) {
		return nil, fmt.Errorf("%d scores for %d tokens", len(g.Scores), len(g.Tokens))
	}
	m := &spm{bpe: true, dummyPrefix: true, unk: int(g.UNK), bos: int(g.BOS), eos: int(g.EOS), pad: int(g.PAD)}
	m.pieces = make([]piece, len(g.Tokens))
	for id, token := range g.Tokens {
		if math.IsNaN(float64(g.Scores[id])) {
			return nil, fmt.Errorf("the score of token %d is not a number", id)
		}
		m.pieces[id] = piece{token, g.Scores[id], g.kind(id)}
		if m.unk < 0 && m.pieces[id].kind == pieceUnknown {
			m.unk = id
		}
	}
	c.PrefixSpace = g.AddSpacePrefix
	if c.AddBOS == nil && g.BOS < 0 {
		no := false
		c.AddBOS = &no
	}
	return m.definition(c)
}

// gpt2Words names how each value of "pre" cuts words.
var gpt2Words = map[string]struct {
	pattern      string // "": GPT-2's
	digits       bool   // every digit apart, before that
	nfc          bool
	ignoreMerges bool
	addBOS       bool // where the file does not say
}{
	"gpt-2": {}, "phi-2": {}, "mpt": {}, "olmo": {}, "roberta-bpe": {},
	"smollm": {digits: true}, "starcoder": {digits: true}, "refact": {digits: true}, "command-r": {digits: true},
	"llama-bpe": {pattern: llama3Pattern, ignoreMerges: true, addBOS: true},
	"llama3":    {pattern: llama3Pattern, ignoreMerges: true, addBOS: true},
	"llama-v3":  {pattern: llama3Pattern, ignoreMerges: true, addBOS: true},
	"qwen2":     {pattern: qwen2Pattern, nfc: true},
}

func (g *GGUF) byteLevel(c *folderConfig) (*definition, error) {
	words, ok := gpt2Words[g.Pre]
	if !ok {
		known := make([]string, 0, len(gpt2Words))
		for name := range gpt2Words {
			known = append(known, name)
		}
		slices.Sort(known)
		return nil, fmt.Errorf("pre-tokenizer %q is not supported: want one of %s", g.Pre, strings.Join(known, ", "))
	}
	s := &definition{model: modelDefinition{kind: "BPE", ignoreMerges: words.ignoreMerges}}
	if err := g.vocab(s); err != nil {
		return nil, err
	}
	for i, line := range g.Merges {
		// A token may hold a space only as Ġ, so that the one space is the separator.
		left, right, ok := strings.Cut(line, " ")
		if !ok {
			return nil, fmt.Errorf("merges[%d]: %q is not two tokens", i, line)
		}
		if err := s.model.addMerge(left, right); err != nil {
			return nil, err
		}
	}
	type m = map[string]any
	switch {
	case words.digits:
		s.byteLevel(raw(m{"type": "Digits", "individual_digits": true}), true)
	case words.pattern != "":
		s.byteLevel(raw(m{"type": "Split", "pattern": m{"Regex": words.pattern}, "behavior": "Isolated", "invert": false}), false)
	default:
		s.byteLevel(nil, true)
	}
	if words.nfc {
		s.normalizer = raw(m{"type": "NFC"})
	}
	addBOS := words.addBOS && g.BOS >= 0
	if c.AddBOS != nil {
		addBOS = *c.AddBOS
	}
	err := s.around(c.roles["bos_token"], addBOS, c.roles["eos_token"], c.AddEOS != nil && *c.AddEOS)
	return s, err
}

// vocab takes over the tokens, and as added tokens those that are no ordinary ones.
func (g *GGUF) vocab(s *definition) error {
	vocab := make(map[string]int64, len(g.Tokens))
	for id, token := range g.Tokens {
		if _, ok := vocab[token]; ok {
			return fmt.Errorf("token %d: %q is there twice", id, token)
		}
		vocab[token] = int64(id)
		if k := g.kind(id); k == pieceControl || k == pieceUserDefined {
			s.added = append(s.added, addedToken{ID: int64(id), Content: token, Special: k == pieceControl})
		}
	}
	return s.model.setVocab(vocab)
}

// wordPiece undoes what the conversion to GGUF does to BERT's vocabulary: it drops the ## of
// pieces within a word, and puts U+2581 in front of the others. The file does not say whether
// text is lowercased; a vocabulary with upper case in it says that it is not.
func (g *GGUF) wordPiece(c *folderConfig) (*definition, error) {
	plain := *g
	plain.Tokens = make([]string, len(g.Tokens))
	lower := true
	for id, token := range g.Tokens {
		switch {
		case strings.HasPrefix(token, "[") && strings.HasSuffix(token, "]"):
		case strings.HasPrefix(token, "▁"):
			token = strings.TrimPrefix(token, "▁")
			lower = lower && !strings.ContainsFunc(token, func(r rune) bool { return r >= 'A' && r <= 'Z' })
		default:
			token = "##" + token
		}
		plain.Tokens[id] = token
	}
	c.Lowercase = &lower
	for role, id := range map[string]int64{"unk_token": g.UNK, "pad_token": g.PAD, "sep_token": g.SEP, "cls_token": g.CLS} {
		if id >= 0 {
			c.roles[role] = plain.Tokens[id]
		}
	}
	vocab := make(map[string]int64, len(plain.Tokens))
	for id, token := range plain.Tokens {
		if _, ok := vocab[token]; ok {
			return nil, fmt.Errorf("token %d: %q is there twice", id, token)
		}
		vocab[token] = int64(id)
	}
	return bertDefinition(vocab, c)
}
