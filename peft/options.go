package peft

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Options are the hyper-parameters of every method. Zero stands for the method's default; New fills it in.
// A setting of another method is ignored.
type Options struct {
	Unfreeze []string `yaml:"unfreeze" usage:"train these parts of the model too (full: only these), by patterns of parameter names"`

	VirtualTokens    int     `yaml:"virtual-tokens" usage:"of prompt and prefix: number of virtual tokens (20)"`
	Init             string  `yaml:"init" usage:"of prompt: vocab (random vocabulary rows), text or random; of prefix: vocab, text (real keys and values) or random"`
	InitText         string  `yaml:"init-text" usage:"of prompt and prefix: the text of --init text"`
	InitIDs          []int64 `yaml:"-"` // InitText's token ids, filled in by the caller
	PrefixProjection bool    `yaml:"prefix-projection" usage:"of prefix: train through a small network that is folded when saved"`
	PrefixHidden     int     `yaml:"prefix-hidden" usage:"of prefix: width of that network (the hidden size)"`
	PeftCompat       bool    `yaml:"peft-compat" usage:"of prompt: classify from the position the peft library pools"`

	Bottleneck      int     `yaml:"bottleneck" usage:"of houlsby and pfeiffer: bottleneck width (hidden size / reduction-factor)"`
	ReductionFactor float64 `yaml:"reduction-factor" usage:"of houlsby and pfeiffer: hidden size over bottleneck width (16)"`
	Activation      string  `yaml:"activation" usage:"of houlsby and pfeiffer: swish (or silu), relu, gelu, gelu_new or tanh (houlsby: swish, pfeiffer: relu)"`
	TrainLayerNorm  bool    `yaml:"train-layernorm" usage:"of houlsby and pfeiffer: train the blocks' norms too, as the paper does"`

	AdapterLayers int    `yaml:"adapter-layers" usage:"of llama-adapter: blocks with prompts, counted from the top (all but 2; in shallow models all; v2: -1 for none)"`
	AdapterLength int    `yaml:"adapter-length" usage:"of llama-adapter: prompt length (10)"`
	Gate          string `yaml:"gate" usage:"of llama-adapter: one gate per head, or per layer (head)"`
	GateTanh      bool   `yaml:"gate-tanh" usage:"of llama-adapter: squash gates by tanh, as the paper's code does"`

	SkipLMHead bool `yaml:"skip-lm-head" usage:"of llama-adapter-v2: leave the language-model head alone, so that the rest can be merged"`

	Rank        int      `yaml:"rank" usage:"of lora: rank (8)"`
	Alpha       float64  `yaml:"alpha" usage:"of lora: the update is scaled by alpha/rank (2·rank)"`
	LoRADropout float64  `yaml:"lora-dropout" usage:"of lora: dropout before the update (0)"`
	RSLoRA      bool     `yaml:"rslora" usage:"of lora: scale by alpha/√rank"`
	DoRA        bool     `yaml:"dora" usage:"of lora: learn magnitudes apart from directions"`
	Targets     []string `yaml:"targets" usage:"of lora and ia3: linear maps to change, by slot (q k v o up gate down), by name (q_proj), or all (lora: q v, ia3: k v down)"`

	AdapterName string `yaml:"adapter-name" usage:"name of the adapter inside AdapterHub files (default)"`
	Base        string `yaml:"-"` // name or path of the base model, recorded in saved folders
	Tokenizer   string `yaml:"-"` // name or path of its tokenizer, recorded in saved folders
}

// kinds is every method with how it is made, in the order they are listed.
var kinds = []struct {
	name string
	make func(o Options) technique
}{
	{"full", func(o Options) technique { return &full{o: o} }},
	{"last", func(o Options) technique { return &last{o: o} }},
	{"lora", func(o Options) technique { return &lora{o: o} }},
	{"dora", func(o Options) technique { return &lora{o: o} }},
	{"houlsby", func(o Options) technique { return &bottleneck{o: o} }},
	{"pfeiffer", func(o Options) technique { return &bottleneck{o: o, pfeiffer: true} }},
	{"ia3", func(o Options) technique { return &ia3{o: o} }},
	{"bitfit", func(o Options) technique { return &bitfit{o: o} }},
	{"prompt", func(o Options) technique { return &prompt{o: o} }},
	{"prefix", func(o Options) technique { return &prefix{o: o} }},
	{"llama-adapter", func(o Options) technique { return &adaption{o: o} }},
	{"llama-adapter-v2", func(o Options) technique { return &adaption{o: o, v2: true} }},
}

// Methods lists what New takes.
func Methods() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// New makes a method, not yet attached to a model. An option out of its range is an error naming it.
func New(name string, o Options) (Method, error) {
	a, err := newAdapter(name, o)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func newAdapter(name string, o Options) (*adapter, error) {
	for _, k := range kinds {
		if k.name != name {
			continue
		}
		if err := o.complete(name); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return &adapter{name: name, o: o, technique: k.make(o)}, nil
	}
	return nil, fmt.Errorf("method %q is not known: one of %s", name, strings.Join(Methods(), ", "))
}

// complete fills in a method's defaults and checks ranges.
func (o *Options) complete(name string) error {
	for _, n := range []struct {
		flag  string
		value int
	}{
		{"virtual-tokens", o.VirtualTokens}, {"prefix-hidden", o.PrefixHidden}, {"bottleneck", o.Bottleneck},
		{"adapter-layers", max(o.AdapterLayers, 0)}, {"adapter-length", o.AdapterLength}, {"rank", o.Rank},
	} {
		if n.value < 0 || n.value > 1<<20 {
			return fmt.Errorf("%s is %d, want a positive number", n.flag, n.value)
		}
	}
	if o.AdapterLayers < 0 && (o.AdapterLayers < -1 || name == "llama-adapter") {
		return fmt.Errorf("adapter-layers is %d, want a positive number", o.AdapterLayers)
	}
	if o.Alpha < 0 || math.IsNaN(o.Alpha) || math.IsInf(o.Alpha, 0) {
		return fmt.Errorf("alpha is %v, want a positive number", o.Alpha)
	}
	if o.ReductionFactor < 0 || math.IsNaN(o.ReductionFactor) || math.IsInf(o.ReductionFactor, 0) {
		return fmt.Errorf("reduction-factor is %v, want a positive number", o.ReductionFactor)
	}
	if !(o.LoRADropout >= 0 && o.LoRADropout < 1) {
		return fmt.Errorf("lora-dropout is %v, want 0 to below 1", o.LoRADropout)
	}
	o.DoRA = o.DoRA || name == "dora"
	fill := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	fill(&o.VirtualTokens, 20)
	fill(&o.AdapterLength, 10)
	fill(&o.Rank, 8)
	if o.Alpha == 0 {
		o.Alpha = 2 * float64(o.Rank)
	}
	if o.ReductionFactor == 0 {
		o.ReductionFactor = 16
	}
	if o.AdapterName == "" {
		o.AdapterName = "default"
	}
	if err := checkAdapterName(o.AdapterName); err != nil {
		return err
	}
	if err := choose("gate", &o.Gate, "head", "layer"); err != nil {
		return err
	}
	switch name {
	case "lora", "dora":
		if len(o.Targets) == 0 {
			o.Targets = []string{"q", "v"}
		}
	case "ia3":
		if len(o.Targets) == 0 {
			o.Targets = []string{"k", "v", "down"}
		}
	case "houlsby":
		return choose("activation", &o.Activation, activationNames("swish")...)
	case "pfeiffer":
		return choose("activation", &o.Activation, activationNames("relu")...)
	case "prompt":
		return choose("init", &o.Init, "vocab", "text", "random")
	case "prefix":
		if o.PrefixProjection {
			return choose("init", &o.Init, "random", "text", "vocab")
		}
		return choose("init", &o.Init, "vocab", "text", "random")
	}
	return nil
}

// checkAdapterName refuses what AdapterHub's files cannot hold: there the name is one part of dotted keys.
func checkAdapterName(name string) error {
	if name == "" || strings.Contains(name, ".") {
		return fmt.Errorf("adapter-name is %q, want a name without dots", name)
	}
	return nil
}

// choose defaults a setting to the first choice and checks that it is one of them.
func choose(flag string, v *string, choices ...string) error {
	if *v == "" {
		*v = choices[0]
	}
	if !slices.Contains(choices, *v) {
		return fmt.Errorf("%s %q is not known (%s)", flag, *v, strings.Join(choices, ", "))
	}
	return nil
}
