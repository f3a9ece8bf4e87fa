package peft

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"gopeft/model"
)

// Options are the settings of every method. Zero stands for the method's default, which New fills in; a setting of
// another method is ignored. Each group of settings is declared in its method's file, is a struct of its own there,
// and is embedded here: o.Rank is LoRA's.
//
// A setting has its name as a flag and in YAML (tag yaml) and its help (tag usage); the tag group says whose it is, and
// "-" that help does not list it: it records what another library computes otherwise.
type Options struct {
	Unfreeze []string `yaml:"unfreeze" usage:"train these parts of the model too (full: only these), by patterns of parameter names"`

	PromptOptions       `yaml:",inline" group:"prompt and prefix"`
	PrefixOptions       `yaml:",inline" group:"prefix"`
	PoolOptions         `yaml:",inline" group:"-"`
	BottleneckOptions   `yaml:",inline" group:"houlsby and pfeiffer"`
	LLaMAAdapterOptions `yaml:",inline" group:"llama-adapter"`
	AdaptionOptions     `yaml:",inline" group:"-"`
	LoRAOptions         `yaml:",inline" group:"lora"`
	OFTOptions          `yaml:",inline" group:"oft and boft"`
	BOFTOptions         `yaml:",inline" group:"oft and boft"`
	TargetOptions       `yaml:",inline" group:"lora, oft, boft and ia3"`

	AdapterName string `yaml:"adapter-name" usage:"name of the adapter inside AdapterHub files (default)"`
	Base        string `yaml:"-"` // name or path of the base model, recorded in saved folders
	Tokenizer   string `yaml:"-"` // name or path of its tokenizer, recorded in saved folders
}

// TargetOptions choose linear maps.
type TargetOptions struct {
	Targets []string `yaml:"targets" usage:"of lora, oft, boft and ia3: linear maps to change, by slot (q k v o up gate down), by name (q_proj), or all (lora, oft and boft: q v, ia3: k v down)"`
	Layers  []int    `yaml:"layers-to-transform" usage:"of lora, oft, boft and ia3: numbers of the blocks whose maps are changed, the first is 0 (all)"`
}

func (o *TargetOptions) complete() error {
	for i, n := range o.Layers {
		if n < 0 || n > 1<<20 || slices.Contains(o.Layers[:i], n) {
			return fmt.Errorf("layers has %d, want numbers of blocks from 0, each once", n)
		}
	}
	return nil
}

// targets are the maps that the options choose.
func (o TargetOptions) targets(x *Structure) ([]Target, error) {
	for _, n := range o.Layers {
		if n >= len(x.Blocks) {
			return nil, fmt.Errorf("layers has %d, but the model's blocks are 0 to %d", n, len(x.Blocks)-1)
		}
	}
	all, err := x.Targets(o.Targets...)
	if len(o.Layers) == 0 || err != nil {
		return all, err
	}
	out := slices.DeleteFunc(all, func(t Target) bool { return !slices.Contains(o.Layers, slices.Index(x.Blocks, t.Block)) })
	if len(out) == 0 {
		return nil, fmt.Errorf("layers %s have none of the targets", o.numbers())
	}
	return out, nil
}

// where says which maps they are.
func (o TargetOptions) where() string {
	text := strings.Join(o.Targets, " ")
	if len(o.Layers) > 0 {
		text += " of layers " + o.numbers()
	}
	return text
}

func (o TargetOptions) numbers() string { return strings.Trim(fmt.Sprint(o.Layers), "[]") }

// complete fills in the defaults that do not depend on the method, and checks ranges.
func (o *Options) complete() error {
	if o.AdapterName == "" {
		o.AdapterName = "default"
	}
	for _, group := range []interface{ complete() error }{
		&o.PromptOptions, &o.PrefixOptions, &o.BottleneckOptions, &o.LLaMAAdapterOptions, &o.AdaptionOptions, &o.LoRAOptions, &o.OFTOptions, &o.BOFTOptions, &o.TargetOptions,
	} {
		if err := group.complete(); err != nil {
			return err
		}
	}
	return checkAdapterName(o.AdapterName)
}

// orTargets are the linear maps of a method that the options leave to it.
func (o *Options) orTargets(patterns ...string) {
	if len(o.Targets) == 0 {
		o.Targets = patterns
	}
}

// checkCount refuses a number out of range, and fills in a default.
func checkCount(flag string, v *int, def int) error {
	if *v < 0 || *v > 1<<20 {
		return fmt.Errorf("%s is %d, want 1 to %d", flag, *v, 1<<20)
	}
	if *v == 0 {
		*v = def
	}
	return nil
}

// checkFactor refuses a number that is no positive factor.
func checkFactor(flag string, v float64) error {
	if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Errorf("%s is %v, want a positive number", flag, v)
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

// matchesAny reports whether a parameter's name fits one of the patterns of Unfreeze.
func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, _ := model.Matches(p, name)
		return ok
	})
}

// checkAdapterName refuses what AdapterHub's files cannot hold: there the name is one part of dotted keys.
func checkAdapterName(name string) error {
	if name == "" || strings.Contains(name, ".") {
		return fmt.Errorf("adapter-name is %q, want a name without dots", name)
	}
	return nil
}
