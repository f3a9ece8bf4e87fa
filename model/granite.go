package model

import (
	"fmt"
	"math"
)

// graniteFamily is Granite, a LLaMA whose embeddings, attention, sublayers and logits are scaled by factors of its config.
func graniteFamily() family {
	k := rotaryKind{name: "granite", classes: map[string]string{"granite": "Granite"}, config: graniteConfig, biased: []string{"granite"}}
	return k.complete(family{
		usual:  Info{Vocab: 49155, Hidden: 2048, Layers: 40, Heads: 32, KVHeads: 8, HeadDim: 64, FFN: 8192, MaxPositions: 4096},
		traits: Traits{PreNorm: true},
	})
}

// graniteConfig reads a config.json with transformers' defaults.
func graniteConfig(raw []byte) (decoderConfig, error) {
	j := decoderJSON{Vocab: 32000, Hidden: 4096, FFN: 11008, Layers: 32, Heads: 32, MaxPositions: 2048, NormEps: 1e-6, Theta: 10000,
		InitRange: 0.02, Activation: "silu", PartialRotary: 1}
	more := struct {
		Embedding float64 `json:"embedding_multiplier"`
		Logits    float64 `json:"logits_scaling"`
		Residual  float64 `json:"residual_multiplier"`
		Attention float64 `json:"attention_multiplier"`
	}{1, 1, 1, 1}
	c, err := j.read(raw, &more)
	if err != nil {
		return c, err
	}
	for _, f := range []struct {
		name  string
		value float64
	}{{"embedding_multiplier", more.Embedding}, {"logits_scaling", more.Logits}, {"residual_multiplier", more.Residual}, {"attention_multiplier", more.Attention}} {
		if !(f.value > 0) || math.IsInf(f.value, 0) {
			return c, fmt.Errorf("%s is %v, want a positive number", f.name, f.value)
		}
	}
	c.EmbeddingScale, c.ScalesPrompt, c.ResidualScale, c.AttentionScale = more.Embedding, true, more.Residual, more.Attention
	if more.Logits != 1 {
		c.LogitScale = 1 / more.Logits
	}
	c.QKVBias, c.OutBias, c.MLPBias = j.AttentionBias, j.AttentionBias, j.MLPBias
	c.Windows = make([]int, c.Layers)
	return c, nil
}
