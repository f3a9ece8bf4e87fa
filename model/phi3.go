package model

import (
	"encoding/json"
	"math"
)

// phi3Family is Phi-3 and Phi-4, whose checkpoints hold queries, keys and values as one map, and the feed-forward's gate and
// up as one too: methods see them as any other family's.
func phi3Family() family {
	k := rotaryKind{name: "phi3", classes: map[string]string{"phi3": "Phi3"}, config: phi3Config}
	return k.complete(family{
		usual:  Info{Vocab: 32064, Hidden: 3072, Layers: 32, Heads: 32, KVHeads: 32, HeadDim: 96, FFN: 8192, MaxPositions: 4096},
		traits: Traits{PreNorm: true},
		maps: func(i Info) []Map {
			d, q, kv, ffn := i.Hidden, i.Heads*i.HeadDim, i.KVHeads*i.HeadDim, i.FFN
			part := func(slot Slot, of string, first, out, all int) Map {
				return Map{Slot: slot, Name: of + "." + string(slot), In: d, Out: out, Part: Part{Of: of, First: first, Out: all}}
			}
			const qkv, gateUp = "self_attn.qkv_proj", "mlp.gate_up_proj"
			return []Map{part(Q, qkv, 0, q, q+2*kv), part(K, qkv, q, kv, q+2*kv), part(V, qkv, q+kv, kv, q+2*kv),
				{Slot: O, Name: "self_attn.o_proj", In: q, Out: d},
				part(Gate, gateUp, 0, ffn, 2*ffn), part(Up, gateUp, ffn, ffn, 2*ffn),
				{Slot: Down, Name: "mlp.down_proj", In: ffn, Out: d},
			}
		},
	})
}

// phi3Config reads a config.json with transformers' defaults.
func phi3Config(raw []byte) (decoderConfig, error) {
	j := decoderJSON{Vocab: 32064, Hidden: 3072, FFN: 8192, Layers: 32, Heads: 32, MaxPositions: 4096, NormEps: 1e-5, Theta: 10000,
		InitRange: 0.02, Activation: "silu", PartialRotary: 1, partial: true}
	more := struct {
		Original int     `json:"original_max_position_embeddings"`
		Dropout  float64 `json:"resid_pdrop"`
	}{4096, 0}
	if err := json.Unmarshal(raw, &j); err != nil {
		return decoderConfig{}, err
	}
	if err := json.Unmarshal(raw, &more); err != nil {
		return decoderConfig{}, err
	}
	for _, r := range []*ropeJSON{j.Scaling, j.Parameters} {
		r.asLongRope(j.MaxPositions, more.Original)
	}
	c, err := j.config()
	if err == nil {
		err = j.silu()
	}
	if err != nil {
		return c, err
	}
	if c.ResidualDropout = more.Dropout; !(c.ResidualDropout >= 0 && c.ResidualDropout < 1) {
		return c, rateError("resid_pdrop", c.ResidualDropout)
	}
	c.Windows, err = j.windows(func(int) bool { return true })
	return c, err
}

// asLongRope reads the stretched rotary embedding of a model that was trained with so many positions before it was
// stretched to all that it has: how far decides the amplitude (Ding et al. 2024).
func (j *ropeJSON) asLongRope(positions, original int) {
	if j == nil {
		return
	}
	for _, kind := range []*string{&j.Kind, &j.OldKind} {
		if *kind == "su" || *kind == "yarn" { // as the first files of this family call it
			*kind = "longrope"
		}
	}
	if len(j.Long) == 0 {
		return
	}
	j.Original = original
	if factor := float64(positions) / float64(original); j.Amplitude == nil {
		amplitude := 1.0
		if factor > 1 {
			amplitude = math.Sqrt(1 + math.Log(factor)/math.Log(float64(original)))
		}
		j.Amplitude = &amplitude
	}
}
