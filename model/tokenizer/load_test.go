package tokenizer

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/modeltest/realdata"
)

func TestLoadRejects(t *testing.T) {
	model := func(s string) string { return `{"model": ` + s + `}` }
	bert := `{"type": "WordPiece", "unk_token": "u", "vocab": {"u": 0}}`
	level := `{"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}`
	for _, c := range []struct{ name, file, content, want string }{
		{"nothing", "", "", "has no tokenizer.json, vocab.txt or tokenizer.model"},
		{"no JSON", "tokenizer.json", "{", "at byte 1"},
		{"a list", "tokenizer.json", "[]", "cannot unmarshal array"},
		{"no model", "tokenizer.json", "{}", "no model section"},
		{"unigram", "tokenizer.json", model(`{"type": "Unigram"}`), `type "Unigram" is not supported`},
		{"no vocab", "tokenizer.json", model(`{"type": "BPE", "merges": []}`), "vocab"},
		{"negative id", "tokenizer.json", model(`{"type": "BPE", "vocab": {"a": -1}, "merges": []}`), `token "a" has the id -1`},
		{"huge id", "tokenizer.json", model(`{"type": "BPE", "vocab": {"a": 4000000000}, "merges": []}`), "outside 0 to"},
		{"no merges", "tokenizer.json", model(`{"type": "BPE", "vocab": {"a": 0}}`), "no merges"},
		{"merge of one", "tokenizer.json", model(`{"type": "BPE", "vocab": {"a": 0}, "merges": ["aa"]}`), `merges[0]: "aa" is not two tokens`},
		{"merge of three", "tokenizer.json", model(`{"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a", "a"]]}`), "merges[0]: 3 tokens"},
		{"merge of unknown", "tokenizer.json", model(`{"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}`), `merges[0]: token "b" is not in the vocabulary`},
		{"merge to unknown", "tokenizer.json", model(`{"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}`), `"aa", is not in the vocabulary`},
		{"dropout", "tokenizer.json", model(`{"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []}`), "dropout"},
		{"normalizer", "tokenizer.json", `{"normalizer": {"type": "Precompiled"}, "model": ` + bert + `}`, `normalizer: type "Precompiled" is not supported`},
		{"replace", "tokenizer.json", `{"normalizer": {"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}, "model": ` + bert + `}`, `the regular expression "a+"`},
		{"pre-tokenizer", "tokenizer.json", `{"pre_tokenizer": {"type": "UnicodeScripts"}, "model": ` + bert + `}`, `pre_tokenizer: type "UnicodeScripts"`},
		{"split", "tokenizer.json", `{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated"}, "model": ` + bert + `}`, `the regular expression "x"`},
		{"bytes for WordPiece", "tokenizer.json", `{"pre_tokenizer": {"type": "ByteLevel"}, "model": ` + bert + `}`, "ByteLevel in front of WordPiece"},
		{"bytes first", "tokenizer.json", `{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]}, "model": ` + level + `}`, "something follows ByteLevel"},
		{"nesting", "tokenizer.json", `{"normalizer": ` + strings.Repeat(`{"type": "Sequence", "normalizers": [`, 20) + strings.Repeat(`]}`, 20) + `, "model": ` + bert + `}`, "nested"},
		{"template", "tokenizer.json", `{"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}]}, "model": ` + bert + `}`, `"x" is not declared`},
		{"template of two", "tokenizer.json", `{"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}]}, "model": ` + bert + `}`, "asks for a second"},
		{"template id", "tokenizer.json", `{"post_processor": {"type": "BertProcessing", "cls": ["u", 0], "sep": ["v", 7]}, "model": ` + bert + `}`, "the id 7, outside the vocabulary"},
		{"decoder", "tokenizer.json", `{"decoder": {"type": "CTC"}, "model": ` + bert + `}`, `decoder: type "CTC"`},
		{"strip", "tokenizer.json", `{"decoder": {"type": "Strip", "content": " ", "start": -1}, "model": ` + bert + `}`, "not negative"},
		{"empty vocab.txt", "vocab.txt", "", "the vocabulary is empty"},
		{"bytes in vocab.txt", "vocab.txt", "a\n\xff\n", "line 2 is not valid UTF-8"},
		{"vocab.txt without [CLS]", "vocab.txt", "[UNK]\n[SEP]\n", `"[CLS]" is not in the vocabulary`},
		{"empty tokenizer.model", "tokenizer.model", "", "no pieces"},
		{"no protobuf", "tokenizer.model", "\xff\xff\xff", "not a valid protobuf message"},
		{"cut protobuf", "tokenizer.model", "\x0a\x10\x0a", "not a valid protobuf message"},
		{"unigram model", "tokenizer.model", string(protoModel(1, "<unk>", "a")), "model type 1 is not supported"},
		{"piece twice", "tokenizer.model", string(protoModel(2, "<unk>", "<s>", "</s>", "a", "a")), `piece 4: "a" is there twice`},
		{"empty piece", "tokenizer.model", string(protoModel(2, "<unk>", "")), "piece 1 is empty"},
		{"huge piece", "tokenizer.model", string(protoModel(2, "<unk>", strings.Repeat("a", maxPiece+1))), "piece 1 has 65537 bytes, more than 65536"},
		{"bad base64", "tokenizer.model", "YQ== 0\n??? 1\n", `line 2: "???" is not a token in base64`},
		{"bad rank", "tokenizer.model", "YQ== 0\nYg== x\n", `line 2: "x" is not a rank`},
		{"huge token", "tokenizer.model", base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a", maxPiece+1))) + " 0\n", "line 1: a token of 65537 bytes, more than 65536"},
		{"rank twice", "tokenizer.model", "YQ== 0\nYg== 0\n", "the ranks are not the numbers 0 to 1"},
		{"token twice", "tokenizer.model", "YQ== 0\nYQ== 1\n", "line 2: the token is there twice"},
		{"configuration", "tokenizer_config.json", "{", "tokenizer_config.json: at byte 1"},
		{"role", "tokenizer_config.json", `{"pad_token": 3}`, "pad_token: neither a string"},
		{"object", "tokenizer_config.json", `{"pad_token": []}`, "pad_token: neither a string"},
		{"special tokens", "tokenizer_config.json", `{"additional_special_tokens": "<x>"}`, "additional_special_tokens: not a list"},
		{"split special tokens", "tokenizer_config.json", `{"split_special_tokens": true}`, "split_special_tokens"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.file != "" {
				write(t, dir, c.file, c.content)
			}
			_, err := Load(dir)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
			if err != nil && c.file != "" && !strings.Contains(err.Error(), filepath.Join(dir, c.file)) {
				t.Errorf("%v does not name the file", err)
			}
		})
	}
}

// protoModel is a SentencePiece model of pieces with falling scores.
func protoModel(kind byte, pieces ...string) []byte {
	var out []byte
	for i, p := range pieces {
		body := append(binary.AppendUvarint([]byte{0x0a}, uint64(len(p))), p...)
		body = append(body, 0x15)
		body = binary.LittleEndian.AppendUint32(body, math.Float32bits(-float32(i)))
		if i < 3 {
			body = append(body, 0x18, []byte{2, 3, 3}[i])
		}
		out = append(binary.AppendUvarint(append(out, 0x0a), uint64(len(body))), body...)
	}
	return append(out, 0x12, 2, 0x18, kind)
}

func TestSentencePieceModel(t *testing.T) {
	pieces := []string{"<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "▁ab"}
	for c, want := range map[string]string{
		``:                            "<s> ▁ab ▁ b",
		`{"add_prefix_space": false}`: "<s> ab ▁ b",
		`{"add_bos_token": false, "add_eos_token": true}`: "▁ab ▁ b </s>",
		`{"legacy": false}`: "<s> ▁ab ▁ b",
	} {
		dir := t.TempDir()
		write(t, dir, "tokenizer.model", string(protoModel(2, pieces...)))
		if c != "" {
			write(t, dir, "tokenizer_config.json", c)
		}
		tok := mustLoad(t, dir)
		e, err := tok.Encode("ab b", Options{AddSpecial: true})
		if got := strings.Join(e.Tokens(), " "); got != want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", c, got, err, want)
		}
		if got := tok.Decode(e.IDs, true); got != "ab b" {
			t.Errorf("%s: decoded to %q", c, got)
		}
		if id, ok := tok.EOSID(); id != 2 || !ok {
			t.Errorf("%s: end of sequence is %d, %v", c, id, ok)
		}
	}
}

func TestBase64Ranks(t *testing.T) {
	var file strings.Builder
	for b := range 256 {
		fmt.Fprintf(&file, "%s %d\n", base64.StdEncoding.EncodeToString([]byte{byte(b)}), b)
	}
	for i, token := range []string{"ab", "abc", "bc", " abc"} {
		fmt.Fprintf(&file, "%s %d\n", base64.StdEncoding.EncodeToString([]byte(token)), 256+i)
	}
	dir := t.TempDir()
	write(t, dir, "tokenizer.model", file.String())
	tok := mustLoad(t, dir)
	got, err := tok.EncodeIDs(nil, "abc abc<|eot_id|>", Options{AddSpecial: true})
	if d := cmp.Diff([]int64{260, 257, 259, 269}, got); d != "" || err != nil {
		t.Errorf("%v -want +got\n%s", err, d)
	}
	if tok.VocabSize() != 260+256 {
		t.Errorf("vocabulary of %d", tok.VocabSize())
	}
	write(t, dir, "tokenizer_config.json", `{"bos_token": "<b>", "added_tokens_decoder": {"260": {"content": "<b>", "special": true}}}`)
	tok = mustLoad(t, dir)
	if id, ok := tok.BOSID(); id != 260 || !ok || tok.VocabSize() != 261 {
		t.Errorf("beginning of sequence %d, %v of %d", id, ok, tok.VocabSize())
	}
	write(t, dir, "tokenizer_config.json", `{"added_tokens_decoder": {"270": {"content": "<b>", "special": true}}}`)
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "the id 270") {
		t.Errorf("a gap in front of the special tokens: %v", err)
	}
}

func TestVocabTxtEqualsTokenizerJSON(t *testing.T) {
	for _, name := range []string{"bert-cased", "bert-uncased"} {
		from := mustLoad(t, tinyFolder(t, name))
		dir := t.TempDir()
		write(t, dir, "vocab.txt", strings.Join(from.tokens, "\r\n")+"\n")
		write(t, dir, "tokenizer_config.json", fmt.Sprintf(`{"do_lower_case": %t}`, name == "bert-uncased"))
		var want recording
		readGzip(t, filepath.Join("testdata", "tiny-"+name+".golden.json.gz"), &want)
		compare(t, mustLoad(t, dir), want)
	}
}

func TestTokenizerModelEqualsTokenizerJSON(t *testing.T) {
	for _, folder := range []string{"tokenizers/llama-2-32k", "models/llama-stories260k"} {
		from, dir := realdata.Shared(t, folder), t.TempDir()
		for _, name := range []string{"tokenizer.model", "tokenizer_config.json"} {
			data, err := os.ReadFile(filepath.Join(from, name))
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, name, string(data))
		}
		var want recording
		readGzip(t, filepath.Join("testdata", filepath.Base(folder)+".golden.json.gz"), &want)
		compare(t, mustLoad(t, dir), want)
	}
}

// ggufOf is the metadata that a conversion of a tokenizer to GGUF would write.
func ggufOf(t *testing.T, tok *Tokenizer, model, pre string) GGUF {
	t.Helper()
	id := func(id int64, ok bool) int64 {
		if !ok {
			return -1
		}
		return id
	}
	g := GGUF{
		Model: model, Pre: pre, Tokens: slices.Clone(tok.tokens), Types: make([]int32, len(tok.tokens)),
		BOS: id(tok.BOSID()), EOS: id(tok.EOSID()), UNK: id(tok.UnkID()), PAD: id(tok.PadID()), SEP: id(tok.SEPID()), CLS: id(tok.CLSID()),
	}
	for i := range g.Types {
		g.Types[i] = int32(pieceNormal)
		if tok.special[int64(i)] {
			g.Types[i] = int32(pieceControl)
		}
	}
	for _, r := range tok.definition.model.merges {
		g.Merges = append(g.Merges, tok.definition.model.tokens[r.left]+" "+tok.definition.model.tokens[r.right])
	}
	return g
}

func TestGGUFEqualsTokenizerJSON(t *testing.T) {
	check := func(t *testing.T, g GGUF, golden string) {
		t.Helper()
		var want recording
		readGzip(t, filepath.Join("testdata", golden+".golden.json.gz"), &want)
		tok, err := FromGGUF(g)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, tok, want)
		// What Save writes is the same tokenizer again.
		dir := t.TempDir()
		if err := tok.Save(dir); err != nil {
			t.Fatal(err)
		}
		again := mustLoad(t, dir)
		compare(t, again, want)
		if again.named != tok.named || again.chat != tok.chat {
			t.Errorf("saved roles %+v and template %q, loaded %+v and %q", tok.named, tok.chat, again.named, again.chat)
		}
	}
	t.Run("gpt2", func(t *testing.T) {
		from := mustLoad(t, tinyFolder(t, "level-digits"))
		g := ggufOf(t, from, "gpt2", "smollm")
		g.ChatTemplate = "{{ messages }}"
		check(t, g, "tiny-level-digits")
	})
	t.Run("bert", func(t *testing.T) {
		for _, name := range []string{"bert-cased", "bert-uncased"} {
			from := mustLoad(t, tinyFolder(t, name))
			g := ggufOf(t, from, "bert", "")
			for i, token := range g.Tokens {
				switch {
				case strings.HasPrefix(token, "[") && strings.HasSuffix(token, "]"):
				case strings.HasPrefix(token, "##"):
					g.Tokens[i] = token[2:]
				default:
					g.Tokens[i] = "▁" + token
				}
			}
			check(t, g, "tiny-"+name)
		}
	})
	t.Run("llama", func(t *testing.T) {
		data, err := os.ReadFile(filepath.Join(realdata.Shared(t, "tokenizers/llama-2-32k"), "tokenizer.model"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := parseSentencePiece(data)
		if err != nil {
			t.Fatal(err)
		}
		g := GGUF{Model: "llama", BOS: 1, EOS: 2, UNK: 0, PAD: -1, SEP: -1, CLS: -1}
		for _, p := range m.pieces {
			g.Tokens, g.Scores, g.Types = append(g.Tokens, p.text), append(g.Scores, p.score), append(g.Types, int32(p.kind))
		}
		check(t, g, "llama-2-32k")
	})
}

func TestGGUFRejects(t *testing.T) {
	ok := func() GGUF {
		return GGUF{Model: "gpt2", Pre: "gpt-2", Tokens: []string{"a", "b"}, BOS: -1, EOS: -1, UNK: -1, PAD: -1, SEP: -1, CLS: -1}
	}
	if _, err := FromGGUF(ok()); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*GGUF){
		"no tokens":                          func(g *GGUF) { g.Tokens = nil },
		"1 token types for 2 tokens":         func(g *GGUF) { g.Types = []int32{1} },
		`model "t5" is not supported`:        func(g *GGUF) { g.Model = "t5" },
		`pre-tokenizer "x" is not supported`: func(g *GGUF) { g.Pre = "x" },
		"bos_token has the id 2":             func(g *GGUF) { g.BOS = 2 },
		`token 1: "a" is there twice`:        func(g *GGUF) { g.Tokens[1] = "a" },
		"token 1 is not valid UTF-8":         func(g *GGUF) { g.Tokens[1] = "\xff" },
		`merges[0]: "ab" is not two tokens`:  func(g *GGUF) { g.Merges = []string{"ab"} },
		"0 scores for 2 tokens":              func(g *GGUF) { g.Model = "llama" },
		"the score of token 0 is not a number": func(g *GGUF) {
			g.Model, g.Scores = "llama", []float32{float32(math.NaN()), 0}
		},
	} {
		g := ok()
		change(&g)
		if _, err := FromGGUF(g); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func FuzzTokenizerJSON(f *testing.F) {
	small := `{"added_tokens": [{"id": 9, "content": "<x>", "lstrip": true}], "normalizer": {"type": "NFC"},
		"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true}, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Strip", "content": " ", "start": 3, "stop": 2}]},
		"post_processor": {"type": "RobertaProcessing", "sep": ["b", 1], "cls": ["a", 0], "trim_offsets": true},
		"model": {"type": "BPE", "unk_token": "u", "continuing_subword_prefix": "#", "end_of_word_suffix": "$", "vocab": {"a": 0, "b": 1, "": 2, "u": 3, "#a": 4, "aa": 5}, "merges": [["a", "#a"]]}}`
	f.Add([]byte(small), "a b<x>")
	f.Add([]byte(`{"model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "", "max_input_chars_per_word": -1, "vocab": {"": 0, "a": 0}}}`), "aé")
	f.Add([]byte(`{"normalizer": {"type": "Sequence", "normalizers": [{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "lowercase": true},
		{"type": "Strip", "strip_left": true}, {"type": "Replace", "pattern": {"String": "b"}, "content": "ab"}, {"type": "Prepend", "prepend": "_"}, {"type": "StripAccents"}, {"type": "NFD"}]},
		"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"}, {"type": "Digits", "individual_digits": false}]},
		"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true}, "model": {"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##", "vocab": {"u": 0, "a": 1, "##b": 2}}}`), "ab 12É中")
	f.Add([]byte(`{"added_tokens": [{"id": 0, "content": "é", "single_word": true, "normalized": true}], "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
		"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"a": {"ids": [0, 1]}}},
		"decoder": {"type": "Metaspace", "replacement": "▁"}, "model": {"type": "BPE", "unk_token": "b", "fuse_unk": true, "byte_fallback": true, "ignore_merges": true,
		"vocab": {"a": 0, "b": 1, "ab": 2, "▁": 3, "▁a": 4, "<0xC3>": 5}, "merges": ["a b", "▁ a"]}}`), "é ab  x")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		fuzzLoaded(t, data, text, parseTokenizerJSON)
	})
}

func FuzzTokenizerModel(f *testing.F) {
	f.Add(protoModel(2, "<unk>", "<s>", "</s>", "▁", "a", "▁a", "<0x41>"), "a aé")
	f.Add([]byte("YQ== 0\nYg== 1\nYWI= 2\n"), "ab<|eot_id|>")
	f.Fuzz(func(t *testing.T, data []byte, text string) {
		fuzzLoaded(t, data, text, parseTokenizerModel)
	})
}

// FuzzFromGGUF reads a tokenizer from made-up metadata: tokens and merges stand one to a line.
func FuzzFromGGUF(f *testing.F) {
	f.Add("llama", "", "<unk>\n<s>\n</s>\n▁\na\n▁a\n<0x41>", "", []byte{2, 3, 3, 1, 1, 1, 6}, []byte{0, 0, 0, 1, 2, 3, 4}, int64(1), int64(2), int64(0), "a aé")
	f.Add("gpt2", "llama-bpe", "a\nb\nab\nĠ\nĠa\n<|end|>", "a b\nĠ a", []byte{1, 1, 1, 1, 1, 3}, []byte{}, int64(-1), int64(5), int64(-1), "ab a<|end|>")
	f.Add("gpt2", "qwen2", "a\nb", "a c", []byte{4, 1}, []byte{}, int64(0), int64(9), int64(-1), "b")
	f.Add("bert", "", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n▁a\nb", "", []byte{}, []byte{}, int64(-1), int64(-1), int64(1), "ab É")
	f.Fuzz(func(t *testing.T, model, pre, tokens, merges string, types, scores []byte, bos, eos, unk int64, text string) {
		g := GGUF{Model: model, Pre: pre, Tokens: strings.Split(tokens, "\n"), BOS: bos, EOS: eos, UNK: unk, PAD: -1, SEP: bos, CLS: eos}
		if merges != "" {
			g.Merges = strings.Split(merges, "\n")
		}
		for _, v := range types {
			g.Types = append(g.Types, int32(v))
		}
		for _, v := range scores {
			g.Scores = append(g.Scores, float32(int8(v)))
		}
		tok, err := FromGGUF(g)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("more than one line: %v", err)
			}
			return
		}
		fuzzUse(t, tok, text)
	})
}

// fuzzLoaded reads a tokenizer and, if that works, uses it: nothing may panic.
func fuzzLoaded(t *testing.T, data []byte, text string, parse func([]byte, *folderConfig) (*definition, error)) {
	c := &folderConfig{roles: map[string]string{}}
	s, err := parse(data, c)
	if err != nil {
		return
	}
	tok, err := build(s, c)
	if err != nil {
		return
	}
	fuzzUse(t, tok, text)
}

// fuzzUse encodes and decodes a text, and writes the tokenizer: nothing may panic.
func fuzzUse(t *testing.T, tok *Tokenizer, text string) {
	e, err := tok.Encode(text, Options{AddSpecial: true})
	if err != nil {
		return
	}
	tok.Decode(e.IDs, true)
	stream := tok.NewStream()
	for _, id := range e.IDs {
		stream.Push(id)
	}
	stream.Flush()
	for _, at := range e.Offsets {
		if at[0] < 0 || at[0] > at[1] {
			t.Fatalf("range %v", at)
		}
	}
	if _, err := tok.definition.json(); err != nil {
		t.Fatalf("writing what was read: %v", err)
	}
}
