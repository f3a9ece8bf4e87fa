package peft

import (
	"fmt"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// Definition is one method: what its own file says of it to everything else.
type Definition struct {
	// Name is what New, --method and saved folders call it.
	Name string
	// Complete checks the options that matter to this method alone and fills in what they leave open, after the
	// checks and defaults that hold for every method. nil: nothing.
	Complete func(o *Options) error
	// New makes the method's working part; the options are complete.
	New func(o Options) Tuner
	// Dialects are the files of other libraries that can hold the method, the usual one first. A method without any
	// is saved in gopeft's own folder, which needs no code.
	Dialects []Dialect
	// InPlace says that the model's own weights are trained and not copies of them, so that Detach cannot give the
	// base model back.
	InPlace bool
	// Unmergeable says why no weights of a model can have the method's effect. "" for a method whose Tuner is a
	// Merger or that is InPlace.
	Unmergeable string
}

// Catalog is a list of methods; nil stands for Builtin. What lists methods or finds one by its name asks a catalog.
type Catalog []Definition

// Builtin is the methods that gopeft comes with. A program with one of its own appends it:
//
//	methods := append(peft.Builtin(), mine)
func Builtin() Catalog {
	return Catalog{
		fullMethod(), lastMethod(), loraMethod(), doraMethod(), houlsbyMethod(), pfeifferMethod(), ia3Method(), bitfitMethod(), lnTuningMethod(), oftMethod(), boftMethod(),
		promptMethod(), prefixMethod(), llamaAdapterMethod(), llamaAdapterV2Method(),
	}
}

func (c Catalog) list() Catalog {
	if c == nil {
		return Builtin()
	}
	return c
}

// Names lists the methods' names in order.
func (c Catalog) Names() []string {
	var names []string
	for _, d := range c.list() {
		names = append(names, d.Name)
	}
	return names
}

// find gives the definition of a name; an unknown one is an error that lists the names.
func (c Catalog) find(name string) (Definition, error) {
	for _, d := range c.list() {
		if d.Name == name {
			return d, nil
		}
	}
	return Definition{}, fmt.Errorf("method %q is not known: one of %s", name, strings.Join(c.Names(), ", "))
}

// New makes a method, not yet attached to a model. An option out of its range is an error naming it.
func (c Catalog) New(name string, o Options) (Method, error) {
	a, err := c.new(name, o)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (c Catalog) new(name string, o Options) (*method, error) {
	d, err := c.find(name)
	if err != nil {
		return nil, err
	}
	if err := d.complete(&o); err != nil {
		return nil, err
	}
	return &method{definition: d, o: o, tuner: d.New(o)}, nil
}

// complete fills in the defaults of a method and checks its options.
func (d Definition) complete(o *Options) error {
	err := o.complete()
	if err == nil && d.Complete != nil {
		err = d.Complete(o)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	return nil
}

// InPlace reports whether the method of that name trains the model's own weights and not copies of them.
func (c Catalog) InPlace(name string) bool {
	d, err := c.find(name)
	return err == nil && d.InPlace
}

// Mergeable reports whether Merge can fold a method of that name into a model's weights, and if not why. The options
// and the model may stand in the way still, of which Merge tells.
func (c Catalog) Mergeable(name string) (bool, string) {
	d, err := c.find(name)
	if err != nil {
		return false, err.Error()
	}
	return d.Unmergeable == "", d.Unmergeable
}

// Count is the number of parameters a method adds to a model of that shape and trains: those of its own, without the
// head or other parameters of the model that it also trains.
func (c Catalog) Count(name string, o Options, info model.Info) (int64, error) {
	a, err := c.new(name, o)
	if err != nil {
		return 0, err
	}
	info = info.Complete()
	params, err := a.tuner.Adds(&Structure{Info: info, Blocks: info.Outline(), HasLMHead: info.LMHead != ""})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	var n int64
	for _, p := range params {
		if p.Frozen {
			continue
		}
		k := int64(1)
		for _, d := range p.Shape {
			k *= d
		}
		n += k
	}
	return n, nil
}

// What follows are Builtin's.

// Methods lists what New takes.
func Methods() []string { return Builtin().Names() }

// New is Builtin's.
func New(name string, o Options) (Method, error) { return Builtin().New(name, o) }

// Load is Builtin's.
func Load(s *bindings.Scope, path string, m model.Model) (Method, error) {
	return Builtin().Load(s, path, m)
}

// LoadWith is Builtin's.
func LoadWith(s *bindings.Scope, path string, m model.Model, o LoadOptions) (Method, error) {
	return Builtin().LoadWith(s, path, m, o)
}

// Probe is Builtin's.
func Probe(path string) (Info, error) { return Builtin().Probe(path) }

// Convert is Builtin's.
func Convert(s *bindings.Scope, src, dst string, d Dialect, m model.Model) error {
	return Builtin().Convert(s, src, dst, d, m, LoadOptions{})
}

// Mergeable is Builtin's.
func Mergeable(name string) (bool, string) { return Builtin().Mergeable(name) }

// Count is Builtin's.
func Count(name string, o Options, info model.Info) (int64, error) {
	return Builtin().Count(name, o, info)
}

// NewSet is Builtin's.
func NewSet(m model.Model) *Set { return Builtin().NewSet(m) }
