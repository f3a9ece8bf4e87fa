package tokenizer

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// parseRanks reads LLaMA-3's tokenizer.model: a token in base64 and its rank on every line. The
// file has no special tokens. They come from tokenizer_config.json; without one they are those of
// LLaMA 3.1, numbered from the first free id.
func parseRanks(data []byte, c *folderConfig) (*definition, error) {
	s := &definition{model: modelDefinition{kind: "BPE", ignoreMerges: true}}
	ranks := map[string]int64{}
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		code, rank, _ := bytes.Cut(line, []byte(" "))
		token, err := base64.StdEncoding.DecodeString(string(code))
		if err != nil || len(token) == 0 {
			return nil, fmt.Errorf("line %d: %q is not a token in base64", number, code)
		}
		if len(token) > maxPiece {
			return nil, fmt.Errorf("line %d: a token of %d bytes, more than %d", number, len(token), maxPiece)
		}
		id, err := strconv.ParseInt(string(rank), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: %q is not a rank", number, rank)
		}
		if _, ok := ranks[string(token)]; ok {
			return nil, fmt.Errorf("line %d: the token is there twice", number)
		}
		ranks[string(token)] = id
	}
	if len(ranks) == 0 {
		return nil, errors.New("no ranks")
	}
	vocab := make(map[string]int64, len(ranks))
	used := make(map[int64]bool, len(ranks))
	for token, id := range ranks {
		if id < 0 || id >= int64(len(ranks)) || used[id] {
			return nil, fmt.Errorf("the ranks are not the numbers 0 to %d: %d", len(ranks)-1, id)
		}
		used[id] = true
		vocab[printableBytes(token)] = id
	}
	if err := s.model.setVocab(vocab); err != nil {
		return nil, err
	}
	s.model.merges = mergesByRank(ranks)

	s.added = c.addedTokens
	if len(s.added) == 0 {
		s.added = llama3Special(int64(len(ranks)))
		for role, token := range map[string]string{"bos_token": llama3BOS, "eos_token": llama3EOS, "pad_token": llama3Pad} {
			if c.roles[role] == "" {
				c.roles[role] = token
			}
		}
	}
	for i, a := range s.added {
		if want := int64(len(ranks) + i); a.ID != want {
			return nil, fmt.Errorf("tokenizer_config.json gives special token %q the id %d, but the next after the %d ranks is %d", a.Content, a.ID, len(ranks), want)
		}
	}
	s.byteLevel(raw(map[string]any{
		"type": "Split", "pattern": map[string]any{"Regex": llama3Pattern}, "behavior": "Isolated", "invert": false,
	}), false)
	bos := c.roles["bos_token"]
	addBOS := c.AddBOS == nil && bos != "" || c.AddBOS != nil && *c.AddBOS
	if err := s.around(bos, addBOS, c.roles["eos_token"], c.AddEOS != nil && *c.AddEOS); err != nil {
		return nil, err
	}
	return s, nil
}

// byteLevel sets the pre-tokenizers and the decoder of a byte-level model whose words are cut by
// before, if that is not nil, and else or in addition by GPT-2's pattern.
func (s *definition) byteLevel(before []byte, gpt2 bool) {
	type m = map[string]any
	level := m{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": gpt2}
	s.preTokenizer = raw(level)
	if before != nil {
		s.preTokenizer = raw(m{"type": "Sequence", "pretokenizers": []any{json.RawMessage(before), level}})
	}
	s.decoder = raw(level)
}

// printableBytes is a byte string as byte-level vocabularies write it.
func printableBytes(s string) string {
	chars := byteChars()
	out := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		out = utf8.AppendRune(out, chars[s[i]])
	}
	return string(out)
}

// mergesByRank lists the merges that ranks imply: every way to put a token together from two
// others, the tokens by their ranks.
func mergesByRank(ranks map[string]int64) []mergeRule {
	var lengths [maxPiece + 1]bool // which tokens have, so that few halves are looked up
	for token := range ranks {
		lengths[len(token)] = true
	}
	var all []mergeRule
	for token, id := range ranks {
		for i := 1; i < len(token); i++ {
			if !lengths[i] || !lengths[len(token)-i] {
				continue
			}
			left, ok := ranks[token[:i]]
			if !ok {
				continue
			}
			if right, ok := ranks[token[i:]]; ok {
				all = append(all, mergeRule{int32(left), int32(right), int32(id)})
			}
		}
	}
	slices.SortFunc(all, func(a, b mergeRule) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.left, b.left), cmp.Compare(a.right, b.right))
	})
	return all
}

const (
	llama3BOS = "<|begin_of_text|>"
	llama3EOS = "<|end_of_text|>"
	llama3Pad = "<|finetune_right_pad_id|>"
)

// llama3Special are the 256 special tokens of LLaMA 3.1, from id first on. LLaMA 3 has other
// names for a few that it does not use.
func llama3Special(first int64) []addedToken {
	named := map[int]string{
		0: llama3BOS, 1: llama3EOS, 4: llama3Pad, 6: "<|start_header_id|>", 7: "<|end_header_id|>",
		8: "<|eom_id|>", 9: "<|eot_id|>", 10: "<|python_tag|>",
	}
	tokens := make([]addedToken, 256)
	reserved := 0
	for i := range tokens {
		name, ok := named[i]
		if !ok {
			name = fmt.Sprintf("<|reserved_special_token_%d|>", reserved)
			reserved++
		}
		tokens[i] = addedToken{ID: first + int64(i), Content: name, Special: true}
	}
	return tokens
}
