package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// gemma2Family is Gemma 2: norms around its sublayers that scale by one more than their weights, layers with and without a
// window in turn, gated GELU, embeddings times √hidden, and scores and logits that are bent to below a limit.
func gemma2Family() family {
	k := rotaryKind{name: "gemma2", classes: map[string]string{"gemma2": "Gemma2"}, config: gemma2Config}
	return k.complete(family{
		usual:  Info{Vocab: 256000, Hidden: 2304, Layers: 26, Heads: 8, KVHeads: 4, HeadDim: 256, FFN: 9216, MaxPositions: 8192},
		traits: Traits{PreNorm: true, PostNorms: true, KeepsActivation: true, KeepsScores: true},
	})
}

// gemma3Family is the text model of Gemma 3, which normalises queries and keys in place of bending scores, and turns them by
// other angles in layers with a window.
func gemma3Family() family {
	k := rotaryKind{name: "gemma3", classes: map[string]string{"gemma3_text": "Gemma3"}, scorer: "Gemma3Text", config: gemma3Config}
	return k.complete(family{
		usual:  Info{Vocab: 262144, Hidden: 1152, Layers: 26, Heads: 4, KVHeads: 1, HeadDim: 256, FFN: 6912, MaxPositions: 32768},
		traits: Traits{PreNorm: true, PostNorms: true, HeadNorms: true, KeepsActivation: true},
	})
}

// gemmaJSON is what the config.json of both holds beside a decoder's.
type gemmaJSON struct {
	Hidden        string   `json:"hidden_activation"`
	PreAttention  float64  `json:"query_pre_attn_scalar"`
	LogitCap      *float64 `json:"final_logit_softcapping"`
	ScoreCap      *float64 `json:"attn_logit_softcapping"`
	Bidirectional bool     `json:"use_bidirectional_attention"`
	Pattern       int      `json:"sliding_window_pattern"` // each so-manieth layer has no window
	LocalTheta    float64  `json:"rope_local_base_freq"`
	Parameters    struct { // rope_parameters by type of layer, since transformers 5
		Full    *ropeJSON `json:"full_attention"`
		Sliding *ropeJSON `json:"sliding_attention"`
	} `json:"rope_parameters"`
}

// gemma2Config reads a config.json with transformers' defaults.
func gemma2Config(raw []byte) (decoderConfig, error) {
	window, kvHeads, headDim, scoreCap, logitCap := 4096, 4, 256, 50.0, 30.0
	j := decoderJSON{Vocab: 256000, Hidden: 2304, FFN: 9216, Layers: 26, Heads: 8, KVHeads: &kvHeads, HeadDim: &headDim, MaxPositions: 8192,
		NormEps: 1e-6, Theta: 10000, InitRange: 0.02, PartialRotary: 1, Tied: true, Window: &window}
	c, _, err := gemmaConfig(raw, j, gemmaJSON{PreAttention: 256, ScoreCap: &scoreCap, LogitCap: &logitCap, Pattern: 2})
	return c, err
}

// gemma3Config reads a config.json with transformers' defaults.
func gemma3Config(raw []byte) (decoderConfig, error) {
	window, kvHeads, headDim := 4096, 4, 256
	j := decoderJSON{Vocab: 262208, Hidden: 2304, FFN: 9216, Layers: 26, Heads: 8, KVHeads: &kvHeads, HeadDim: &headDim, MaxPositions: 131072,
		NormEps: 1e-6, Theta: 1e6, InitRange: 0.02, PartialRotary: 1, Tied: true, Window: &window}
	c, more, err := gemmaConfig(raw, j, gemmaJSON{PreAttention: 256, Pattern: 6, LocalTheta: 10000})
	if err != nil {
		return c, err
	}
	if c.ScoreCap > 0 {
		return c, errors.New("attn_logit_softcapping is not supported for gemma3_text")
	}
	c.HeadNorms = true
	local := more.Parameters.Sliding.rope(more.LocalTheta, c.MaxPositions)
	c.LocalRope = &local
	return c, local.check()
}

func gemmaConfig(raw []byte, j decoderJSON, more gemmaJSON) (decoderConfig, gemmaJSON, error) {
	if err := json.Unmarshal(raw, &j); err != nil {
		return decoderConfig{}, more, err
	}
	if err := json.Unmarshal(raw, &more); err != nil {
		return decoderConfig{}, more, err
	}
	if full := more.Parameters.Full; full != nil {
		j.Parameters = full
	}
	c, err := j.config()
	if err != nil {
		return c, more, err
	}
	if more.Hidden == "" {
		more.Hidden = "gelu_pytorch_tanh"
	}
	switch {
	case more.Hidden != "gelu_pytorch_tanh":
		return c, more, fmt.Errorf("hidden_activation %q is not supported (gelu_pytorch_tanh)", more.Hidden)
	case more.Bidirectional:
		return c, more, errors.New("use_bidirectional_attention is not supported")
	case !(more.PreAttention > 0) || math.IsInf(more.PreAttention, 0):
		return c, more, fmt.Errorf("query_pre_attn_scalar is %v, want a positive number", more.PreAttention)
	case more.Pattern < 1:
		return c, more, fmt.Errorf("sliding_window_pattern is %d", more.Pattern)
	}
	for _, limit := range []struct {
		name string
		from *float64
		to   *float64
	}{{"final_logit_softcapping", more.LogitCap, &c.LogitCap}, {"attn_logit_softcapping", more.ScoreCap, &c.ScoreCap}} {
		if limit.from == nil {
			continue
		}
		if *limit.to = *limit.from; !(*limit.to > 0) || math.IsInf(*limit.to, 0) {
			return c, more, fmt.Errorf("%s is %v, want a positive number or null", limit.name, *limit.to)
		}
	}
	c.Norms, c.NormsOffset, c.GELU = normsAround, true, true
	c.EmbeddingScale, c.AttentionScale = math.Sqrt(float64(c.Hidden)), 1/math.Sqrt(more.PreAttention)
	c.QKVBias, c.OutBias = j.AttentionBias, j.AttentionBias
	c.Windows, err = j.windows(func(layer int) bool { return (layer+1)%more.Pattern != 0 })
	return c, more, err
}
