package peft

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf/files"
)

// Folders of the HuggingFace peft library: adapter_config.json and adapter_model.safetensors or .bin.

// peftTypes maps methods to peft's names for them. The last three are not peft's own: only gopeft reads them.
var peftTypes = []struct{ method, peft string }{
	{"lora", "LORA"}, {"dora", "LORA"}, {"ia3", "IA3"}, {"prompt", "PROMPT_TUNING"}, {"prefix", "PREFIX_TUNING"},
	{"llama-adapter", "ADAPTION_PROMPT"}, {"llama-adapter", ownAdaption}, {"llama-adapter-v2", "ADAPTION_PROMPT_V2"}, {"bitfit", "BITFIT"},
}

// ownAdaption is the type of LLaMA-Adapters that peft's adaption prompts do not compute.
const ownAdaption = "LLAMA_ADAPTER"

// Values of bias: which of the model's biases peft trained beside LoRA.
const (
	biasAll  = "all"
	biasLoRA = "lora_only" // those of the maps that LoRA changes
)

const (
	peftWeights    = "adapter_model.safetensors"
	peftProjection = "prefix_projection.safetensors" // ours: peft keeps the folded prefix only
)

// peftConfig is the part of adapter_config.json that shapes an adapter. Other fields, which every version of
// peft adds to, are not looked at unless they are in unsupported.
type peftConfig struct {
	Type          string   `json:"peft_type"`
	Task          *string  `json:"task_type"`
	Base          *string  `json:"base_model_name_or_path"`
	ModulesToSave []string `json:"modules_to_save"`

	Rank         int                `json:"r"`
	Alpha        float64            `json:"lora_alpha"`
	Dropout      float64            `json:"lora_dropout"`
	RSLoRA       bool               `json:"use_rslora"`
	DoRA         bool               `json:"use_dora"`
	Bias         string             `json:"bias"`
	Targets      patterns           `json:"target_modules"`
	Exclude      patterns           `json:"exclude_modules"`
	Layers       layerList          `json:"layers_to_transform"`
	RankPattern  map[string]int     `json:"rank_pattern"`
	AlphaPattern map[string]float64 `json:"alpha_pattern"`

	FeedForward patterns `json:"feedforward_modules"`

	VirtualTokens int    `json:"num_virtual_tokens"`
	TokenDim      *int   `json:"token_dim"`
	NumLayers     *int   `json:"num_layers"`
	NumHeads      *int   `json:"num_attention_heads"`
	Tokenizer     string `json:"tokenizer_name_or_path"`

	AdapterLength int `json:"adapter_len"`
	AdapterLayers int `json:"adapter_layers"`
}

// patterns is a list of module names, or one regular expression over whole names.
type patterns struct {
	list  []string
	regex string
}

func (p *patterns) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		return json.Unmarshal(raw, &p.regex)
	}
	return json.Unmarshal(raw, &p.list)
}

func (p patterns) empty() bool { return len(p.list) == 0 && p.regex == "" }

// match compiles the patterns to a test of a module's full name.
func (p patterns) match() (func(name string) bool, error) {
	if p.regex == "all-linear" {
		return func(string) bool { return true }, nil
	}
	if p.regex != "" {
		re, err := regexp.Compile("^(?:" + p.regex + ")$")
		if err != nil {
			return nil, fmt.Errorf("target_modules: %w", err)
		}
		return re.MatchString, nil
	}
	return func(name string) bool {
		return slices.ContainsFunc(p.list, func(t string) bool { return name == t || strings.HasSuffix(name, "."+t) })
	}, nil
}

// layerList is a list of layer numbers, or one.
type layerList []int

func (l *layerList) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] != '[' && raw[0] != 'n' {
		var one int
		err := json.Unmarshal(raw, &one)
		*l = layerList{one}
		return err
	}
	return json.Unmarshal(raw, (*[]int)(l))
}

// unsupported are settings of peft that change the mathematics in ways that are not implemented.
var unsupported = []string{
	"layer_replication", "trainable_token_indices", "target_parameters", "use_qalora", "use_bdlora", "alora_invocation_tokens",
	"lora_bias", "fan_in_fan_out", "arrow_config", "kasa_config", "velora_config", "monteclora_config", "megatron_config",
}

func (c *peftConfig) check(raw []byte) error {
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
	// These initialisations also change the base model's weights, which the folder then does not hold.
	if init, ok := all["init_lora_weights"].(string); ok {
		for _, prefix := range []string{"pissa", "olora", "corda", "loftq", "lora_ga"} {
			if strings.HasPrefix(init, prefix) {
				return fmt.Errorf("init_lora_weights %q changes the base model's weights: export the adapter as plain LoRA first", init)
			}
		}
	}
	if c.Bias != "" && c.Bias != "none" {
		return fmt.Errorf("bias %q is not supported (none)", c.Bias)
	}
	return nil
}

func openPeft(f *folder, raw []byte) error {
	where := func(err error) error { return fmt.Errorf("%s/adapter_config.json: %w", f.Path, err) }
	var c peftConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return where(err)
	}
	f.Dialect = DialectPeft
	for _, t := range peftTypes {
		if t.peft == c.Type && f.Method == "" {
			f.Method = t.method
		}
	}
	switch {
	case f.Method == "":
		return where(fmt.Errorf("peft_type %q is not supported", c.Type))
	case f.Method == "lora" && c.DoRA:
		f.Method = "dora"
	}
	if err := c.check(raw); err != nil {
		return where(err)
	}
	if c.Base != nil {
		f.Base = *c.Base
	}
	if c.Tokenizer != "" {
		f.Tokenizer = c.Tokenizer
	}
	archive, err := files.OpenFirst(f.Path, peftWeights, "adapter_model.bin")
	if err != nil {
		return err
	}
	f.close = append(f.close, archive)
	for _, e := range archive.Entries() {
		if rows, ok := headRows(e); ok {
			f.NumLabels = rows
		}
	}
	o := &f.Options
	o.Rank, o.Alpha, o.LoRADropout, o.RSLoRA, o.DoRA = c.Rank, c.Alpha, c.Dropout, c.RSLoRA, c.DoRA
	o.VirtualTokens, o.AdapterLength, o.AdapterLayers = c.VirtualTokens, c.AdapterLength, c.AdapterLayers
	o.Targets = c.Targets.list
	o.PrefixProjection = false // the file holds the folded prefix; see values
	if f.sidecar == nil {
		o.Gate = "layer" // as in peft
	}
	f.prepare = func(m model.Model, o *Options) (technique, error) { return c.technique(f, m, o) }
	f.values = func(s *bindings.Scope, m model.Model, a *adapter, specs []spec) (given, error) {
		return f.peftValues(s, m, a, specs, c, archive)
	}
	return nil
}

// technique makes the method's technique where New's would not do, and completes the options.
func (c *peftConfig) technique(f *folder, m model.Model, o *Options) (technique, error) {
	i := m.Info()
	if c.NumLayers != nil && *c.NumLayers != i.Layers {
		return nil, fmt.Errorf("the adapter was trained on a model with %d layers, this one has %d", *c.NumLayers, i.Layers)
	}
	if f.sidecar == nil { // ours knows the patterns
		o.Unfreeze = c.alsoSaved(m)
	}
	switch f.Method {
	case "prompt":
		if c.TokenDim != nil && *c.TokenDim != i.Hidden {
			return nil, fmt.Errorf("the adapter was trained on a model with hidden size %d, this one has %d", *c.TokenDim, i.Hidden)
		}
	case "prefix":
		if width := i.KVHeads * i.HeadDim; c.TokenDim != nil && *c.TokenDim != width {
			return nil, fmt.Errorf("the adapter was trained on a model with keys and values of %d, this one has %d", *c.TokenDim, width)
		}
		if _, err := os.Stat(filepath.Join(f.Path, peftProjection)); err == nil && f.sidecar != nil {
			o.PrefixProjection = f.sidecar.Options.PrefixProjection
		}
	case "lora", "dora", "ia3":
		if err := c.targets(m, o); err != nil {
			return nil, err
		}
	}
	switch f.Method {
	case "lora", "dora":
		l := &lora{}
		if len(c.RankPattern)+len(c.AlphaPattern) > 0 {
			var err error
			if l.perModule, err = c.perModule(); err != nil {
				return nil, err
			}
		}
		final := *o
		if err := final.complete(f.Method); err != nil {
			return nil, err
		}
		l.o = final
		return l, nil
	case "ia3":
		v := &ia3{inputs: []string{}}
		feed, err := c.FeedForward.match()
		if err != nil {
			return nil, err
		}
		all, err := outlineOf(m).targets(o.Targets)
		if err != nil {
			return nil, err
		}
		for _, t := range all {
			if !c.FeedForward.empty() && feed(t.name) {
				v.inputs = append(v.inputs, t.name)
			}
		}
		final := *o
		if err := final.complete(f.Method); err != nil {
			return nil, err
		}
		v.o = final
		return v, nil
	}
	return nil, nil
}

// targets resolves target_modules against the model: to the patterns as they are where they mean the same in
// every layer, else to full names.
func (c *peftConfig) targets(m model.Model, o *Options) error {
	wanted, err := c.Targets.match()
	if err != nil {
		return err
	}
	excluded, err := c.Exclude.match()
	if err != nil {
		return err
	}
	plan := outlineOf(m)
	all, err := plan.targets([]string{"all"})
	if err != nil {
		return err
	}
	o.Targets = nil
	short := map[string]int{}
	for _, t := range all {
		layer := slices.Index(plan.blocks, t.block)
		if !wanted(t.name) || !c.Exclude.empty() && excluded(t.name) || len(c.Layers) > 0 && !slices.Contains(c.Layers, layer) {
			continue
		}
		o.Targets = append(o.Targets, t.name)
		short[t.name[strings.LastIndex(t.name, ".")+1:]]++
	}
	if len(o.Targets) == 0 {
		return fmt.Errorf("target_modules name no linear map of the model's blocks (%s)", strings.Join(plan.moduleNames(), ", "))
	}
	for _, n := range short {
		if n != len(plan.blocks) {
			return nil
		}
	}
	o.Targets = nil
	for _, name := range plan.moduleNames() {
		if short[name] > 0 {
			o.Targets = append(o.Targets, name)
		}
	}
	return nil
}

// perModule applies rank_pattern and alpha_pattern: regular expressions over the ends of modules' names.
func (c *peftConfig) perModule() (func(string) (int, float64), error) {
	compile := func(pattern string) (*regexp.Regexp, error) {
		re, err := regexp.Compile(`^(?:.*\.)?(?:` + pattern + ")$")
		if err != nil {
			return nil, fmt.Errorf("rank_pattern, alpha_pattern: %w", err)
		}
		return re, nil
	}
	ranks, alphas := map[*regexp.Regexp]int{}, map[*regexp.Regexp]float64{}
	for p, r := range c.RankPattern {
		re, err := compile(p)
		if err != nil {
			return nil, err
		}
		if r < 1 {
			return nil, fmt.Errorf("rank_pattern: %q is %d", p, r)
		}
		ranks[re] = r
	}
	for p, a := range c.AlphaPattern {
		re, err := compile(p)
		if err != nil {
			return nil, err
		}
		alphas[re] = a
	}
	return func(name string) (int, float64) {
		rank, alpha := c.Rank, c.Alpha
		for re, r := range ranks {
			if re.MatchString(name) {
				rank = r
			}
		}
		for re, a := range alphas {
			if re.MatchString(name) {
				alpha = a
			}
		}
		return rank, alpha
	}, nil
}
