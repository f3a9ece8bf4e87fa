package peft

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf/files"
)

// What a peft folder's LoRA has trained of token embeddings and of the language-model head.

// tokenIndices are the rows of tables that were trained: those of the token embeddings, or by module.
type tokenIndices struct {
	words []int64
	named map[string][]int64
}

// UnmarshalJSON implements json.Unmarshaler.
func (t *tokenIndices) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '{' {
		return json.Unmarshal(raw, &t.named)
	}
	return json.Unmarshal(raw, &t.words)
}

// any reports whether there are any.
func (t tokenIndices) any() bool { return len(t.words)+len(t.named) > 0 }

// of are those of a module; words says that it is the token embeddings.
func (t tokenIndices) of(name string, words bool) []int64 {
	if words && len(t.words) > 0 {
		return t.words
	}
	for _, key := range []string{name, lastPart(name)} {
		if ids := t.named[key]; len(ids) > 0 {
			return ids
		}
	}
	return nil
}

// savedWhole reports whether patterns of modules_to_save name a module.
func savedWhole(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return strings.Contains("."+name+".", "."+p+".") })
}

// tables are the tables that peft trained. Where embeddings and head are one and peft saves one of them whole, the other
// stays as it was, and where it saves both, each goes its own way: they are the method's own then, not the model's.
// What gopeft has saved names those that are the model's in its settings.
func (c *hfConfig) tables(f *adapterFiles, m model.Model, o *Options) ([]table, error) {
	selected, err := c.selects()
	if err != nil {
		return nil, err
	}
	words, head, tied := tablesOf(m)
	var out []table
	for _, name := range []string{words, head} {
		if name == "" {
			continue
		}
		saved := savedWhole(c.ModulesToSave, name)
		t := table{name: name, tokens: c.Tokens.of(name, name == words)}
		t.lora = !saved && !strings.EqualFold(c.Targets.regex, "all-linear") && selected(name)
		t.whole = saved && tied && (f.sidecar == nil || !matchesAny(o.Unfreeze, name+tableWeight))
		switch {
		case len(t.tokens) > 0 && (t.lora || saved):
			return nil, fmt.Errorf("trainable_token_indices of %s do not go with training all of it", name)
		case t.lora && name == head && o.LoRAInit != "":
			return nil, fmt.Errorf("init_lora_weights %q of %s is not supported", o.LoRAInit, name)
		case t.lora && c.DoRA:
			return nil, fmt.Errorf("use_dora on %s is not supported", name)
		case (t.lora || saved) && tied && c.TiesWeights:
			return nil, fmt.Errorf("ensure_weight_tying of %s is not supported", name)
		}
		if t.grows, err = checkTokens(t.tokens, m.Info().Vocab); err != nil {
			return nil, err
		}
		if t.lora || t.whole || len(t.tokens) > 0 {
			out = append(out, t)
		}
	}
	for name := range c.Tokens.named {
		if !slices.ContainsFunc(out, func(t table) bool { return t.name == name || lastPart(t.name) == name }) {
			return nil, fmt.Errorf("trainable_token_indices of %s are not supported (%s)", name, strings.TrimSuffix(words+", "+head, ", "))
		}
	}
	return out, nil
}

// baseCopies are the keys under which peft saves a table's own weight beside its update.
func baseCopies(tables []table) map[string]table {
	out := map[string]table{}
	for _, t := range tables {
		if t.lora {
			for _, key := range hfKeys("lora", t.name+".base_layer.weight") {
				out[key] = t
			}
		}
	}
	return out
}

// checkCopies refuses tables of another base model: peft would compute with the file's.
func checkCopies(s *bindings.Scope, m model.Model, archive files.Archive, copies map[string]table) error {
	for _, e := range archive.Entries() {
		t, ok := copies[e.Name]
		if !ok || t.own(m).Quantised() {
			continue
		}
		same, err := sameValues(s, e, t.own(m))
		if err == nil && !same {
			err = fmt.Errorf("%s: %s is not the base model's: the adapter was trained on another one", e.File, e.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sameValues reports whether an entry holds a parameter's numbers, in the parameter's dtype.
func sameValues(s *bindings.Scope, e files.Entry, p *model.Param) (same bool, err error) {
	if !slices.Equal(e.Shape, p.T.Shape()) {
		return false, nil
	}
	err = s.Run(func(s *bindings.Scope) error {
		t, err := floats(s, e)
		if err == nil {
			t = s.ToDevice(t, p.T.DType(), p.T.Device())
			same = s.MaxAll(s.Abs(s.Sub(t, s.Detach(p.T)))).Item() == 0
		}
		return err
	})
	return same, err
}
