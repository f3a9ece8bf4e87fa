package model

import (
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// qwen3Family is Qwen3, which normalises queries and keys head by head where Qwen2 adds biases, and whose heads have a
// width of their own.
func qwen3Family() family {
	k := rotaryKind{name: "qwen3", classes: map[string]string{"qwen3": "Qwen3"}, config: qwen3Config,
		gguf: func(_ *files.GGUF, i Info) hf.Request {
			return rotaryGGUFNames(i, false, map[string]string{"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"})
		}}
	return k.complete(family{
		usual:      Info{Vocab: 151936, Hidden: 1024, Layers: 28, Heads: 16, KVHeads: 8, HeadDim: 128, FFN: 3072, MaxPositions: 40960},
		traits:     Traits{PreNorm: true, HeadNorms: true},
		gguf:       []string{"qwen3"},
		ggufConfig: plainGGUFConfig,
	})
}

// qwen3Config reads a config.json with transformers' defaults.
func qwen3Config(raw []byte) (decoderConfig, error) {
	window, kvHeads, headDim := 4096, 32, 128
	j := decoderJSON{Vocab: 151936, Hidden: 4096, FFN: 22016, Layers: 32, Heads: 32, KVHeads: &kvHeads, HeadDim: &headDim, MaxPositions: 32768,
		NormEps: 1e-6, Theta: 10000, InitRange: 0.02, Activation: "silu", PartialRotary: 1, Window: &window, WindowFrom: 28}
	c, err := j.read(raw)
	if err != nil {
		return c, err
	}
	c.HeadNorms = true
	c.QKVBias, c.OutBias = j.AttentionBias, j.AttentionBias
	c.Windows, err = j.windows(func(layer int) bool { return j.UseWindow && layer >= j.WindowFrom })
	return c, err
}
