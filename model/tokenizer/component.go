package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	sugarme "github.com/sugarme/tokenizer"
	"github.com/sugarme/tokenizer/decoder"
	"github.com/sugarme/tokenizer/pretokenizer"
	"github.com/sugarme/tokenizer/processor"
)

// component is a normalizer, pre-tokenizer, post-processor or decoder as tokenizer.json has it:
// its type, and the union of the fields that some type has.
type component struct {
	Type string `json:"type"`

	Normalizers   []json.RawMessage `json:"normalizers"`
	PreTokenizers []json.RawMessage `json:"pretokenizers"`
	Processors    []json.RawMessage `json:"processors"`
	Decoders      []json.RawMessage `json:"decoders"`

	CleanText    bool  `json:"clean_text"`
	ChineseChars bool  `json:"handle_chinese_chars"`
	StripAccents *bool `json:"strip_accents"`
	Lowercase    bool  `json:"lowercase"`

	Prepend    string   `json:"prepend"`
	Pattern    *pattern `json:"pattern"`
	Content    string   `json:"content"`
	StripLeft  bool     `json:"strip_left"`
	StripRight bool     `json:"strip_right"`
	Start      int      `json:"start"`
	Stop       int      `json:"stop"`

	Behavior         string `json:"behavior"`
	Invert           bool   `json:"invert"`
	IndividualDigits bool   `json:"individual_digits"`
	AddPrefixSpace   *bool  `json:"add_prefix_space"`
	UseRegex         *bool  `json:"use_regex"`
	TrimOffsets      bool   `json:"trim_offsets"`
	Replacement      string `json:"replacement"`
	PrependScheme    string `json:"prepend_scheme"`
	Split            *bool  `json:"split"`
	Prefix           string `json:"prefix"`
	Cleanup          bool   `json:"cleanup"`

	Single        []templatePiece          `json:"single"`
	Pair          []templatePiece          `json:"pair"`
	SpecialTokens map[string]templateToken `json:"special_tokens"`
	SEP           *namedID                 `json:"sep"`
	CLS           *namedID                 `json:"cls"`
}

type pattern struct{ String, Regex *string }

type templatePiece struct {
	SpecialToken, Sequence *struct {
		ID     string `json:"id"`
		TypeID int    `json:"type_id"`
	}
}

type templateToken struct {
	IDs    []int    `json:"ids"`
	Tokens []string `json:"tokens"`
}

// namedID is a token with its id, written ["[SEP]", 102].
type namedID struct {
	token string
	id    int
}

func (n *namedID) UnmarshalJSON(data []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil || len(parts) != 2 {
		return errors.New("want a token and its id")
	}
	if err := json.Unmarshal(parts[0], &n.token); err != nil {
		return err
	}
	return json.Unmarshal(parts[1], &n.id)
}

// maxNesting bounds sequences within sequences.
const maxNesting = 8

// flatten reads a component and, of a sequence, its parts one after the other.
func flatten(raw json.RawMessage, depth int) ([]component, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	if depth > maxNesting {
		return nil, fmt.Errorf("sequences nested more than %d deep", maxNesting)
	}
	var c component
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, jsonError(err)
	}
	if c.Type != "Sequence" {
		return []component{c}, nil
	}
	var all []component
	for _, parts := range [][]json.RawMessage{c.Normalizers, c.PreTokenizers, c.Processors, c.Decoders} {
		for i, part := range parts {
			more, err := flatten(part, depth+1)
			if err != nil {
				return nil, fmt.Errorf("[%d]: %w", i, err)
			}
			all = append(all, more...)
		}
	}
	return all, nil
}

func parseNormalizer(raw json.RawMessage) (normalizer, error) {
	parts, err := flatten(raw, 0)
	if err != nil {
		return nil, err
	}
	var all normalizers
	for _, c := range parts {
		switch c.Type {
		case "BertNormalizer":
			accents := c.Lowercase
			if c.StripAccents != nil {
				accents = *c.StripAccents
			}
			all = append(all, bertNormalizer{c.CleanText, c.ChineseChars, accents, c.Lowercase})
		case "NFD":
			all = append(all, canonical{})
		case "NFC":
			all = append(all, canonical{compose: true})
		case "Lowercase":
			all = append(all, lowercase{})
		case "StripAccents":
			all = append(all, stripAccents{})
		case "Strip":
			all = append(all, stripper{c.StripLeft, c.StripRight})
		case "Prepend":
			all = append(all, prepender{c.Prepend})
		case "Replace":
			old, err := c.Pattern.text()
			if err != nil {
				return nil, err
			}
			all = append(all, replacer{old, c.Content})
		default:
			return nil, fmt.Errorf("type %q is not supported", c.Type)
		}
	}
	switch len(all) {
	case 0:
		return nil, nil
	case 1:
		return all[0], nil
	}
	return all, nil
}

// text is a pattern that is plain text.
func (p *pattern) text() (string, error) {
	switch {
	case p == nil || p.String == nil && p.Regex == nil:
		return "", errors.New("a Replace without a pattern")
	case p.String == nil:
		return "", fmt.Errorf("a Replace by the regular expression %q is not supported", *p.Regex)
	}
	return *p.String, nil
}

func parsePreTokenizer(raw json.RawMessage) ([]preTokenizer, error) {
	parts, err := flatten(raw, 0)
	if err != nil {
		return nil, err
	}
	var all []preTokenizer
	for _, c := range parts {
		p, err := c.preTokenizer()
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func (c *component) preTokenizer() (preTokenizer, error) {
	switch c.Type {
	case "BertPreTokenizer":
		return bertSplit{}, nil
	case "WhitespaceSplit":
		return whitespaceSplit{}, nil
	case "Digits":
		return digits{c.IndividualDigits}, nil
	case "ByteLevel":
		b := byteLevel{prefixSpace: c.AddPrefixSpace != nil && *c.AddPrefixSpace}
		if c.UseRegex == nil || *c.UseRegex {
			words := knownPatterns[gpt2Pattern]
			b.words = &words
		}
		return b, nil
	case "Split":
		if c.Pattern == nil || c.Pattern.Regex == nil {
			return nil, errors.New("a Split without a regular expression is not supported")
		}
		words, ok := knownPatterns[*c.Pattern.Regex]
		if !ok {
			return nil, fmt.Errorf("a Split by the regular expression %q is not supported", *c.Pattern.Regex)
		}
		// Every known pattern covers all of a text, so that these two are the same.
		if !(c.Behavior == "Isolated" && !c.Invert || c.Behavior == "Removed" && c.Invert) {
			return nil, fmt.Errorf("a Split with behavior %q, invert %t is not supported", c.Behavior, c.Invert)
		}
		return regexSplit{&words}, nil
	case "Metaspace":
		if utf8.RuneCountInString(c.Replacement) != 1 {
			return nil, fmt.Errorf("a Metaspace whose replacement %q is not one character", c.Replacement)
		}
		m := metaspace{replacement: c.Replacement, cut: c.Split == nil || *c.Split}
		switch c.PrependScheme {
		case "always":
			m.prefix = prefixAlways
		case "first":
			m.prefix = prefixFirst
		case "never":
		case "":
			if c.AddPrefixSpace == nil || *c.AddPrefixSpace {
				m.prefix = prefixAlways
			}
		default:
			return nil, fmt.Errorf("a Metaspace whose prepend_scheme %q is unknown", c.PrependScheme)
		}
		return m, nil
	}
	return nil, fmt.Errorf("type %q is not supported", c.Type)
}

func parsePostProcessor(raw json.RawMessage, vocab int) (postProcessor, error) {
	var p postProcessor
	parts, err := flatten(raw, 0)
	if err != nil {
		return p, fmt.Errorf("post_processor: %w", err)
	}
	for _, c := range parts {
		prefix := c.AddPrefixSpace == nil || *c.AddPrefixSpace
		switch c.Type {
		case "TemplateProcessing":
			var tokens []processor.SpecialToken
			for id, tok := range c.SpecialTokens {
				tokens = append(tokens, *processor.NewSpecialToken(id, tok.IDs, tok.Tokens))
			}
			single, err := template(c.Single)
			if err != nil {
				return p, err
			}
			pair, err := template(c.Pair)
			if err != nil {
				return p, err
			}
			if err := p.setTemplate(single, pair, tokens, vocab); err != nil {
				return p, err
			}
		case "BertProcessing", "RobertaProcessing":
			if c.CLS == nil || c.SEP == nil {
				return p, fmt.Errorf("post_processor: %s without cls and sep", c.Type)
			}
			cls, sep := processor.NewSpecialTokenPiece("cls", 0), processor.NewSpecialTokenPiece("sep", 0)
			a, b := processor.NewSequencePiece("A", 0), processor.NewSequencePiece("B", 1)
			pair := processor.Template{cls, a, sep, b, processor.NewSpecialTokenPiece("sep", 1)}
			if c.Type == "RobertaProcessing" {
				p.trimOffsets, p.keepPrefix = c.TrimOffsets, prefix
				pair = processor.Template{cls, a, sep, sep, processor.NewSequencePiece("B", 0), sep}
			}
			tokens := []processor.SpecialToken{
				*processor.NewSpecialToken("cls", []int{c.CLS.id}, []string{c.CLS.token}),
				*processor.NewSpecialToken("sep", []int{c.SEP.id}, []string{c.SEP.token}),
			}
			if err := p.setTemplate(processor.Template{cls, a, sep}, pair, tokens, vocab); err != nil {
				return p, err
			}
		case "ByteLevel":
			if c.TrimOffsets {
				p.trimOffsets, p.keepPrefix = true, prefix
			}
		default:
			return p, fmt.Errorf("post_processor: type %q is not supported", c.Type)
		}
	}
	return p, nil
}

func template(pieces []templatePiece) (processor.Template, error) {
	var t processor.Template
	for i, p := range pieces {
		switch {
		case p.Sequence != nil && (p.Sequence.ID == "A" || p.Sequence.ID == "B"):
			t = append(t, processor.NewSequencePiece(p.Sequence.ID, p.Sequence.TypeID))
		case p.SpecialToken != nil:
			t = append(t, processor.NewSpecialTokenPiece(p.SpecialToken.ID, p.SpecialToken.TypeID))
		default:
			return nil, fmt.Errorf("post_processor: piece %d of the template is neither a sequence A or B nor a special token", i)
		}
	}
	return t, nil
}

// parseDecoder also tells whether the decoder knows byte tokens.
func parseDecoder(raw json.RawMessage) (d sugarme.Decoder, byteFallback bool, err error) {
	parts, err := flatten(raw, 0)
	if err != nil {
		return nil, false, err
	}
	var all []sugarme.Decoder
	for _, c := range parts {
		var d sugarme.Decoder
		switch c.Type {
		case "WordPiece":
			d = decoder.NewWordPieceDecoder(c.Prefix, c.Cleanup)
		case "Fuse":
			d = decoder.NewFuse()
		case "ByteLevel":
			d = byteLevelDecoder{}
		case "ByteFallback":
			d, byteFallback = byteFallbackDecoder{}, true
		case "Metaspace":
			pre, err := c.preTokenizer()
			if err != nil {
				return nil, false, err
			}
			m := pre.(metaspace)
			d = pretokenizer.NewMetaspace(m.replacement, m.prefix != prefixNever)
		case "Replace":
			old, err := c.Pattern.text()
			if err != nil {
				return nil, false, err
			}
			d = replaceDecoder{old, c.Content}
		case "Strip":
			if c.Start < 0 || c.Stop < 0 || utf8.RuneCountInString(c.Content) != 1 {
				return nil, false, errors.New("a Strip wants one character, and counts that are not negative")
			}
			d = stripDecoder{c.Content, c.Start, c.Stop}
		default:
			return nil, false, fmt.Errorf("type %q is not supported", c.Type)
		}
		all = append(all, d)
	}
	switch len(all) {
	case 0:
		return nil, false, nil
	case 1:
		return all[0], byteFallback, nil
	}
	return decoder.NewSequence(all), byteFallback, nil
}

// jsonError says where in a file its JSON is wrong, in one line.
func jsonError(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("at byte %d: %w", syntax.Offset, err)
	}
	return err
}
