package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/hf/files"
)

// hfPeft is a folder of the HuggingFace peft library: adapter_config.json and adapter_model.safetensors or .bin.
// gopeft's own methods, which peft does not have, are saved in such folders too, under types that only gopeft reads.
type hfPeft struct{}

func (hfPeft) recognises(f *adapterFiles) bool {
	var c map[string]json.RawMessage
	return f.config != nil && json.Unmarshal(f.config, &c) == nil && len(c["peft_type"]) > 0 && string(c["peft_type"]) != "null"
}

// keeps: peft has prefixes of decoders only, and counts their positions.
func (hfPeft) keeps(a *method, m model.Model) bool {
	return a.Name() != "prefix" || m.Info().Decoder && !a.uncounted()
}

// hfTypes are peft's names for methods. It has no BitFit and no second version of LLaMA-Adapter: those two are ours.
var hfTypes = map[string]string{
	"lora": "LORA", "dora": "LORA", "ia3": "IA3", "prompt": "PROMPT_TUNING", "prefix": "PREFIX_TUNING",
	"llama-adapter": "ADAPTION_PROMPT", "llama-adapter-v2": "ADAPTION_PROMPT_V2", "bitfit": "BITFIT", "ln-tuning": "LN_TUNING", "oft": "OFT", "boft": "BOFT",
}

// ownAdaption is the type of LLaMA-Adapters that peft's adaption prompts do not compute.
const ownAdaption = "LLAMA_ADAPTER"

// ownType is the peft_type of a method that peft does not have and that is not in hfTypes.
func ownType(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }

// methodOf finds the method of a peft_type, "" if there is none. One of our own must be the method that gopeft.yaml
// names: of a library's type by the same name nothing is known.
func (f *adapterFiles) methodOf(peftType string) (name string, own bool) {
	for _, d := range f.methods.list() {
		if hfTypes[d.Name] == peftType || d.Name == "llama-adapter" && peftType == ownAdaption {
			return d.Name, false
		}
	}
	if f.sidecar != nil && ownType(f.sidecar.Method) == peftType {
		if d, err := f.methods.find(f.sidecar.Method); err == nil {
			return d.Name, true
		}
	}
	return "", false
}

// Values of bias: which of the model's biases peft trained beside LoRA.
const (
	biasAll  = "all"
	biasLoRA = "lora_only" // those of the maps that LoRA changes
)

const taskClassify = "SEQ_CLS" // task_type of classifiers

const (
	hfWeights    = "adapter_model.safetensors"
	hfProjection = "prefix_projection.safetensors" // ours: peft keeps the folded prefix only
)

// hfPool is the position that peft classifies from behind a soft prompt.
func hfPool(i model.Info) model.Pool {
	if i.Decoder {
		return model.LastPosition
	}
	return model.FirstPosition
}

// hfConfig is the part of adapter_config.json that shapes an adapter. Other fields, which every version of
// peft adds to, are not looked at unless they are in unsupported.
type hfConfig struct {
	Type          string   `json:"peft_type"`
	Task          *string  `json:"task_type"`
	Base          *string  `json:"base_model_name_or_path"`
	ModulesToSave []string `json:"modules_to_save"`

	Rank          int                `json:"r"`
	Alpha         float64            `json:"lora_alpha"`
	Dropout       float64            `json:"lora_dropout"`
	RSLoRA        bool               `json:"use_rslora"`
	DoRA          bool               `json:"use_dora"`
	Init          any                `json:"init_lora_weights"`
	Bias          string             `json:"bias"`
	Targets       patterns           `json:"target_modules"`
	Exclude       patterns           `json:"exclude_modules"`
	Layers        oneOrMore[int]     `json:"layers_to_transform"`
	LayersPattern oneOrMore[string]  `json:"layers_pattern"`
	RankPattern   overrides[int]     `json:"rank_pattern"`
	AlphaPattern  overrides[float64] `json:"alpha_pattern"`
	Tokens        tokenIndices       `json:"trainable_token_indices"`
	TiesWeights   bool               `json:"ensure_weight_tying"`

	InitRank        int     `json:"init_r"`
	VeRADropout     float64 `json:"vera_dropout"`
	SavesProjection *bool   `json:"save_projection"`

	OFT  hfOFT  `json:"-"`
	BOFT hfBOFT `json:"-"`

	FeedForward patterns `json:"feedforward_modules"`
	FanInFanOut bool     `json:"fan_in_fan_out"`

	VirtualTokens int    `json:"num_virtual_tokens"`
	TokenDim      *int   `json:"token_dim"`
	NumLayers     *int   `json:"num_layers"`
	NumHeads      *int   `json:"num_attention_heads"`
	Tokenizer     string `json:"tokenizer_name_or_path"`

	AdapterLength int `json:"adapter_len"`
	AdapterLayers int `json:"adapter_layers"`

	archive files.Archive // the weights, where their shapes tell of settings
	joined  bool          // with what the base gave up at the start; see readStart
}

// hfSettings reads adapter_config.json, with peft's defaults.
func hfSettings(raw []byte) (c hfConfig, err error) {
	var all map[string]json.RawMessage
	var kind string
	if err := json.Unmarshal(raw, &all); err != nil {
		return c, err
	}
	_ = json.Unmarshal(all["peft_type"], &kind) // of another type, it fails below
	switch kind {
	case hfTypes["lora"]:
		c.Rank, c.Alpha = 8, 8
	case hfAdaLoRA:
		c.Rank, c.Alpha, c.InitRank = 8, 8, 12
		delete(all, "rank_pattern") // which ranks were kept, as the shapes say too
		if raw, err = json.Marshal(all); err != nil {
			return c, err
		}
	case hfVeRA:
		c.Rank = 256
	}
	if err = json.Unmarshal(raw, &c); err != nil {
		return c, err
	}
	switch kind {
	case hfTypes["oft"]:
		err = json.Unmarshal(raw, &c.OFT)
	case hfTypes["boft"]:
		c.BOFT.Size = boftBlock
		err = json.Unmarshal(raw, &c.BOFT)
	}
	return c, err
}

// unsupported are settings of peft that change the mathematics in ways that are not implemented.
var unsupported = []string{
	"layer_replication", "target_parameters", "use_qalora", "use_bdlora", "alora_invocation_tokens",
	"lora_bias", "arrow_config", "kasa_config", "velora_config", "monteclora_config", "megatron_config",
}

func (c *hfConfig) check(raw []byte) error {
	var all map[string]any
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	for _, key := range unsupported {
		switch v := all[key].(type) {
		case nil:
		case bool:
			if v {
				return fmt.Errorf("%s is not supported", key)
			}
		case []any:
			if len(v) > 0 {
				return fmt.Errorf("%s is not supported", key)
			}
		case map[string]any:
			if len(v) > 0 {
				return fmt.Errorf("%s is not supported", key)
			}
		default:
			return fmt.Errorf("%s is not supported", key)
		}
	}
	switch c.Bias {
	case "", "none", biasAll, biasLoRA:
		return nil
	}
	return fmt.Errorf("bias %q is not supported (none, %s, %s)", c.Bias, biasAll, biasLoRA)
}

func (hfPeft) read(f *adapterFiles) error {
	raw := f.config
	where := func(err error) error { return fmt.Errorf("%s/adapter_config.json: %w", f.Path, err) }
	c, err := hfSettings(raw)
	switch {
	case err != nil:
		return where(err)
	case c.Type != hfTypes["lora"] && !c.folds():
		c.Rank, c.Alpha = 0, 0
	case c.Alpha == 0 && !c.folds():
		return where(errors.New("lora_alpha is 0: the update would be nothing"))
	}
	f.Dialect = DialectPeft
	own := false
	if f.Method, own = f.methodOf(c.Type); c.folds() {
		f.Method = "lora"
	}
	switch {
	case f.Method == "":
		return where(unknownType(c.Type))
	case c.Type != hfTypes["lora"] && c.Tokens.any():
		return where(errors.New("trainable_token_indices are supported beside LoRA alone"))
	case f.Method == "lora" && c.DoRA:
		f.Method = "dora"
	}
	if err := c.check(raw); err != nil {
		return where(err)
	}
	if c.Type == hfTypes["lora"] {
		if err := c.readStart(f); err != nil {
			return where(err)
		}
	}
	if c.Base != nil {
		f.Base = *c.Base
	}
	if c.Tokenizer != "" {
		f.Tokenizer = c.Tokenizer
	}
	archive, err := files.OpenFirst(f.Path, hfWeights, "adapter_model.bin")
	if err != nil {
		return err
	}
	f.close = append(f.close, archive)
	if c.folds() {
		if err := c.prepareFolded(); err != nil {
			return where(err)
		}
		f.notes = append(f.notes, fmt.Sprintf("%s: %s is read as the LoRA that computes the same", f.Path, c.Type))
	}
	c.archive = archive
	f.NumLabels, f.TrainsTokens = labelsIn(archive), c.Tokens.any()
	if !own { // else gopeft.yaml has the settings
		c.settings(&f.Options)
	}
	if f.sidecar == nil { // peft wrote it, and computes so
		f.Options.Gate, f.Options.PeftCompat, f.Options.OutputBiasTwice = "layer", f.Method == "prompt", c.Type == hfTypes["llama-adapter"]
	}
	f.prepare = func(m model.Model, o *Options) (Tuner, error) { return c.tuner(f, m, o) }
	f.values = func(s *bindings.Scope, m model.Model, a *method, added []NewParam) (storedValues, error) {
		return f.hfValues(s, m, a, added, c, archive)
	}
	return nil
}

// settings gives options the values that the config has.
func (c *hfConfig) settings(o *Options) {
	o.Rank, o.Alpha, o.LoRADropout, o.RSLoRA, o.DoRA = c.Rank, c.Alpha, c.Dropout, c.RSLoRA, c.DoRA
	o.VirtualTokens, o.AdapterLength, o.AdapterLayers = c.VirtualTokens, c.AdapterLength, c.AdapterLayers
	o.Targets = c.Targets.list
	o.PrefixProjection = false // the file holds the folded prefix; see hfValues
}

// tuner makes the method's tuner where the usual one would not do, and completes the options.
func (c *hfConfig) tuner(f *adapterFiles, m model.Model, o *Options) (Tuner, error) {
	i := m.Info()
	if c.NumLayers != nil && *c.NumLayers != i.Layers {
		return nil, fmt.Errorf("the adapter was trained on a model with %d layers, this one has %d", *c.NumLayers, i.Layers)
	}
	if f.sidecar == nil { // ours knows the patterns
		o.Unfreeze = c.alsoSaved(m)
	}
	if c.FanInFanOut && !transposed(m) {
		return nil, errors.New("fan_in_fan_out is not supported for a model whose maps are stored as [out, in]")
	}
	o.PeftCompat, o.OutputBiasTwice = o.PeftCompat && len(m.Labels()) > 0, o.OutputBiasTwice && hasOutputBias(m)
	switch f.Method {
	case "prompt":
		if c.TokenDim != nil && *c.TokenDim != i.Hidden {
			return nil, fmt.Errorf("the adapter was trained on a model with hidden size %d, this one has %d", *c.TokenDim, i.Hidden)
		}
	case "prefix":
		if f.sidecar == nil && !i.Decoder {
			return nil, fmt.Errorf("peft counts a prefix's positions before those of the text, which is not supported for %s", i.Family)
		}
		if width := i.KVHeads * i.HeadDim; c.TokenDim != nil && *c.TokenDim != width {
			return nil, fmt.Errorf("the adapter was trained on a model with keys and values of %d, this one has %d", *c.TokenDim, width)
		}
		if path := filepath.Join(f.Path, hfProjection); f.sidecar != nil && f.sidecar.Options.PrefixProjection && fsutil.Exists(path) {
			o.PrefixProjection = true
			return f.projectedPrefix(path, *o)
		}
	case "lora", "dora", "ia3", "oft", "boft":
		if err := c.targets(f, m, o); err != nil {
			return nil, err
		}
	}
	switch f.Method {
	case "oft":
		return c.oft(f, m, o)
	case "boft":
		return c.boft(f, m, o)
	case "ln-tuning":
		l := &lnTuning{}
		var err error
		if l.modules, err = c.norms(m); err == nil {
			l.o, err = f.complete(*o)
		}
		return l, err
	case "lora", "dora":
		if err := c.alsoBiases(m, o); err != nil {
			return nil, err
		}
		if c.folds() {
			l, err := c.foldedLoRA(m, o)
			if err == nil {
				l.o, err = f.complete(*o)
			}
			return l, err
		}
		tables, err := c.tables(f, m, o)
		if err != nil {
			return nil, err
		}
		l := &lora{tables: tables}
		o.Unfreeze = slices.DeleteFunc(o.Unfreeze, func(p string) bool {
			return slices.ContainsFunc(tables, func(t table) bool { return t.whole && savedWhole([]string{p}, t.name) })
		})
		targets, err := o.targets(structureOf(m))
		if err != nil {
			return nil, err
		}
		return l, c.patterned(f, l, targets, o)
	case "ia3":
		v := &ia3{inputs: []string{}}
		feed, err := c.FeedForward.match("feedforward_modules")
		if err != nil {
			return nil, err
		}
		targets, err := o.targets(structureOf(m))
		if err != nil {
			return nil, err
		}
		for _, t := range targets {
			if feed(t.Stored()) || feed(t.Name) {
				v.inputs = append(v.inputs, t.Name)
			}
		}
		v.o, err = f.complete(*o)
		return v, err
	}
	return nil, nil
}
