package peft

import (
	"fmt"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// Set is several methods on one model, at most one of them attached at a time. Switching moves pointers, no
// weights.
type Set struct {
	m       model.Model
	catalog Catalog
	methods []named
	active  string
}

type named struct {
	name   string
	method Method
}

// NewSet makes an empty set on m, which must carry no method.
func (c Catalog) NewSet(m model.Model) *Set { return &Set{m: m, catalog: c} }

// Add takes over a method that belongs to the set's model, detached or not, under a name of choice.
func (x *Set) Add(name string, method Method) error {
	if name == "" {
		return fmt.Errorf("adapter name is empty")
	}
	if x.find(name) != nil {
		return fmt.Errorf("adapter %q is already loaded", name)
	}
	method.Detach()
	x.methods = append(x.methods, named{name, method})
	return nil
}

// Load reads an adapter folder or file and adds it.
func (x *Set) Load(s *bindings.Scope, name, path string) (Method, error) {
	if err := x.Use(s, ""); err != nil {
		return nil, err
	}
	info, err := x.catalog.Probe(path)
	if err != nil {
		return nil, err
	}
	// A model folder's weights take the place of those that other adapters work on.
	if len(x.methods) > 0 && (info.Dialect == DialectModelFolder || x.methods[0].method.Definition().InPlace) {
		return nil, fmt.Errorf("%s: a model's own weights (method full or last) and adapters do not mix: give the model folder as the model", path)
	}
	method, err := x.catalog.Load(s, path, x.m)
	if err != nil {
		return nil, err
	}
	if err := x.Add(name, method); err != nil {
		method.Close()
		return nil, err
	}
	return method, nil
}

// Names lists the methods in the order they were added.
func (x *Set) Names() []string {
	var names []string
	for _, n := range x.methods {
		names = append(names, n.name)
	}
	return names
}

// Active is the attached method, nil for the bare model.
func (x *Set) Active() Method { return x.find(x.active) }

func (x *Set) find(name string) Method {
	for _, n := range x.methods {
		if n.name == name {
			return n.method
		}
	}
	return nil
}

// Use switches to a method by name; "" stands for the bare model.
func (x *Set) Use(s *bindings.Scope, name string) error {
	if name == x.active {
		return nil
	}
	next := x.find(name)
	if next == nil && name != "" {
		return fmt.Errorf("adapter %q is not loaded: there are %s", name, strings.Join(x.Names(), ", "))
	}
	if now := x.Active(); now != nil {
		now.Detach()
	}
	x.active = ""
	if next == nil {
		return nil
	}
	if err := next.Attach(s, x.m); err != nil {
		return err
	}
	x.active = name
	return nil
}

// Close closes every method.
func (x *Set) Close() {
	for _, n := range x.methods {
		n.method.Close()
	}
	x.methods, x.active = nil, ""
}
