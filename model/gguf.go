package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"strconv"
	"strings"

	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// ggufDecoder gives what a GGUF file's metadata say of a decoder, by the names of the config.json that they were made from.
func ggufDecoder(g *files.GGUF, architecture string) (map[string]any, error) {
	c := map[string]any{}
	r := metaReader{g: g, architecture: architecture}
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
		r.err = fmt.Errorf("%s.rope.dimension_count %d differs from the head's %d dimensions, which is not supported", architecture, n, headDim)
	}
	if r.err != nil {
		return nil, r.err
	}
	scaling, err := ggufScaling(g, r, c["rope_theta"].(float64), int(headDim))
	if err != nil {
		return nil, err
	}
	if scaling != nil {
		c["rope_scaling"] = scaling
	}
	return c, ggufTables(g, c)
}

// plainGGUFConfig writes a GGUF file's metadata as the config.json they were made from, of an architecture whose name is its
// model_type.
func plainGGUFConfig(g *files.GGUF, architecture string) ([]byte, error) {
	c, err := ggufDecoder(g, architecture)
	if err != nil {
		return nil, err
	}
	c["model_type"], c["hidden_act"], c["use_sliding_window"] = architecture, "silu", false
	return json.Marshal(c)
}

// ggufTables adds to a config what a GGUF file says of its tables and tokens.
func ggufTables(g *files.GGUF, c map[string]any) error {
	words, ok := g.Lookup("token_embd.weight")
	if !ok || len(words.Shape) != 2 {
		return errors.New("tensor token_embd.weight is missing or not a matrix")
	}
	c["vocab_size"] = words.Shape[0]
	_, head := g.Lookup("output.weight")
	c["tie_word_embeddings"] = !head
	for key, name := range map[string]string{"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"} {
		if id, err := g.Int("tokenizer.ggml." + key); err == nil {
			c[name] = id
		}
	}
	return nil
}

// metaReader reads one architecture's keys and keeps the first error.
type metaReader struct {
	g            *files.GGUF
	architecture string
	err          error
}

// size reads a whole number; without fallback (0) it must be there.
func (r *metaReader) size(key string, fallback int64) int64 {
	n, err := r.g.Int(r.architecture + "." + key)
	if errors.Is(err, fs.ErrNotExist) && fallback != 0 {
		return fallback
	}
	if err != nil && r.err == nil {
		r.err = err
	}
	if err == nil && (n < 1 || n > 1<<31) && r.err == nil {
		r.err = fmt.Errorf("metadata key %q is %d, want a positive size", r.architecture+"."+key, n)
	}
	return n
}

func (r *metaReader) number(key string, fallback float64) float64 {
	v, err := r.g.Float(r.architecture + "." + key)
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
	kind, err := g.Text(r.architecture + ".rope.scaling.type")
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

// ggufSlots are llama.cpp's names of a block's maps.
var ggufSlots = map[string]Slot{
	"attn_q": Q, "attn_k": K, "attn_v": V, "attn_output": O, "ffn_gate": Gate, "ffn_up": Up, "ffn_down": Down,
}

// rotaryGGUFNames reads the names of a rotaryDecoder's tensors; more are those that its family adds.
func rotaryGGUFNames(i Info, interleaved bool, more map[string]string) hf.Request {
	names := map[string]string{
		"token_embd": rotaryPrefix + "embed_tokens", "output_norm": rotaryPrefix + "norm", "output": "lm_head",
		"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
	}
	maps.Copy(names, more)
	return ggufRequest(i, names, interleaved)
}

// ggufRequest reads llama.cpp's names. Those of the blocks' maps are known by slot; names gives the model's own for the
// other modules, within the block for those of a block. interleaved says that llama.cpp rotates neighbouring rows for this
// architecture, so that its files interleave the two halves of each head's queries and keys.
func ggufRequest(i Info, names map[string]string, interleaved bool) hf.Request {
	mapNames := map[Slot]string{}
	for _, m := range i.Maps() {
		mapNames[m.Slot] = m.Name
	}
	r := hf.Request{
		Rename: func(name string) string {
			rest, inBlock := strings.CutPrefix(name, "blk.")
			if !inBlock {
				module, field, _ := strings.Cut(name, ".")
				if own := names[module]; own != "" {
					return own + "." + field
				}
				return name
			}
			parts := strings.SplitN(rest, ".", 3) // 7, attn_q, weight
			if len(parts) != 3 {
				return name
			}
			own := names[parts[1]]
			if slot, ok := ggufSlots[parts[1]]; ok {
				own = mapNames[slot]
			}
			if own == "" {
				return name
			}
			return i.Blocks + "." + parts[0] + "." + own + "." + parts[2]
		},
		Ignore: func(name string) bool { return name == "rope_freqs.weight" },
	}
	if interleaved {
		r.Interleaved = func(name string) int64 {
			switch {
			case strings.Contains(name, "."+mapNames[Q]+"."):
				return int64(i.Heads)
			case strings.Contains(name, "."+mapNames[K]+"."):
				return int64(i.KVHeads)
			}
			return 0
		}
	}
	return r
}
