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
	// Detach takes the method off: the model computes exactly what it did before Attach, unless the method is
	// InPlace. The method keeps its parameters.
	Detach()
	// Close detaches the method and frees its parameters.
	Close()
	// Params are the method's own parameters in order.
	Params() *model.Params
	// Trainable is every trainable parameter: the method's own, then the model's in the model's order.
	Trainable(m model.Model) []*model.Param
	// Silent reports whether a parameter's first gradient may be zero by construction: that of one that starts so,
	// e.g. LoRA's A behind a B of zeros, or of one that the model's output does not depend on.
	Silent(name string) bool
	// Labels are the label names of the head the method was trained with, empty without one.
	Labels() []string
	// Problem is what the scores of that head are; "": it was not said.
	Problem() model.Problem
	// Save writes the method to the folder dir, which is made if need be.
	Save(s *bindings.Scope, dir string, m model.Model) error
	// Definition is what the method's file says of it.
	Definition() Definition
	// Needs tells what the method takes of a model's positions and of memory.
	Needs() Needs
	// Notes are remarks on how the method was loaded, such as a base model with other weights.
	Notes() []string
	// Options are the settings with defaults filled in.
	Options() Options
	// LR is the learning rate to train with by default.
	LR() float64
	// Summary says in one line what is trained and how it starts.
	Summary() string
}

// method is every Method: a tuner's parameters, with the weights of the model that are trained beside them.
type method struct {
	definition Definition
	o          Options
	tuner      Tuner
	m          model.Model // nil until the first Attach
	params     model.Params
	zeroGrad   map[string]bool // of params, whose first gradient may be zero
	frozen     map[string]bool // of params, which are not trained
	weights    []trainedWeight
	labels     []string
	problem    model.Problem
	restore    []func() // takes weights off; nil when detached
	memos      []*Memo
	notes      []string
	base       *fingerprint
}

// trainedWeight is a weight of the model with the value that the method gives it: a copy of its own or, of a method
// that trains in place, the model's.
type trainedWeight struct {
	p *model.Param
	t bindings.Tensor
}

// storedValues take the place of initial ones: of a method's own parameters and, by their names there, of the model's.
// An undefined tensor stands for "not stored".
type storedValues struct {
	own     map[string]bindings.Tensor
	model   map[string]bindings.Tensor
	labels  []string
	problem model.Problem
}

func newStoredValues() storedValues {
	return storedValues{own: map[string]bindings.Tensor{}, model: map[string]bindings.Tensor{}}
}

func (a *method) Name() string           { return a.definition.Name }
func (a *method) Definition() Definition { return a.definition }
func (a *method) Options() Options       { return a.o }
func (a *method) Params() *model.Params  { return &a.params }
func (a *method) Labels() []string       { return a.labels }
func (a *method) Problem() model.Problem { return a.problem }
func (a *method) Notes() []string        { return a.notes }
func (a *method) LR() float64            { return a.tuner.LR() }
func (a *method) Needs() Needs           { return a.tuner.Needs() }

// Silent implements Method.
func (a *method) Silent(name string) bool {
	if a.zeroGrad[name] || a.m == nil {
		return a.zeroGrad[name]
	}
	p := a.m.Params().Get(name)
	return p != nil && p.Inert
}

// Attach implements Method.
func (a *method) Attach(s *bindings.Scope, m model.Model) error {
	return a.attach(s, m, storedValues{})
}

func (a *method) attach(s *bindings.Scope, m model.Model, stored storedValues) error {
	h := m.Hooks()
	if h.Method != "" {
		return fmt.Errorf("attach %s: the model already carries %s: detach it first", a.Name(), h.Method)
	}
	if a.m != nil && a.m != m {
		return fmt.Errorf("attach %s: the method belongs to another model", a.Name())
	}
	if a.m == nil {
		a.m = m
		if err := a.make(s, m, stored); err != nil {
			a.Close()
			a.m, a.params, a.zeroGrad, a.frozen = nil, model.Params{}, nil, nil
			return fmt.Errorf("attach %s: %w", a.Name(), err)
		}
	}
	m.Params().Freeze(s)
	x := a.attachment(m)
	x.former = a.memos
	if err := a.tuner.Attach(x); err != nil {
		h.Clear()
		return fmt.Errorf("attach %s: %w", a.Name(), err)
	}
	h.Method, a.memos = a.Name(), x.memos
	a.restore = []func(){}
	for _, w := range a.weights {
		if !w.t.Same(w.p.T) {
			a.restore = append(a.restore, w.p.Replace(w.t))
		}
		w.p.SetTrainable(s, true)
	}
	for _, p := range a.params.All() {
		if !p.Trainable && !a.frozen[p.Name] {
			p.SetTrainable(s, true)
		}
	}
	return nil
}

// attachment is what the tuner is attached to m with.
func (a *method) attachment(m model.Model) *Attachment {
	x := &Attachment{Structure: structureOf(m), Hooks: m.Hooks(), params: &a.params, scope: m.Scope()}
	if c, ok := m.(model.CausalLM); ok {
		x.LMHead = lmHead{c}
	}
	return x
}

// make creates the parameters in the model's scope.
func (a *method) make(s *bindings.Scope, m model.Model, stored storedValues) error {
	if fresh := headless(m, stored); len(fresh) > 0 && !a.ownHead() {
		return fmt.Errorf("the adapter has no head and the model's is untrained (%v): train one, or load a base that has it", fresh)
	}
	added, err := a.tuner.Adds(structureOf(m))
	if err != nil {
		return err
	}
	for _, pattern := range a.o.Unfreeze {
		if _, err := m.Params().Matching(pattern); err != nil {
			return err
		}
	}
	a.base = fingerprintOf(s, m)
	a.labels, a.problem = m.Labels(), model.ProblemOf(m)
	if len(stored.labels) > 0 {
		a.labels = stored.labels
	}
	if stored.problem != "" {
		a.problem = stored.problem
	}
	return s.Run(func(s *bindings.Scope) error {
		if a.definition.InPlace { // what such a method saves is every parameter
			for _, p := range m.Params().All() {
				if t := stored.model[p.Name]; t.Defined() && !p.Quantised() {
					s.NoGrad(func() { s.Copy(p.T, t) })
				}
			}
		}
		if err := a.makeOwn(s, m, added, stored); err != nil {
			return err
		}
		if err := a.takeWeights(s, m, stored); err != nil {
			return err
		}
		if a.params.All() == nil && len(a.weights) == 0 {
			return errors.New("nothing would be trained")
		}
		return nil
	})
}

// keep copies a tensor to the model's scope.
func keep(s *bindings.Scope, m model.Model, t bindings.Tensor) bindings.Tensor {
	return s.MoveTo(m.Scope(), s.Contiguous(s.Clone(s.Detach(t))))
}

// makeOwn gives the method's own parameters their stored or first values.
func (a *method) makeOwn(s *bindings.Scope, m model.Model, added []NewParam, stored storedValues) (err error) {
	a.zeroGrad, a.frozen = map[string]bool{}, map[string]bool{}
	for _, n := range added {
		t := stored.own[n.Name]
		if t.Defined() {
			t = s.ToDevice(t, t.DType(), device(m))
		} else if t, err = n.Init(s, m, n.Shape); err != nil {
			return err
		}
		a.params.Add(&model.Param{Name: n.Name, T: keep(s, m, t)})
		a.zeroGrad[n.Name], a.frozen[n.Name] = n.ZeroGrad, n.Frozen
	}
	return nil
}

// takeWeights chooses the model's parameters that are trained, and copies them unless they are trained in place.
func (a *method) takeWeights(s *bindings.Scope, m model.Model, stored storedValues) error {
	for _, p := range m.Params().All() {
		head := isHead(m, p.Name)
		if head && a.ownHead() || !head && !a.trains(m, p) {
			continue
		}
		if p.Quantised() {
			return p.Untrainable()
		}
		if a.definition.InPlace {
			a.weights = append(a.weights, trainedWeight{p, p.T})
			continue
		}
		t := stored.model[p.Name]
		if !t.Defined() {
			t = p.T
		}
		d := m.DType() // a frozen base may be held in fewer bits
		if head {
			d = bindings.Float
		}
		a.weights = append(a.weights, trainedWeight{p, keep(s, m, s.ToDevice(t, d, p.T.Device()))})
	}
	return nil
}

// trains reports whether a parameter of the model, head apart, is trained by the method or on request.
func (a *method) trains(m model.Model, p *model.Param) bool {
	return a.tuner.Trains(m, p) || !a.definition.InPlace && matchesAny(a.o.Unfreeze, p.Name)
}

// headless lists the head's parameters that neither an adapter's file nor the base's checkpoint had.
func headless(m model.Model, stored storedValues) []string {
	if stored.own == nil && stored.model == nil { // a new method trains a new head
		return nil
	}
	var missing []string
	for _, name := range m.Fresh() {
		if isHead(m, name) && !stored.model[name].Defined() {
			missing = append(missing, name)
		}
	}
	return missing
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

// beside are the names of the model's parameters that were trained too, head apart.
func (a *method) beside(m model.Model) []string {
	var names []string
	for _, w := range a.weights {
		if !isHead(m, w.p.Name) {
			names = append(names, w.p.Name)
		}
	}
	return names
}

// Detach implements Method.
func (a *method) Detach() {
	if a.restore == nil {
		return
	}
	for _, restore := range a.restore {
		restore()
	}
	a.restore = nil
	a.m.Hooks().Clear()
	if a.definition.InPlace {
		a.m.Params().Freeze(a.m.Scope())
	}
}

// Close implements Method.
func (a *method) Close() {
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
	if !a.definition.InPlace {
		for _, w := range a.weights {
			a.m.Scope().Free(w.t)
		}
	}
	a.weights = nil
}

// Trainable implements Method.
func (a *method) Trainable(m model.Model) []*model.Param {
	return append(a.params.Trainable(), m.Params().Trainable()...)
}

// Summary implements Method.
func (a *method) Summary() string {
	own, _ := a.params.Count()
	var base int64
	for _, w := range a.weights {
		base += w.t.Numel()
	}
	text := fmt.Sprintf("%s: %s; default learning rate %g", a.Name(), a.tuner.Describe(), a.LR())
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
