package model

import (
	"encoding/json"

	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// llamaFamily is LLaMA with Mistral, which adds a sliding window, and Qwen2, which adds biases on queries, keys and values.
func llamaFamily() family {
	k := rotaryKind{name: "llama", classes: map[string]string{"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2"},
		config: llamaConfig, gguf: llamaGGUFNames, biased: []string{"llama"}}
	return k.complete(family{
		usual:      Info{Vocab: 32000, Hidden: 768, Layers: 12, Heads: 12, KVHeads: 12, HeadDim: 64, FFN: 2048, MaxPositions: 2048},
		traits:     Traits{PreNorm: true},
		gguf:       []string{"llama", "qwen2"},
		ggufConfig: llamaGGUFConfig,
	})
}

// llamaConfig reads a config.json with transformers' defaults.
func llamaConfig(raw []byte) (decoderConfig, error) {
	j := decoderJSON{Vocab: 32000, Hidden: 4096, FFN: 11008, Layers: 32, Heads: 32, MaxPositions: 2048, NormEps: 1e-6, Theta: 10000,
		InitRange: 0.02, Activation: "silu", PartialRotary: 1}
	window := 0
	switch hf.ModelType(raw) {
	case "mistral":
		eight := 8
		window = 4096
		j.FFN, j.KVHeads, j.MaxPositions = 14336, &eight, 131072
	case "qwen2":
		window = 4096
		j.Vocab, j.FFN, j.MaxPositions, j.WindowFrom = 151936, 22016, 32768, 28
	}
	j.Window = &window
	c, err := j.read(raw)
	if err != nil {
		return c, err
	}
	switch j.ModelType {
	case "mistral":
		c.Windows, err = j.windows(func(int) bool { return true })
	case "qwen2":
		c.QKVBias = true
		c.Windows, err = j.windows(func(layer int) bool { return j.UseWindow && layer >= j.WindowFrom })
	default:
		c.QKVBias, c.OutBias, c.MLPBias = j.AttentionBias, j.AttentionBias, j.MLPBias
		c.Windows = make([]int, c.Layers)
	}
	return c, err
}

// llamaGGUFConfig writes a GGUF file's metadata as the config.json they were made from.
func llamaGGUFConfig(g *files.GGUF, architecture string) ([]byte, error) {
	c, err := ggufDecoder(g, architecture)
	if err != nil {
		return nil, err
	}
	has := func(tensor string) bool { _, ok := g.Lookup(tensor); return ok }
	c["model_type"], c["hidden_act"] = architecture, "silu"
	qkv := has("blk.0.attn_q.bias")
	c["attention_bias"], c["mlp_bias"] = qkv, has("blk.0.ffn_up.bias")
	if architecture == "llama" && qkv && !has("blk.0.attn_output.bias") {
		c["model_type"] = "qwen2" // a LLaMA with biases on queries, keys and values alone is what that type means
	}
	return json.Marshal(c)
}

// llamaGGUFNames reads the names of a GGUF file's tensors.
func llamaGGUFNames(g *files.GGUF, i Info) hf.Request {
	_, architecture, _ := familyOfGGUF(g) // which llamaGGUFConfig has read
	return rotaryGGUFNames(i, architecture == "llama", nil)
}
