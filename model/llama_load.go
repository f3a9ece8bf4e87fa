package model

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// llamaJSON is a config.json of model_type llama, mistral or qwen2.
type llamaJSON struct {
	ModelType        string   `json:"model_type"`
	Vocab            int      `json:"vocab_size"`
	Hidden           int      `json:"hidden_size"`
	FFN              int      `json:"intermediate_size"`
	Layers           int      `json:"num_hidden_layers"`
	Heads            int      `json:"num_attention_heads"`
	KVHeads          *int     `json:"num_key_value_heads"`
	HeadDim          *int     `json:"head_dim"`
	MaxPositions     int      `json:"max_position_embeddings"`
	NormEps          float64  `json:"rms_norm_eps"`
	Theta            float64  `json:"rope_theta"`
	Scaling          *ropeMap `json:"rope_scaling"`
	Parameters       *ropeMap `json:"rope_parameters"` // rope_theta and rope_scaling in one, since transformers 5
	Tied             bool     `json:"tie_word_embeddings"`
	AttentionBias    bool     `json:"attention_bias"`
	MLPBias          bool     `json:"mlp_bias"`
	AttentionDropout float64  `json:"attention_dropout"`
	InitRange        float64  `json:"initializer_range"`
	Activation       string   `json:"hidden_act"`
	PartialRotary    float64  `json:"partial_rotary_factor"`
	Window           *int     `json:"sliding_window"`
	UseWindow        bool     `json:"use_sliding_window"` // qwen2
	WindowFrom       int      `json:"max_window_layers"`  // qwen2
	LayerTypes       []string `json:"layer_types"`
}

type ropeMap struct {
	Kind     string   `json:"rope_type"`
	OldKind  string   `json:"type"`
	Theta    *float64 `json:"rope_theta"`
	Factor   float64  `json:"factor"`
	LowFreq  float64  `json:"low_freq_factor"`
	HighFreq float64  `json:"high_freq_factor"`
	Original int      `json:"original_max_position_embeddings"`
}

// maxLayers is far above any model; each layer takes memory before the weights are looked for.
const maxLayers = 4096

// llamaConfig reads a config.json with transformers' defaults.
func llamaConfig(raw []byte) (LLaMAConfig, error) {
	j := llamaJSON{Vocab: 32000, Hidden: 4096, FFN: 11008, Layers: 32, Heads: 32, MaxPositions: 2048, NormEps: 1e-6, Theta: 10000,
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
	if err := json.Unmarshal(raw, &j); err != nil {
		return LLaMAConfig{}, err
	}
	c := LLaMAConfig{Vocab: j.Vocab, MaxPositions: j.MaxPositions, Layers: j.Layers, Heads: j.Heads, KVHeads: j.Heads, Hidden: j.Hidden,
		FFN: j.FFN, NormEps: j.NormEps, Tied: j.Tied, QKVBias: j.AttentionBias, OutBias: j.AttentionBias, MLPBias: j.MLPBias,
		AttentionDropout: j.AttentionDropout, InitRange: j.InitRange}
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
	switch {
	case c.Layers > maxLayers:
		return c, fmt.Errorf("num_hidden_layers is %d, more than %d", c.Layers, maxLayers)
	case c.Heads%c.KVHeads != 0:
		return c, fmt.Errorf("num_attention_heads %d is not a multiple of num_key_value_heads %d", c.Heads, c.KVHeads)
	case j.Activation != "silu" && j.Activation != "swish":
		return c, fmt.Errorf("hidden_act %q is not supported (silu)", j.Activation)
	case j.PartialRotary != 1:
		return c, fmt.Errorf("partial_rotary_factor %v is not supported (1)", j.PartialRotary)
	case !(c.NormEps > 0 && c.NormEps < 1):
		return c, fmt.Errorf("rms_norm_eps is %v", c.NormEps)
	case !(c.AttentionDropout >= 0 && c.AttentionDropout < 1):
		return c, fmt.Errorf("attention_dropout is %v, want 0 to below 1", c.AttentionDropout)
	case !(c.InitRange >= 0) || math.IsInf(c.InitRange, 0):
		return c, fmt.Errorf("initializer_range is %v", c.InitRange)
	}
	c.Rope = j.rope()
	if err := c.Rope.check(); err != nil {
		return c, err
	}
	var err error
	c.Windows, err = j.windows()
	if j.ModelType == "qwen2" {
		c.QKVBias, c.OutBias, c.MLPBias = true, false, false
	}
	if j.ModelType == "mistral" {
		c.QKVBias, c.OutBias, c.MLPBias = false, false, false
	}
	return c, err
}

func (j *llamaJSON) rope() Rope {
	r := Rope{Theta: j.Theta, Original: j.MaxPositions}
	m := j.Scaling
	if m == nil {
		m = j.Parameters
	}
	if m == nil {
		return r
	}
	if m.Theta != nil {
		r.Theta = *m.Theta
	}
	if r.Kind = m.Kind; r.Kind == "" {
		r.Kind = m.OldKind
	}
	if r.Kind == "default" {
		r.Kind = ""
	}
	r.Factor, r.LowFreq, r.HighFreq = m.Factor, m.LowFreq, m.HighFreq
	if r.Kind == "llama3" {
		r.Original = m.Original
	}
	return r
}

// windows is each layer's sliding window: Mistral's for all, Qwen2's, when switched on, from max_window_layers on.
func (j *llamaJSON) windows() ([]int, error) {
	ws := make([]int, j.Layers)
	if j.Window == nil || *j.Window == 0 || j.ModelType == "llama" {
		return ws, nil
	}
	if *j.Window < 1 {
		return nil, fmt.Errorf("sliding_window is %d, want a positive size or null", *j.Window)
	}
	if len(j.LayerTypes) > 0 && len(j.LayerTypes) != j.Layers {
		return nil, fmt.Errorf("layer_types has %d entries for %d layers", len(j.LayerTypes), j.Layers)
	}
	for i := range ws {
		slides := j.ModelType == "mistral" || j.UseWindow && i >= j.WindowFrom
		if len(j.LayerTypes) > 0 {
			slides = j.LayerTypes[i] == "sliding_attention"
		}
		if slides {
			ws[i] = *j.Window
		}
	}
	return ws, nil
}

// loadLLaMA builds a decoder from a HuggingFace checkpoint, with or without the "model." prefix, or from a
// GGUF file, whose metadata stand for the config.
func loadLLaMA(s *bindings.Scope, c *hf.Checkpoint, o Options) (*LLaMA, error) {
	raw, where, r := c.Config, c.Path+"/config.json", llamaRequest()
	gguf, isGGUF := c.Weights.(*files.GGUF)
	if isGGUF {
		var err error
		if raw, err = ggufConfig(gguf); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Path, err)
		}
		where = c.Path
		r = ggufRequest(gguf)
	}
	cfg, err := llamaConfig(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if o.Dropout != nil {
		if cfg.AttentionDropout = *o.Dropout; !(*o.Dropout >= 0 && *o.Dropout < 1) {
			return nil, fmt.Errorf("dropout is %v, want 0 to below 1", *o.Dropout)
		}
	}
	labels, fresh, err := headLabels(raw, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	m := newLLaMA(cfg, labels, c.Weights == nil || hasLMHead(c.Weights, r))
	if m.config, err = configMap(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	m.finishConfig(o)
	r.Wants, r.DType, r.Device, r.Copy = m.wants(fresh), o.DType, o.Device, o.Copy
	ignore := r.Ignore
	r.Ignore = func(name string) bool {
		// Heads of another task, an alias of the embedding table, and tables that old versions saved.
		return ignore(name) || (m.score == nil && strings.HasPrefix(name, "score.")) || ((m.score != nil || cfg.Tied) && name == "lm_head.weight")
	}
	_, err = m.fill(s, c, r, cfg.InitRange)
	return m, err
}

func hasLMHead(a files.Archive, r hf.Request) bool {
	return slices.ContainsFunc(a.Entries(), func(e files.Entry) bool { return r.Rename(e.Name) == "lm_head.weight" })
}

// llamaRequest reads HuggingFace's names.
func llamaRequest() hf.Request {
	return hf.Request{
		Rename: func(name string) string {
			for _, own := range []string{"layers.", "embed_tokens.", "norm."} {
				if strings.HasPrefix(name, own) {
					return llamaPrefix + name
				}
			}
			return name
		},
		Ignore: func(name string) bool { return strings.HasSuffix(name, ".rotary_emb.inv_freq") },
	}
}

// finishConfig makes the loaded config one of the model as it is now.
func (m *LLaMA) finishConfig(o Options) {
	family := map[string]string{"mistral": "Mistral", "qwen2": "Qwen2"}[fmt.Sprint(m.config["model_type"])]
	if family == "" {
		family = "Llama"
	}
	task := "ForCausalLM"
	switch {
	case m.score != nil:
		task = "ForSequenceClassification"
		m.setLabels(m.labels)
	case m.head == nil:
		task = "Model"
	}
	m.config["architectures"] = []string{family + task}
	delete(m.config, "dtype")
	m.config["torch_dtype"] = map[bindings.DType]string{bindings.Half: "float16", bindings.BFloat16: "bfloat16"}[o.DType]
	if m.config["torch_dtype"] == "" {
		m.config["torch_dtype"] = "float32"
	}
}
