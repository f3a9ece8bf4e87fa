package peft

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopeft/model"
)

// Which modules a peft folder's adapter_config.json names, by peft's own rules (checked with 0.21.2).

// patterns is a list of module names, or one regular expression over whole names.
type patterns struct {
	list  []string
	regex string
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *patterns) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		return json.Unmarshal(raw, &p.regex)
	}
	return json.Unmarshal(raw, &p.list)
}

// match compiles the patterns to a test of a module's full name: none matches nothing.
func (p patterns) match(key string) (func(name string) bool, error) {
	if p.regex == "" {
		return func(name string) bool {
			return slices.ContainsFunc(p.list, func(t string) bool { return name == t || strings.HasSuffix(name, "."+t) })
		}, nil
	}
	re, err := regexp.Compile("^(?:" + p.regex + ")$")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return re.MatchString, nil
}

// oneOrMore is a list of values, or one.
type oneOrMore[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *oneOrMore[T]) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] != '[' && raw[0] != 'n' {
		var one T
		err := json.Unmarshal(raw, &one)
		*l = oneOrMore[T]{one}
		return err
	}
	return json.Unmarshal(raw, (*[]T)(l))
}

// overrides are settings of modules by regular expressions over the ends of their names, in the file's order.
type overrides[T any] []override[T]

type override[T any] struct {
	pattern string
	value   T
}

// UnmarshalJSON implements json.Unmarshaler. A name given twice has its last value, as in Python.
func (o *overrides[T]) UnmarshalJSON(raw []byte) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t == nil { // null
		return err
	} else if t != json.Delim('{') {
		return fmt.Errorf("%s is no object of values by module name", raw)
	}
	*o = nil
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		next := override[T]{pattern: fmt.Sprint(key)}
		if err := d.Decode(&next.value); err != nil {
			return err
		}
		if i := slices.IndexFunc(*o, func(x override[T]) bool { return x.pattern == next.pattern }); i >= 0 {
			(*o)[i] = next
		} else {
			*o = append(*o, next)
		}
	}
	return nil
}

// of compiles the overrides to the value of a module by its full name: that of the first pattern that fits, else
// other.
func (o overrides[T]) of(key string, other T) (func(name string) T, error) {
	res := make([]*regexp.Regexp, len(o))
	for i, x := range o {
		var err error
		if res[i], err = regexp.Compile(`^(?:.*\.)?(?:` + x.pattern + ")$"); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return func(name string) T {
		if i := slices.IndexFunc(res, func(re *regexp.Regexp) bool { return re.MatchString(name) }); i >= 0 {
			return o[i].value
		}
		return other
	}, nil
}

// perModule applies rank_pattern and alpha_pattern.
func (c *hfConfig) perModule() (func(string) (int, float64), error) {
	for _, x := range c.RankPattern {
		if x.value < 1 {
			return nil, fmt.Errorf("rank_pattern: %q is %d", x.pattern, x.value)
		}
	}
	rank, err := c.RankPattern.of("rank_pattern", c.Rank)
	if err != nil {
		return nil, err
	}
	alpha, err := c.AlphaPattern.of("alpha_pattern", c.Alpha)
	return func(name string) (int, float64) { return rank(name), alpha(name) }, err
}

// selects compiles target_modules and what narrows it to a test of a module's full name. Layers narrow the names
// of a list that are ends of a module's name, not those that are one in full.
func (c *hfConfig) selects() (func(name string) bool, error) {
	wanted, err := c.Targets.match("target_modules")
	if err != nil {
		return nil, err
	}
	if strings.EqualFold(c.Targets.regex, "all-linear") {
		wanted = func(string) bool { return true }
	}
	excluded, err := c.Exclude.match("exclude_modules")
	if err != nil {
		return nil, err
	}
	inLayers, err := c.inLayers()
	if err != nil {
		return nil, err
	}
	return func(name string) bool {
		return wanted(name) && !excluded(name) && (slices.Contains(c.Targets.list, name) || inLayers(name))
	}, nil
}

// inLayers compiles layers_to_transform and layers_pattern: a layer's number is the first part of a name that is
// one, after a part that layers_pattern matches.
func (c *hfConfig) inLayers() (func(name string) bool, error) {
	if len(c.Layers) == 0 || c.Targets.regex != "" {
		return func(string) bool { return true }, nil
	}
	number := []string{`^.*?\.[^.]*\.(\d+)\.`}
	if len(c.LayersPattern) > 0 && c.LayersPattern[0] != "" {
		number = nil
		for _, p := range c.LayersPattern {
			number = append(number, `^(?:.*?\.)??(?:`+p+`)\.(\d+)\.`)
		}
	}
	res := make([]*regexp.Regexp, len(number))
	for i, p := range number {
		var err error
		if res[i], err = regexp.Compile(p); err != nil {
			return nil, fmt.Errorf("layers_pattern: %w", err)
		}
	}
	return func(name string) bool {
		for _, re := range res {
			if m := re.FindStringSubmatch(name); m != nil {
				layer, err := strconv.Atoi(m[len(m)-1])
				return err == nil && slices.Contains(c.Layers, layer)
			}
		}
		return false
	}, nil
}

// targets resolves target_modules against the model: to names of modules where they mean the same in every layer, or in
// some that are the same for all, else to full names.
func (c *hfConfig) targets(f *adapterFiles, m model.Model, o *Options) error {
	selected, err := c.selects()
	if err != nil {
		return err
	}
	plan := structureOf(m)
	o.Targets = nil
	for _, t := range plan.AllTargets() {
		name := t.Stored()
		if !selected(name) {
			name = t.Name // of a part, which only gopeft knows
		}
		// What peft trains whole it does not adapt.
		if selected(name) && !(f.sidecar == nil && savedWhole(c.ModulesToSave, name)) && !slices.Contains(o.Targets, name) {
			o.Targets = append(o.Targets, name)
		}
	}
	if len(o.Targets) == 0 {
		return fmt.Errorf("target_modules name no linear map of the model's blocks (%s)", strings.Join(plan.moduleNames(), ", "))
	}
	o.Targets, o.Layers = plan.shorten(o.Targets)
	return nil
}

// norms resolves target_modules to the names of norms.
func (c *hfConfig) norms(m model.Model) ([]string, error) {
	selected, err := c.selects()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range m.Params().All() {
		if name := moduleOf(p); p.Norm && selected(name) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("target_modules name no norm")
	}
	return out, nil
}

// alsoBiases has the biases trained that peft trained beside LoRA.
func (c *hfConfig) alsoBiases(m model.Model, o *Options) error {
	names, err := biases(c.Bias, m, o.TargetOptions)
	for _, name := range names {
		if !matchesAny(o.Unfreeze, name) {
			o.Unfreeze = append(o.Unfreeze, name)
		}
	}
	return err
}

// biases are the model's parameters that peft trains for a value of bias, head apart, in order.
func biases(kind string, m model.Model, o TargetOptions) ([]string, error) {
	var names []string
	switch kind {
	case biasAll:
		for _, p := range m.Params().All() {
			if strings.HasSuffix(p.Name, ".bias") && !isHead(m, p.Name) {
				names = append(names, p.Name)
			}
		}
	case biasLoRA:
		adapted, err := o.targets(structureOf(m))
		if err != nil {
			return nil, err
		}
		for _, t := range adapted {
			if b := t.Dense.B; b != nil {
				names = append(names, b.Name)
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// hfBias is the value of bias that stands for the model's parameters trained beside LoRA, if one does.
func (a *method) hfBias(m model.Model) string {
	trained := a.beside(m)
	slices.Sort(trained)
	for _, kind := range []string{biasLoRA, biasAll} {
		if names, err := biases(kind, m, a.o.TargetOptions); err == nil && len(names) > 0 && slices.Equal(names, trained) {
			return kind
		}
	}
	return "none"
}
