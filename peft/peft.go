package peft

import (
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// Method is one way to fine-tune. Its methods run inside bindings.Do.
type Method interface {
	// Name is the method's name, as New takes it.
	Name() string
	// Attach puts the method on m's hook points and decides what is trainable: its own parameters, which the
	// first call makes (in m.Scope(), with libtorch's generator), and, in a classifier, a copy of the head.
	// A method belongs to the model it was first attached to; a model carries one method at a time.
	Attach(s *bindings.Scope, m model.Model) error
	// Detach takes the method off: the model computes exactly what it did before Attach (except after "full",
	// which trains the model's weights in place). The method keeps its parameters.
	Detach()
	// Close detaches the method and frees its parameters.
	Close()
	// Params are the method's own parameters in order.
	Params() *model.Params
	// Trainable is every trainable parameter: the method's own, then the model's in the model's order.
	Trainable(m model.Model) []*model.Param
	// Silent reports whether a parameter's first gradient may be zero by construction, e.g. LoRA's A behind
	// a B of zeros.
	Silent(name string) bool
	// Labels are the label names of the head the method was trained with, empty without one.
	Labels() []string
	// Save writes the method to the folder dir, which is made if need be.
	Save(s *bindings.Scope, dir string, m model.Model) error
	// Notes are remarks on how the method was loaded, such as a base model with other weights.
	Notes() []string
	// Options are the settings with defaults filled in.
	Options() Options
	// LR is the learning rate to train with by default.
	LR() float64
	// Summary says in one line what is trained and how it starts.
	Summary() string
}

// technique is what distinguishes the methods.
type technique interface {
	// specs lists the parameters it adds to a model, in order.
	specs(o *outline) ([]spec, error)
	// mount puts the parameters to work on the hook points.
	mount(x *mounting) error
	// tunes reports whether a parameter of the model itself, head apart, is trained.
	tunes(m model.Model, name string) bool
	silent(name string) bool
	lr() float64
	describe() string
}

// plain is a technique that adds nothing: embedded, it gives the answers most techniques share.
type plain struct{}

func (plain) specs(*outline) ([]spec, error) { return nil, nil }
func (plain) mount(*mounting) error          { return nil }
func (plain) tunes(model.Model, string) bool { return false }
func (plain) silent(string) bool             { return false }

// mounting is what a technique mounts itself with.
type mounting struct {
	*outline
	hooks  *model.Hooks
	params *model.Params
	scope  *bindings.Scope // the model's
	lm     model.Linear    // the language-model head
	config map[string]any  // the model's config.json
	former []*memo         // of the last time the technique was mounted, in the order it asks for them
	memos  []*memo
}

// unembedding is a model's own language-model head.
type unembedding struct{ m model.CausalLM }

// Forward implements model.Linear.
func (u unembedding) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.Linear(x, u.m.LMWeight(), bindings.Tensor{})
}

// memo is a cache of what is computed from parameters alone, kept from mounting to mounting.
func (x *mounting) memo(from ...*model.Param) *memo {
	c := &memo{from: from, scope: x.scope}
	if n := len(x.memos); n < len(x.former) {
		c = x.former[n]
		c.from = from
	}
	x.memos = append(x.memos, c)
	return c
}

// adapter is every Method: a technique's parameters with the model's own that are trained beside them.
type adapter struct {
	name string
	o    Options
	technique
	m       model.Model // nil until the first Attach
	params  model.Params
	tuned   []tuned
	labels  []string
	restore []func() // takes tuned off; nil when detached
	memos   []*memo
	notes   []string
	base    *fingerprint
}

// tuned is a parameter of the model that the method has its own version of.
type tuned struct {
	p *model.Param
	t bindings.Tensor
}

// given supplies stored values in place of initial ones: of a method's own parameter or, by its name there,
// of the model's. An undefined tensor stands for "not stored".
type given struct {
	own    map[string]bindings.Tensor
	model  map[string]bindings.Tensor
	labels []string
}

func (a *adapter) Name() string          { return a.name }
func (a *adapter) Options() Options      { return a.o }
func (a *adapter) Params() *model.Params { return &a.params }
func (a *adapter) Labels() []string      { return a.labels }
func (a *adapter) Notes() []string       { return a.notes }
func (a *adapter) LR() float64           { return a.lr() }
func (a *adapter) Silent(name string) bool {
	return a.silent(name)
}

// Attach implements Method.
func (a *adapter) Attach(s *bindings.Scope, m model.Model) error { return a.attach(s, m, given{}) }

func (a *adapter) attach(s *bindings.Scope, m model.Model, g given) error {
	h := m.Hooks()
	if h.Method != "" {
		return fmt.Errorf("attach %s: the model already carries %s: detach it first", a.name, h.Method)
	}
	if a.m != nil && a.m != m {
		return fmt.Errorf("attach %s: the method belongs to another model", a.name)
	}
	if a.m == nil {
		a.m = m
		if err := a.make(s, m, g); err != nil {
			a.Close()
			a.m, a.params = nil, model.Params{}
			return fmt.Errorf("attach %s: %w", a.name, err)
		}
	}
	m.Params().Freeze(s)
	x := a.mounting(m)
	x.former = a.memos
	if err := a.mount(x); err != nil {
		h.Clear()
		return fmt.Errorf("attach %s: %w", a.name, err)
	}
	h.Method, a.memos = a.name, x.memos
	a.restore = []func(){}
	for _, t := range a.tuned {
		if !t.t.Same(t.p.T) {
			a.restore = append(a.restore, t.p.Replace(t.t))
		}
		t.p.SetTrainable(s, true)
	}
	for _, p := range a.params.All() {
		if !p.Trainable {
			p.SetTrainable(s, true)
		}
	}
	return nil
}

// make creates the parameters in the model's scope.
func (a *adapter) make(s *bindings.Scope, m model.Model, g given) error {
	_, ownHead := a.technique.(*withHead)
	if fresh := a.headless(m, g); len(fresh) > 0 && !ownHead {
		return fmt.Errorf("the adapter has no head and the model's is untrained (%v): train one, or load a base that has it", fresh)
	}
	plan := outlineOf(m)
	specs, err := a.specs(plan)
	if err != nil {
		return err
	}
	for _, pattern := range a.o.Unfreeze {
		if _, err := m.Params().Matching(pattern); err != nil {
			return err
		}
	}
	a.base = fingerprintOf(s, m)
	a.labels = m.Labels()
	if len(g.labels) > 0 {
		a.labels = g.labels
	}
	keep := func(s *bindings.Scope, t bindings.Tensor) bindings.Tensor {
		return s.MoveTo(m.Scope(), s.Contiguous(s.Clone(s.Detach(t))))
	}
	return s.Run(func(s *bindings.Scope) error {
		if a.inPlace() { // what full saves is every parameter
			for _, p := range m.Params().All() {
				if t := g.model[p.Name]; t.Defined() {
					s.NoGrad(func() { s.Copy(p.T, t) })
				}
			}
		}
		for _, sp := range specs {
			t := g.own[sp.name]
			if t.Defined() {
				t = s.ToDevice(t, t.DType(), device(m))
			} else {
				if t, err = sp.init(s, m, sp.shape); err != nil {
					return err
				}
			}
			a.params.Add(&model.Param{Name: sp.name, T: keep(s, t)})
		}
		for _, p := range m.Params().All() {
			head := isHead(m, p.Name)
			if head && ownHead || !head && !a.trains(m, p.Name) {
				continue
			}
			if a.inPlace() {
				a.tuned = append(a.tuned, tuned{p, p.T})
				continue
			}
			t := g.model[p.Name]
			if !t.Defined() {
				t = p.T
			}
			if head {
				t = s.ToDevice(t, bindings.Float, p.T.Device())
			} else {
				t = s.ToDevice(t, p.T.DType(), p.T.Device())
			}
			a.tuned = append(a.tuned, tuned{p, keep(s, t)})
		}
		if a.params.All() == nil && len(a.tuned) == 0 {
			return errors.New("nothing would be trained")
		}
		return nil
	})
}

// trains reports whether a parameter of the model, head apart, is trained by the method or on request.
func (a *adapter) trains(m model.Model, name string) bool {
	return a.tunes(m, name) || a.name != "full" && matchesAny(a.o.Unfreeze, name)
}

// headless lists the head's parameters that neither an adapter's file nor the base's checkpoint had.
func (a *adapter) headless(m model.Model, g given) []string {
	if g.own == nil && g.model == nil { // a new method trains a new head
		return nil
	}
	var missing []string
	for _, name := range m.Fresh() {
		if isHead(m, name) && !g.model[name].Defined() {
			missing = append(missing, name)
		}
	}
	return missing
}

// inPlace reports that the model's own tensors are trained, not copies.
func (a *adapter) inPlace() bool {
	_, ok := core(a.technique).(*full)
	return ok
}

// isHead reports whether a parameter belongs to the classification head.
func isHead(m model.Model, name string) bool {
	if len(m.Labels()) == 0 {
		return false
	}
	for _, head := range m.HeadNames() {
		if ok, _ := model.Matches(head, name); ok {
			return true
		}
	}
	return false
}

// Detach implements Method.
func (a *adapter) Detach() {
	if a.restore == nil {
		return
	}
	for _, restore := range a.restore {
		restore()
	}
	a.restore = nil
	a.m.Hooks().Clear()
	if a.inPlace() {
		a.m.Params().Freeze(a.m.Scope())
	}
}

// Close implements Method.
func (a *adapter) Close() {
	a.Detach()
	if a.m == nil {
		return
	}
	for _, c := range a.memos {
		c.drop()
	}
	a.memos = nil
	for _, p := range a.params.All() {
		a.m.Scope().Free(p.T)
	}
	if !a.inPlace() {
		for _, t := range a.tuned {
			a.m.Scope().Free(t.t)
		}
	}
	a.tuned = nil
}

// Trainable implements Method.
func (a *adapter) Trainable(m model.Model) []*model.Param {
	return append(a.params.Trainable(), m.Params().Trainable()...)
}

// Summary implements Method.
func (a *adapter) Summary() string {
	own, _ := a.params.Count()
	var base int64
	for _, t := range a.tuned {
		base += t.t.Numel()
	}
	text := fmt.Sprintf("%s: %s; default learning rate %g", a.name, a.describe(), a.lr())
	switch {
	case a.m == nil:
	case own == 0:
		text += fmt.Sprintf("; %d of the model's parameters trained", base)
	case base == 0:
		text += fmt.Sprintf("; %d parameters added and trained", own)
	default:
		text += fmt.Sprintf("; %d parameters added and trained, and %d of the model's", own, base)
	}
	return text
}
