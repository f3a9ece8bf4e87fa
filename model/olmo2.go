package model

import (
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// olmo2Family is OLMo 2, which normalises what its sublayers leave, not what they read, and queries and keys over all heads.
func olmo2Family() family {
	k := rotaryKind{name: "olmo2", classes: map[string]string{"olmo2": "Olmo2"}, config: olmo2Config,
		gguf: func(_ *files.GGUF, i Info) hf.Request {
			return rotaryGGUFNames(i, false, map[string]string{
				"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
				"post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm",
			})
		}}
	return k.complete(family{
		usual:      Info{Vocab: 100352, Hidden: 2048, Layers: 16, Heads: 16, KVHeads: 16, HeadDim: 128, FFN: 8192, MaxPositions: 4096},
		traits:     Traits{PreNorm: true, HeadNorms: true}, // sums are left as they are, as where norms come before
		gguf:       []string{"olmo2"},
		ggufConfig: plainGGUFConfig,
	})
}

// olmo2Config reads a config.json with transformers' defaults.
func olmo2Config(raw []byte) (decoderConfig, error) {
	j := decoderJSON{Vocab: 50304, Hidden: 4096, FFN: 11008, Layers: 32, Heads: 32, MaxPositions: 2048, NormEps: 1e-5, Theta: 10000,
		InitRange: 0.02, Activation: "silu", PartialRotary: 1}
	c, err := j.read(raw)
	if err != nil {
		return c, err
	}
	c.Norms, c.WideNorms = normsAfter, true
	c.QKVBias, c.OutBias = j.AttentionBias, j.AttentionBias
	c.Windows = make([]int, c.Layers)
	return c, nil
}
