package model

import "fmt"

// smollm3Family is SmolLM3, some of whose layers turn nothing by position.
func smollm3Family() family {
	k := rotaryKind{name: "smollm3", classes: map[string]string{"smollm3": "SmolLM3"}, config: smollm3Config, biased: []string{"smollm3"}}
	return k.complete(family{
		usual:  Info{Vocab: 128256, Hidden: 2048, Layers: 36, Heads: 16, KVHeads: 4, HeadDim: 128, FFN: 11008, MaxPositions: 65536},
		traits: Traits{PreNorm: true},
	})
}

// smollm3Config reads a config.json with transformers' defaults.
func smollm3Config(raw []byte) (decoderConfig, error) {
	four := 4
	j := decoderJSON{Vocab: 128256, Hidden: 2048, FFN: 11008, Layers: 36, Heads: 16, KVHeads: &four, MaxPositions: 32768, NormEps: 1e-6,
		Theta: 2000000, InitRange: 0.02, Activation: "silu", PartialRotary: 1, Tied: true}
	more := struct {
		Turns    []int `json:"no_rope_layers"` // 1 for layers that turn, whatever the name says
		Interval int   `json:"no_rope_layer_interval"`
	}{nil, 4}
	c, err := j.read(raw, &more)
	if err != nil {
		return c, err
	}
	c.QKVBias, c.OutBias, c.MLPBias = j.AttentionBias, j.AttentionBias, j.MLPBias
	switch {
	case more.Turns != nil && len(more.Turns) != c.Layers:
		return c, fmt.Errorf("no_rope_layers has %d entries for %d layers", len(more.Turns), c.Layers)
	case more.Turns == nil && more.Interval < 1:
		return c, fmt.Errorf("no_rope_layer_interval is %d", more.Interval)
	}
	for i := range c.Unrotated {
		if more.Turns != nil {
			c.Unrotated[i] = more.Turns[i] == 0
		} else {
			c.Unrotated[i] = (i+1)%more.Interval == 0
		}
	}
	if !j.UseWindow {
		j.Window = nil
	}
	c.Windows, err = j.windows(func(layer int) bool { return c.Unrotated[layer] })
	return c, err
}
