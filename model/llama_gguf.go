package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"

	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// ggufConfig writes a GGUF file's metadata as the config.json they were made from.
func ggufConfig(g *files.GGUF) ([]byte, error) {
	arch, err := g.Text("general.architecture")
	if err != nil {
		return nil, err
	}
	if arch != "llama" && arch != "qwen2" {
		return nil, fmt.Errorf("general.architecture %q is not supported (llama, qwen2)", arch)
	}
	c := map[string]any{"model_type": arch, "hidden_act": "silu"}
	r := metaReader{g: g, arch: arch}
	for _, field := range []struct{ key, name string }{
		{"embedding_length", "hidden_size"}, {"feed_forward_length", "intermediate_size"}, {"block_count", "num_hidden_layers"},
		{"attention.head_count", "num_attention_heads"}, {"context_length", "max_position_embeddings"},
	} {
		c[field.name] = r.size(field.key, 0)
	}
	heads := r.size("attention.head_count", 0)
	c["num_key_value_heads"] = r.size("attention.head_count_kv", heads)
	headDim := int64(0)
	if heads > 0 {
		headDim = r.size("embedding_length", 0) / heads
	}
	headDim = r.size("attention.key_length", headDim)
	c["head_dim"] = headDim
	c["rms_norm_eps"] = r.number("attention.layer_norm_rms_epsilon", 1e-5)
	c["rope_theta"] = r.number("rope.freq_base", 10000)
	if n := r.size("rope.dimension_count", headDim); n != headDim && r.err == nil {
		r.err = fmt.Errorf("%s.rope.dimension_count %d differs from the head's %d dimensions, which is not supported", arch, n, headDim)
	}
	if r.err != nil {
		return nil, r.err
	}
	words, ok := g.Lookup("token_embd.weight")
	if !ok || len(words.Shape) != 2 {
		return nil, errors.New("tensor token_embd.weight is missing or not a matrix")
	}
	c["vocab_size"] = words.Shape[0]
	_, head := g.Lookup("output.weight")
	c["tie_word_embeddings"] = !head
	_, qkvBias := g.Lookup("blk.0.attn_q.bias")
	_, outBias := g.Lookup("blk.0.attn_output.bias")
	c["attention_bias"] = qkvBias
	_, c["mlp_bias"] = g.Lookup("blk.0.ffn_up.bias")
	if arch == "llama" && qkvBias && !outBias {
		c["model_type"] = "qwen2" // a LLaMA with biases on queries, keys and values alone is what that type means
	}
	for key, name := range map[string]string{"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"} {
		if id, err := g.Int("tokenizer.ggml." + key); err == nil {
			c[name] = id
		}
	}
	scaling, err := ggufScaling(g, r, c["rope_theta"].(float64), int(headDim))
	if err != nil {
		return nil, err
	}
	if scaling != nil {
		c["rope_scaling"] = scaling
	}
	return json.Marshal(c)
}

// metaReader reads one architecture's keys and keeps the first error.
type metaReader struct {
	g    *files.GGUF
	arch string
	err  error
}

// size reads a whole number; without fallback (0) it must be there.
func (r *metaReader) size(key string, fallback int64) int64 {
	n, err := r.g.Int(r.arch + "." + key)
	if errors.Is(err, fs.ErrNotExist) && fallback != 0 {
		return fallback
	}
	if err != nil && r.err == nil {
		r.err = err
	}
	if err == nil && (n < 1 || n > 1<<31) && r.err == nil {
		r.err = fmt.Errorf("metadata key %q is %d, want a positive size", r.arch+"."+key, n)
	}
	return n
}

func (r *metaReader) number(key string, fallback float64) float64 {
	v, err := r.g.Float(r.arch + "." + key)
	if errors.Is(err, fs.ErrNotExist) {
		return fallback
	}
	if err != nil && r.err == nil {
		r.err = err
	}
	if short, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', -1, 32), 64); err == nil {
		return short // stored as fp32: 1e-5 rather than 9.999999747378752e-06
	}
	return v
}

// ggufScaling reads how the rotary embedding was stretched. LLaMA 3's way is stored as one divisor per
// frequency; the settings that give them are found again among those Meta published.
func ggufScaling(g *files.GGUF, r metaReader, theta float64, headDim int) (map[string]any, error) {
	if e, ok := g.Lookup("rope_freqs.weight"); ok {
		if e.Elements() != int64(headDim/2) {
			return nil, fmt.Errorf("tensor rope_freqs.weight has %d elements, want %d", e.Elements(), headDim/2)
		}
		divisors := make([]float32, headDim/2)
		if err := e.Float32(divisors, 0); err != nil {
			return nil, err
		}
		return llama3Scaling(divisors, theta, headDim)
	}
	kind, err := g.Text(r.arch + ".rope.scaling.type")
	if errors.Is(err, fs.ErrNotExist) || kind == "none" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	factor := r.number("rope.scaling.factor", 1)
	return map[string]any{"rope_type": kind, "factor": factor}, r.err // an unknown kind is refused with the config
}

func llama3Scaling(divisors []float32, theta float64, headDim int) (map[string]any, error) {
	largest := float32(1)
	for _, d := range divisors {
		largest = max(largest, d)
	}
	if largest == 1 {
		return nil, nil
	}
	rope := Rope{Theta: theta, Kind: "llama3", Factor: float64(largest), LowFreq: 1, HighFreq: 4, Original: 8192}
	plain, scaled := Rope{Theta: theta}.frequencies(headDim, 0), rope.frequencies(headDim, 0)
	for i, d := range divisors {
		if want := float64(plain[i] / scaled[i]); !(math.Abs(float64(d)-want) <= 1e-3*want) {
			return nil, fmt.Errorf("tensor rope_freqs.weight: divisor %d is %v, LLaMA 3's with factor %v is %v: not supported", i, d, largest, want)
		}
	}
	return map[string]any{"rope_type": "llama3", "factor": rope.Factor, "low_freq_factor": rope.LowFreq,
		"high_freq_factor": rope.HighFreq, "original_max_position_embeddings": rope.Original}, nil
}

// ggufNames are llama.cpp's names of a block's modules.
var ggufNames = map[string]string{
	"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
	"attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
	"ffn_down": "mlp.down_proj",
}

// ggufRequest reads llama.cpp's names and row order.
func ggufRequest(g *files.GGUF) hf.Request {
	r := hf.Request{
		Rename: func(name string) string {
			switch name {
			case "token_embd.weight":
				return llamaPrefix + "embed_tokens.weight"
			case "output_norm.weight":
				return llamaPrefix + "norm.weight"
			case "output.weight":
				return "lm_head.weight"
			}
			rest, ok := strings.CutPrefix(name, "blk.")
			parts := strings.SplitN(rest, ".", 3) // 7, attn_q, weight
			if !ok || len(parts) != 3 || ggufNames[parts[1]] == "" {
				return name
			}
			return llamaPrefix + "layers." + parts[0] + "." + ggufNames[parts[1]] + "." + parts[2]
		},
		Ignore: func(name string) bool { return name == "rope_freqs.weight" },
	}
	if arch, _ := g.Text("general.architecture"); arch == "llama" {
		heads, _ := g.Int("llama.attention.head_count")
		kv, err := g.Int("llama.attention.head_count_kv")
		if err != nil {
			kv = heads
		}
		// llama.cpp rotates neighbouring rows for this architecture, so its files interleave each head's halves.
		r.Interleaved = func(name string) int64 {
			switch {
			case strings.Contains(name, ".q_proj."):
				return heads
			case strings.Contains(name, ".k_proj."):
				return kv
			}
			return 0
		}
	}
	return r
}
