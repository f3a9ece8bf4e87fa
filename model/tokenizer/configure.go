package tokenizer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"gopeft/model/fsutil"
)

// tokenizerClass is what a class of transformers changes of a tokenizer.json. The zero value is PreTrainedTokenizerFast,
// and stands for the classes not listed here: it changes little.
type tokenizerClass struct {
	roles    map[string]string // its special tokens, where the configuration does not name them
	infills  bool              // infillNames are special tokens too
	bert     bool              // the configuration decides how BERT normalizes,
	llama    bool              // or which tokens are put around a text,
	roberta  bool              // or what offsets count as a token's, and its mask takes the space before it,
	prefixes bool              // or, if it has add_prefix_space, all that SentencePiece does with spaces
}

var (
	bertRoles = map[string]string{
		"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]",
	}
	llamaRoles  = map[string]string{"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
	infillRoles = map[string]string{
		"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
		"prefix_token": "▁<PRE>", "middle_token": "▁<MID>", "suffix_token": "▁<SUF>", "eot_token": "▁<EOT>",
	}
	robertaRoles = map[string]string{
		"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "pad_token": "<pad>", "mask_token": "<mask>",
	}
	gpt2Roles  = map[string]string{"unk_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
	qwen2Roles = map[string]string{"unk_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
)

// classes are by the name of the class without Fast.
var classes = map[string]tokenizerClass{
	"BertTokenizer":       {roles: bertRoles, bert: true},
	"DistilBertTokenizer": {roles: bertRoles, bert: true},
	"ElectraTokenizer":    {roles: bertRoles, bert: true},
	"LlamaTokenizer":      {roles: llamaRoles, llama: true, prefixes: true},
	"CodeLlamaTokenizer":  {roles: infillRoles, infills: true, llama: true},
	"RobertaTokenizer":    {roles: robertaRoles, roberta: true},
	"GPT2Tokenizer":       {roles: gpt2Roles},
	"Qwen2Tokenizer":      {roles: qwen2Roles},
}

// modelClasses are the classes of the models whose folders name none.
var modelClasses = map[string]string{
	"bert": "BertTokenizer", "distilbert": "DistilBertTokenizer", "electra": "ElectraTokenizer", "llama": "LlamaTokenizer",
	"mistral": "LlamaTokenizer", "code_llama": "CodeLlamaTokenizer", "gpt2": "GPT2Tokenizer", "qwen2": "Qwen2Tokenizer",
	"roberta": "RobertaTokenizer", "qwen3": "Qwen2Tokenizer", "phi3": "LlamaTokenizer", "olmo2": "GPT2Tokenizer", "granite": "GPT2Tokenizer",
}

// readClass finds the class that AutoTokenizer takes: the one that tokenizer_config.json names, else what config.json
// makes of it. Where there is no tokenizer_config.json a tokenizer.json is taken at its word.
func (c *folderConfig) readClass(dir string) error {
	if !c.found {
		return nil
	}
	name := c.TokenizerClass
	if name == "" {
		var config struct {
			TokenizerClass string `json:"tokenizer_class"`
			ModelType      string `json:"model_type"`
		}
		path := filepath.Join(dir, "config.json")
		data, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, &config); err != nil {
			return fmt.Errorf("%s: %w", path, jsonError(err))
		}
		name = cmp.Or(config.TokenizerClass, modelClasses[config.ModelType])
	}
	c.class = classes[strings.TrimSuffix(name, "Fast")]
	return nil
}

// configure puts over a tokenizer.json what the files beside it say, as transformers does when it opens the folder.
func (s *definition) configure(c *folderConfig) error {
	if !c.found {
		return nil
	}
	for role, token := range c.class.roles {
		if !c.given[role] {
			c.roles[role] = token
		}
	}
	if s.padToken != "" && !c.given["pad_token"] && c.roles["pad_token"] == "" {
		c.roles["pad_token"] = s.padToken
	}
	s.configAdded = c.tokensOver(s.added)
	if !c.class.prefixes {
		s.configurePrefix(c)
	}
	if c.class.bert {
		s.configureBERT(c)
	}
	if c.class.roberta {
		s.configureRoBERTa(c)
	}
	if c.class.llama {
		return s.configureLLaMA(c)
	}
	return nil
}

// tokensOver lists the tokens that transformers adds to those of a tokenizer.json: first those of the configuration that
// are not there, or there with other flags, by their ids; then the special ones that are new.
func (c *folderConfig) tokensOver(own []addedToken) []addedToken {
	inFile := map[string]addedToken{} // as the last entry has it
	ids := map[int64]bool{}
	for _, a := range own {
		ids[a.ID] = true
		a.ID = 0
		inFile[a.Content] = a
	}
	flags := inFile // of the tokens with a role, whatever flags these come with
	if c.AddedTokens != nil {
		flags = map[string]addedToken{}
	}
	var out []addedToken
	added := map[string]addedToken{}
	add := func(a addedToken) {
		added[a.Content] = a
		out = append(out, a)
	}
	for _, a := range c.addedTokens {
		id := a.ID
		a.ID = 0
		switch {
		case c.AddedTokens != nil:
			flags[a.Content] = a
		case ids[id]: // a tokenizer.json wins over added_tokens.json
			continue
		}
		if inFile[a.Content] != a {
			add(a)
		}
	}
	special := c.special()
	isSpecial := map[string]bool{}
	for _, t := range special {
		isSpecial[t.Content] = true
		if a, ok := flags[t.Content]; ok && t.role {
			t.addedToken, t.flags = a, true
		}
		_, there := inFile[t.Content]
		a, again := added[t.Content]
		if t.flags && !(again && a == t.addedToken) || !t.flags && !there && !again {
			add(t.addedToken)
		}
	}
	for i := range out {
		out[i].Special = out[i].Special || isSpecial[out[i].Content]
	}
	return out
}

// configureBERT does what transformers' BertTokenizerFast does. There it comes after the added tokens were entered, so
// that their contents are normalized as the file says.
func (s *definition) configureBERT(c *folderConfig) {
	var n component
	if json.Unmarshal(s.normalizer, &n) == nil && n.Type == "BertNormalizer" {
		s.addedNormalizer = s.normalizer
		s.setBERTNormalizer(n.CleanText, c)
	}
}

// configureRoBERTa does what transformers' RobertaTokenizerFast does.
func (s *definition) configureRoBERTa(c *folderConfig) {
	var p component
	if json.Unmarshal(s.postProcessor, &p) != nil || p.Type != "RobertaProcessing" || p.CLS == nil || p.SEP == nil {
		return
	}
	s.postProcessor = raw(map[string]any{
		"type": p.Type, "cls": []any{p.CLS.token, p.CLS.id}, "sep": []any{p.SEP.token, p.SEP.id},
		"add_prefix_space": c.PrefixSpace != nil && *c.PrefixSpace, "trim_offsets": c.TrimOffsets == nil || *c.TrimOffsets,
	})
}

// configureLLaMA does what transformers' LlamaTokenizerFast does.
func (s *definition) configureLLaMA(c *folderConfig) error {
	if c.class.prefixes && c.PrefixSpace != nil && s.model.byteFallback {
		s.normalizer, s.preTokenizer = nil, nil
		s.sentencePiece(*c.PrefixSpace, c.Legacy == nil || *c.Legacy)
	}
	s.postProcessor = nil
	return s.around(c.roles["bos_token"], c.AddBOS == nil || *c.AddBOS, c.roles["eos_token"], c.AddEOS != nil && *c.AddEOS)
}

// configurePrefix has a ByteLevel that is the only pre-tokenizer put a space in front of texts, or not: not unless the
// configuration says so.
func (s *definition) configurePrefix(c *folderConfig) {
	var p component
	if json.Unmarshal(s.preTokenizer, &p) != nil || p.Type != "ByteLevel" || c.given["add_prefix_space"] && c.PrefixSpace == nil {
		return
	}
	s.preTokenizer = raw(map[string]any{
		"type": "ByteLevel", "add_prefix_space": c.PrefixSpace != nil && *c.PrefixSpace, "trim_offsets": p.TrimOffsets,
		"use_regex": p.UseRegex == nil || *p.UseRegex,
	})
}
