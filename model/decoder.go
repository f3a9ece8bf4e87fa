package model

import (
	"encoding/json"
	"fmt"
	"math"
)

// decoderConfig is the part of a config.json that shapes a decoder with rotary positions and gated feed-forwards.
type decoderConfig struct {
	Vocab        int
	MaxPositions int
	Layers       int
	Heads        int
	KVHeads      int
	HeadDim      int
	Hidden       int
	FFN          int
	NormEps      float64
	Rope         Rope
	Windows      []int // per layer, how many positions a token sees, itself included; 0: all
	Tied         bool  // the language-model head is the embedding table
	QKVBias      bool
	OutBias      bool
	MLPBias      bool

	Norms       normPlaces
	NormsOffset bool // norms scale by one more than their weight says
	HeadNorms   bool // queries and keys are normalised before they are rotated, head by head,
	WideNorms   bool // or all heads as one
	Unrotated   []bool
	LocalRope   *Rope // of layers with a window, where they turn otherwise
	RotaryDim   int   // how many of a head's dimensions turn: the first ones
	GELU        bool  // the gate goes through gelu in its tanh form, not through silu

	// Factors of what the layers read and leave; 0: none.
	EmbeddingScale, ResidualScale, AttentionScale, LogitScale float64
	ScalesPrompt                                              bool    // EmbeddingScale is of virtual tokens too
	ScoreCap, LogitCap                                        float64 // attention's scores, and logits, are bent to below these
	ResidualDropout                                           float64

	AttentionDropout float64
	InitRange        float64
}

// decoderJSON is what the config.json of such decoders holds.
type decoderJSON struct {
	ModelType        string    `json:"model_type"`
	Vocab            int       `json:"vocab_size"`
	Hidden           int       `json:"hidden_size"`
	FFN              int       `json:"intermediate_size"`
	Layers           int       `json:"num_hidden_layers"`
	Heads            int       `json:"num_attention_heads"`
	KVHeads          *int      `json:"num_key_value_heads"`
	HeadDim          *int      `json:"head_dim"`
	MaxPositions     int       `json:"max_position_embeddings"`
	NormEps          float64   `json:"rms_norm_eps"`
	Theta            float64   `json:"rope_theta"`
	Scaling          *ropeJSON `json:"rope_scaling"`
	Parameters       *ropeJSON `json:"rope_parameters"` // rope_theta and rope_scaling in one, since transformers 5
	Tied             bool      `json:"tie_word_embeddings"`
	AttentionBias    bool      `json:"attention_bias"`
	MLPBias          bool      `json:"mlp_bias"`
	AttentionDropout float64   `json:"attention_dropout"`
	InitRange        float64   `json:"initializer_range"`
	Activation       string    `json:"hidden_act"`
	PartialRotary    float64   `json:"partial_rotary_factor"`
	Window           *int      `json:"sliding_window"`
	UseWindow        bool      `json:"use_sliding_window"` // where it is not on as such
	WindowFrom       int       `json:"max_window_layers"`  // the first layer that has one
	LayerTypes       []string  `json:"layer_types"`

	partial bool // the family serves a PartialRotary below 1
}

// normPlaces says which norms a block has.
type normPlaces int

const (
	normsBefore normPlaces = iota // of what its sublayers read
	normsAfter                    // of what they leave, before that is added
	normsAround                   // both
)

// maxLayers is far above any model; each layer takes memory before the weights are looked for.
const maxLayers = 4096

// config checks the settings. Biases and windows, which families have their own rules for, are left out.
func (j *decoderJSON) config() (decoderConfig, error) {
	c := decoderConfig{Vocab: j.Vocab, MaxPositions: j.MaxPositions, Layers: j.Layers, Heads: j.Heads, KVHeads: j.Heads, Hidden: j.Hidden,
		FFN: j.FFN, NormEps: j.NormEps, Tied: j.Tied, AttentionDropout: j.AttentionDropout, InitRange: j.InitRange}
	if j.KVHeads != nil {
		c.KVHeads = *j.KVHeads
	}
	if err := checkDims(dim{"vocab_size", c.Vocab}, dim{"max_position_embeddings", c.MaxPositions}, dim{"num_hidden_layers", c.Layers},
		dim{"num_attention_heads", c.Heads}, dim{"num_key_value_heads", c.KVHeads}, dim{"hidden_size", c.Hidden},
		dim{"intermediate_size", c.FFN}); err != nil {
		return c, err
	}
	if c.HeadDim = c.Hidden / c.Heads; j.HeadDim != nil {
		c.HeadDim = *j.HeadDim
	} else if c.Hidden%c.Heads != 0 {
		return c, fmt.Errorf("hidden_size %d is not a multiple of the %d heads", c.Hidden, c.Heads)
	}
	if c.HeadDim < 2 || c.HeadDim%2 != 0 || c.HeadDim > 1<<16 {
		return c, fmt.Errorf("head_dim is %d, want an even number", c.HeadDim)
	}
	scaling := j.Scaling
	if scaling == nil {
		scaling = j.Parameters
	}
	if scaling != nil && scaling.Partial != nil {
		j.PartialRotary = *scaling.Partial
	}
	switch {
	case c.Layers > maxLayers:
		return c, fmt.Errorf("num_hidden_layers is %d, more than %d", c.Layers, maxLayers)
	case c.Heads%c.KVHeads != 0:
		return c, fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	case j.PartialRotary != 1 && !(j.partial && j.PartialRotary > 0 && j.PartialRotary < 1):
		return c, fmt.Errorf("partial_rotary_factor %v is not supported (1)", j.PartialRotary)
	case !(c.NormEps > 0 && c.NormEps < 1):
		return c, fmt.Errorf("rms_norm_eps is %v", c.NormEps)
	case !(c.AttentionDropout >= 0 && c.AttentionDropout < 1):
		return c, rateError("attention_dropout", c.AttentionDropout)
	case !(c.InitRange >= 0) || math.IsInf(c.InitRange, 0):
		return c, fmt.Errorf("initializer_range is %v", c.InitRange)
	}
	c.Rope = scaling.rope(j.Theta, j.MaxPositions)
	c.Unrotated = make([]bool, c.Layers)
	if c.RotaryDim = int(float64(c.HeadDim) * j.PartialRotary); c.RotaryDim < 2 || c.RotaryDim%2 != 0 {
		return c, fmt.Errorf("partial_rotary_factor %v leaves %d dimensions to turn, want an even number", j.PartialRotary, c.RotaryDim)
	}
	if n := len(c.Rope.Long); n > 0 && (n != c.RotaryDim/2 || len(c.Rope.Short) != n) {
		return c, fmt.Errorf("rope_scaling: %d and %d factors, want one for each of %d pairs of dimensions", len(c.Rope.Short), n, c.RotaryDim/2)
	}
	return c, c.Rope.check()
}

// rateError says that a rate of dropout is none.
func rateError(field string, rate float64) error {
	return fmt.Errorf("%s is %v, want 0 to below 1", field, rate)
}

// read puts what a config.json says over the defaults in j, and of keys that its family has beside over those in more.
func (j *decoderJSON) read(config []byte, more ...any) (decoderConfig, error) {
	for _, into := range append(more, j) {
		if err := json.Unmarshal(config, into); err != nil {
			return decoderConfig{}, err
		}
	}
	c, err := j.config()
	if err == nil {
		err = j.silu()
	}
	return c, err
}

// silu is an error for other activations.
func (j *decoderJSON) silu() error {
	if j.Activation != "silu" && j.Activation != "swish" {
		return fmt.Errorf("hidden_act %q is not supported (silu)", j.Activation)
	}
	return nil
}

// windows is the sliding window of each layer that slides says has one, unless layer_types say which have.
func (j *decoderJSON) windows(slides func(layer int) bool) ([]int, error) {
	ws := make([]int, j.Layers)
	if j.Window == nil || *j.Window == 0 {
		return ws, nil
	}
	if *j.Window < 1 {
		return nil, fmt.Errorf("sliding_window is %d, want a positive size or null", *j.Window)
	}
	if len(j.LayerTypes) > 0 && len(j.LayerTypes) != j.Layers {
		return nil, fmt.Errorf("layer_types has %d entries for %d layers", len(j.LayerTypes), j.Layers)
	}
	for i := range ws {
		does := slides(i)
		if len(j.LayerTypes) > 0 {
			does = j.LayerTypes[i] == "sliding_attention"
		}
		if does {
			ws[i] = *j.Window
		}
	}
	return ws, nil
}
