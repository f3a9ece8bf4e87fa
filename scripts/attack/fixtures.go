package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// makeFixtures makes the undamaged inputs: the tiny models of testdata with tokenizers, a GGUF file, adapters, and data in
// every format. It is run from the repository's root.
func (h *harness) makeFixtures() error {
	copies := map[string]string{
		"encoder": "testdata/distilbert/tiny", "encoder-bin": "testdata/distilbert/tiny-bin", "encoder-sharded": "testdata/distilbert/tiny-sharded",
		"decoder": "testdata/llama/base", "decoder-nf4": "testdata/quantised_folders/nf4", "decoder-gptq": "testdata/quantised_folders/gptq",
		"adapter": "testdata/peft/distilbert-seqcls-lora", "adapter-hub": "testdata/adapterhub/distilbert-pfeiffer", "adapter-causal": "testdata/peft/llama-causal-lora",
	}
	for to, from := range copies {
		if err := os.CopyFS(h.at(to), os.DirFS(from)); err != nil {
			return fmt.Errorf("%w (run it from the repository's root)", err)
		}
		for _, not := range []string{"golden.safetensors", "adam.safetensors", "adamw.safetensors", "last_layers.safetensors"} {
			if err := os.Remove(filepath.Join(h.at(to), not)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for _, f := range []struct{ to, from string }{{"rows.parquet", "train/data/rows/testdata/hf_classlabel.parquet"}, {"nested.parquet", "train/data/rows/testdata/nested_zstd.parquet"},
		{"blocks.gguf", "model/hf/files/testdata/blocks.gguf"}} {
		raw, err := os.ReadFile(f.from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(h.at(f.to), raw, 0o666); err != nil {
			return err
		}
	}
	texts := map[string]any{"encoder/tokenizer.json": wordPiece(), "encoder/tokenizer_config.json": map[string]any{"tokenizer_class": "DistilBertTokenizer", "do_lower_case": true},
		"decoder/tokenizer.json":         letterBPE(),
		"decoder/tokenizer_config.json":  map[string]any{"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "chat_template": chatTemplate},
		"decoder/generation_config.json": map[string]any{"bos_token_id": 1, "eos_token_id": 2, "max_length": 32, "temperature": 0.7}}
	for name, v := range texts {
		raw, err := json.MarshalIndent(v, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(h.at(name), raw, 0o666); err != nil {
			return err
		}
	}
	return errors.Join(h.makeGGUF(), h.makeData())
}

// at is the path of an undamaged input.
func (h *harness) at(name string) string { return filepath.Join(h.fixtures, filepath.FromSlash(name)) }

const chatTemplate = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ 'q ' + message['content'] | trim }}{% elif loop.index0 > 0 and not false %}" +
	"{{ ' a ' ~ message.content[:20] }}{% else %}{% set x = namespace(n=1) %}{{ x.n }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ ' a' }}{% endif %}"

func added(first int, tokens ...string) (list []map[string]any) {
	for i, t := range tokens {
		list = append(list, map[string]any{"id": first + i, "content": t, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
	}
	return list
}

// wordPiece is a tokenizer of letters, with 80 tokens.
func wordPiece() map[string]any {
	special := []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
	vocab := map[string]int{}
	for _, t := range special {
		vocab[t] = len(vocab)
	}
	for _, prefix := range []string{"", "##"} {
		for r := 'a'; r <= 'z'; r++ {
			vocab[prefix+string(r)] = len(vocab)
		}
	}
	for _, t := range strings.Fields("the a good bad film plot was is very not . , ! ? 0 1 2 3") {
		if _, ok := vocab[t]; !ok {
			vocab[t] = len(vocab)
		}
	}
	return map[string]any{"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added(0, special...),
		"normalizer":    map[string]any{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": nil, "lowercase": true},
		"pre_tokenizer": map[string]any{"type": "BertPreTokenizer"},
		"post_processor": map[string]any{"type": "TemplateProcessing", "single": []any{special1("[CLS]"), map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}, special1("[SEP]")},
			"pair":           []any{special1("[CLS]"), map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}, special1("[SEP]"), map[string]any{"Sequence": map[string]any{"id": "B", "type_id": 1}}, special1("[SEP]")},
			"special_tokens": map[string]any{"[CLS]": special2("[CLS]", 2), "[SEP]": special2("[SEP]", 3)}},
		"decoder": map[string]any{"type": "WordPiece", "prefix": "##", "cleanup": true},
		"model":   map[string]any{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab}}
}

func special1(t string) map[string]any {
	return map[string]any{"SpecialToken": map[string]any{"id": t, "type_id": 0}}
}

func special2(t string, id int) map[string]any {
	return map[string]any{"id": t, "ids": []int{id}, "tokens": []string{t}}
}

// letterBPE is a byte-level BPE of letters, with 48 tokens.
func letterBPE() map[string]any {
	vocab := map[string]int{"<unk>": 0, "<s>": 1, "</s>": 2}
	for _, t := range strings.Fields("Ġ a b c d e f g h i j k l m n o p q r s t u v w x y z . , ! ? 0 1 2 th the Ġa in er Ġthe on") {
		vocab[t] = len(vocab)
	}
	return map[string]any{"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added(0, "<unk>", "<s>", "</s>"), "normalizer": nil,
		"pre_tokenizer": map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
		"post_processor": map[string]any{"type": "TemplateProcessing", "single": []any{special1("<s>"), map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}},
			"pair":           []any{special1("<s>"), map[string]any{"Sequence": map[string]any{"id": "A", "type_id": 0}}, map[string]any{"Sequence": map[string]any{"id": "B", "type_id": 1}}},
			"special_tokens": map[string]any{"<s>": special2("<s>", 1)}},
		"decoder": map[string]any{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
		"model": map[string]any{"type": "BPE", "dropout": nil, "unk_token": "<unk>", "continuing_subword_prefix": nil, "end_of_word_suffix": nil, "fuse_unk": false, "byte_fallback": false,
			"vocab": vocab, "merges": []string{"t h", "th e", "Ġ a", "i n", "e r", "Ġ the", "o n"}}}
}

// makeData writes the same rows in every format.
func (h *harness) makeData() error {
	r := rand.New(rand.NewPCG(7, 7))
	words := strings.Fields("the a good bad film plot was is very not")
	var csv, tsv, jsonl, ids, alpaca, prompts, many bytes.Buffer
	csv.WriteString("text,label\n")
	tsv.WriteString("text\tlabel\n")
	many.WriteString("text,label\n")
	var all []map[string]any
	for i := range 2400 {
		class := r.IntN(3)
		label := fmt.Sprint("LABEL_", class)
		var text []string
		for range 3 + r.IntN(8) {
			text = append(text, words[r.IntN(len(words))])
		}
		line := strings.Join(append(text, []string{"no", "so", "yes"}[class]), " ")
		fmt.Fprintf(&many, "\"%s\",%s\n", line, label)
		if i >= 48 {
			continue
		}
		row := map[string]any{"text": line, "label": label}
		all = append(all, row)
		raw, err := json.Marshal(row)
		if err != nil {
			return err
		}
		fmt.Fprintf(&csv, "\"%s\",%s\n", line, label)
		fmt.Fprintf(&tsv, "%s\t%s\n", line, label)
		fmt.Fprintf(&jsonl, "%s\n", raw)
		fmt.Fprintf(&ids, "{\"input_ids\": [2, %d, %d, 3], \"label\": %q}\n", 5+r.IntN(70), 5+r.IntN(70), label)
		fmt.Fprintf(&alpaca, "{\"instruction\": %q, \"input\": %q, \"output\": %q}\n", text[0], text[1], line)
		if i < 6 {
			fmt.Fprintf(&prompts, "{\"prompt\": %q}\n", line)
		}
	}
	array, err := json.Marshal(all)
	if err != nil {
		return err
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(csv.Bytes()); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	for name, raw := range map[string][]byte{"rows.csv": csv.Bytes(), "rows.tsv": tsv.Bytes(), "rows.jsonl": jsonl.Bytes(), "ids.jsonl": ids.Bytes(), "alpaca.jsonl": alpaca.Bytes(),
		"prompts.jsonl": prompts.Bytes(), "rows.json": array, "rows.csv.gz": zipped.Bytes(), "many.csv": many.Bytes(),
		"train.yaml":   []byte("method: lora\nepochs: 1\nbatch-size: 8\nrank: 4\nlr: 0.01\ntargets: [q, v]\nsplit: [0.8, 0.1, 0.1]\nthreads: 1\namp: none\nmax-steps: 2\n"),
		"compare.yaml": []byte("methods: [bitfit, logreg]\nepochs: 1\nmax-steps: 1\nbatch-size: 8\nthreads: 1\namp: none\nsettings:\n  bitfit:\n    lr: 0.02\n")} {
		if err := os.WriteFile(h.at(name), raw, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// makeGGUF writes the decoder as a GGUF file of version 3, in fp32.
func (h *harness) makeGGUF() error {
	raw, err := os.ReadFile(h.at("decoder/model.safetensors"))
	if err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(raw)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(raw[8:8+n], &header); err != nil {
		return err
	}
	delete(header, "__metadata__")
	names := make([]string, 0, len(header))
	for name := range header {
		names = append(names, name)
	}
	slices.Sort(names)
	var g, body bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			if s, ok := v.(string); ok {
				_ = binary.Write(&g, binary.LittleEndian, uint64(len(s))) // into memory
				g.WriteString(s)
				continue
			}
			_ = binary.Write(&g, binary.LittleEndian, v)
		}
	}
	const typeU32, typeF32, typeString, typeArray, typeI32 = uint32(4), uint32(6), uint32(8), uint32(9), uint32(5)
	tokens := make([]string, 48)
	for token, id := range letterBPE()["model"].(map[string]any)["vocab"].(map[string]int) {
		tokens[id] = token
	}
	put([]byte("GGUF"), uint32(3), uint64(len(names)), uint64(16))
	put("general.architecture", typeString, "llama")
	for _, f := range []struct {
		key   string
		value uint32
	}{{"llama.embedding_length", 16}, {"llama.feed_forward_length", 24}, {"llama.block_count", 3}, {"llama.attention.head_count", 4}, {"llama.context_length", 64},
		{"tokenizer.ggml.bos_token_id", 1}, {"tokenizer.ggml.eos_token_id", 2}, {"tokenizer.ggml.unknown_token_id", 0}} {
		put(f.key, typeU32, f.value)
	}
	put("llama.attention.layer_norm_rms_epsilon", typeF32, float32(1e-5), "tokenizer.ggml.model", typeString, "gpt2", "tokenizer.ggml.pre", typeString, "gpt-2")
	put("tokenizer.ggml.tokens", typeArray, typeString, uint64(len(tokens)))
	for _, t := range tokens {
		put(t)
	}
	put("tokenizer.ggml.token_type", typeArray, typeI32, uint64(len(tokens)))
	for i := range tokens {
		put(map[bool]int32{true: 3, false: 1}[i < 3])
	}
	put("tokenizer.ggml.merges", typeArray, typeString, uint64(7))
	for _, m := range []string{"t h", "th e", "Ġ a", "i n", "e r", "Ġ the", "o n"} {
		put(m)
	}
	put("tokenizer.chat_template", typeString, chatTemplate)
	for _, name := range names {
		var t struct {
			Shape   []uint64  `json:"shape"`
			Offsets [2]uint64 `json:"data_offsets"`
		}
		if err := json.Unmarshal(header[name], &t); err != nil {
			return err
		}
		slices.Reverse(t.Shape)
		put(ggufName(name), uint32(len(t.Shape)), t.Shape, uint32(0), uint64(body.Len()))
		body.Write(raw[8+n+t.Offsets[0] : 8+n+t.Offsets[1]])
		body.Write(make([]byte, (32-body.Len()%32)%32))
	}
	g.Write(make([]byte, (32-g.Len()%32)%32))
	g.Write(body.Bytes())
	return os.WriteFile(h.at("decoder.gguf"), g.Bytes(), 0o666)
}

func ggufName(name string) string {
	return strings.NewReplacer("model.layers.", "blk.", "self_attn.q_proj", "attn_q", "self_attn.k_proj", "attn_k", "self_attn.v_proj", "attn_v", "self_attn.o_proj", "attn_output",
		"mlp.gate_proj", "ffn_gate", "mlp.up_proj", "ffn_up", "mlp.down_proj", "ffn_down", "post_attention_layernorm", "ffn_norm", "input_layernorm", "attn_norm",
		"model.embed_tokens", "token_embd", "model.norm", "output_norm", "lm_head", "output").Replace(name)
}
