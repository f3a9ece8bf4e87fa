package infer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/peft"
	"gopeft/train"
)

// BareModel is the name that chooses no adapter where there are several.
const BareModel = "none"

// Notes are remarks on how adapters were loaded, such as a base with other weights.
func (a *adapters) Notes() []string { return a.notes }

// adapters are the adapters of a source on its model.
type adapters struct {
	on    train.Machine
	model model.Model // that they are on; nil: not loaded, or closed
	set   *peft.Set
	named bool // by who gave it: rows may choose, if only between the one and the bare model
	first string
	room  int // positions that the adapter with the longest prompt leaves
	notes []string
}

// load reads the source's adapters onto m and attaches the first.
func (a *adapters) load(s *bindings.Scope, src Source, m model.Model) error {
	a.model, a.set, a.room = m, src.Methods.NewSet(m), m.Info().MaxPositions
	list := src.Adapters
	if src.Adapter != "" {
		list = []NamedAdapter{nameAdapter(src.Adapter)}
		if src.Name != "" {
			list[0].Name, list[0].Path, a.named = src.Name, src.Adapter, true
		}
	}
	for _, x := range list {
		if x.Name == BareModel {
			return train.Usage("--adapter %s: the name %q stands for the bare model; give another", x.Path, BareModel)
		}
		method, err := a.set.Load(s, x.Name, x.Path)
		if err != nil {
			return err
		}
		a.notes = append(a.notes, method.Notes()...)
		if err := a.set.Use(s, x.Name); err != nil {
			return err
		}
		a.room = min(a.room, m.Info().MaxPositions-m.Hooks().PromptLen())
	}
	if len(list) == 0 {
		return nil
	}
	a.first = list[0].Name
	return a.set.Use(s, a.first)
}

// use switches to an adapter by a row's choice: "" is the first, BareModel none.
func (a *adapters) use(s *bindings.Scope, name string) error {
	switch name {
	case "":
		name = a.first
	case BareModel:
		name = ""
	}
	return a.set.Use(s, name)
}

// Several reports whether rows choose among adapters, the bare model being one.
func (a *adapters) Several() bool { return a.named || len(a.set.Names()) > 1 }

// CheckAdapter refuses a row's choice among several adapters that is not loaded.
func (a *adapters) CheckAdapter(name string) error {
	if !a.Several() || name == "" || name == BareModel || slices.Contains(a.set.Names(), name) {
		return nil
	}
	return fmt.Errorf("adapter %q is not loaded: there are %s, and %q for the bare model", name, strings.Join(a.set.Names(), ", "), BareModel)
}

// byAdapter calls do for each adapter that names ask for, in the order of their first mention, with the indices
// that ask for it. names may be nil: all rows then use the adapter attached.
func (a *adapters) byAdapter(s *bindings.Scope, n int, names []string, do func(rows []int) error) error {
	if names == nil || !a.Several() {
		return do(upTo(n))
	}
	if len(names) != n {
		return fmt.Errorf("%d names of adapters for %d rows", len(names), n)
	}
	groups := map[string][]int{}
	var order []string
	for i, name := range names {
		if err := a.CheckAdapter(name); err != nil {
			return err
		}
		if groups[name] == nil {
			order = append(order, name)
		}
		groups[name] = append(groups[name], i)
	}
	for _, name := range order {
		if err := a.use(s, name); err != nil {
			return err
		}
		if err := do(groups[name]); err != nil {
			return err
		}
	}
	return a.use(s, "")
}

func upTo(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// close frees the adapters, then the model.
func (a *adapters) close(m model.Model) error {
	if a.set != nil {
		a.set.Close()
	}
	if m == nil {
		return nil
	}
	return m.Close()
}

// errNoTokenizer explains why a model without tokenizer files cannot read text.
func errNoTokenizer(model string, cause error) error {
	return errors.Join(fmt.Errorf("%s cannot read text, only input_ids", model), cause)
}
