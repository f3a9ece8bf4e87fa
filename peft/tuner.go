package peft

import (
	"gopeft/bindings"
	"gopeft/model"
)

// Tuner is a method's working part: what it adds to a model, where that goes, and what else is trained. It embeds
// Common, whose answers it overrides where they do not hold.
type Tuner interface {
	// Adds lists the parameters that it adds to a model of that structure, in order.
	Adds(x *Structure) ([]NewParam, error)
	// Attach puts those parameters to work on the hook points. It runs at every Attach of the method, and changes
	// nothing but the hooks.
	Attach(x *Attachment) error
	// Trains reports whether a parameter of the model itself, head apart, is trained too.
	Trains(m model.Model, p *model.Param) bool
	// Needs tells what the method takes of a model's positions and of memory.
	Needs() Needs
	// LR is the learning rate to train with by default.
	LR() float64
	// Describe says in a few words what is trained and how it starts.
	Describe() string
}

// Merger is a Tuner whose effect weights of the model can have.
type Merger interface {
	// Merge computes the new weights of the linear maps that change, in fp32 and owned by s. An error says why it
	// cannot; the model is then left as it is.
	Merge(s *bindings.Scope, x *Attachment) ([]Merged, error)
}

// Merged is a map's new weight [out, in] and, where it changes, its new bias [out].
type Merged struct {
	Target
	Weight, Bias bindings.Tensor
}

// Needs is what a method takes beside its parameters.
type Needs struct {
	// VirtualTokens is how many of the model's positions it takes from the text: those of a soft prompt.
	VirtualTokens int
	// Memories is how many keys and values every block has before those of the text.
	Memories int
	// KeptOutputs is what the backward pass keeps of each linear map that the method wraps, in tensors the size of
	// the map's output: two factors of a product keep each other, a sum keeps nothing.
	KeptOutputs float64
	// StoredWeights says that training reads frozen weights as they are stored, not only in the compute dtype: to
	// compute with them, or to save the whole model.
	StoredWeights bool
	// WholeModel says that the method is saved as a model folder.
	WholeModel bool
}

// Common is a Tuner's usual answers, to be embedded: nothing is added, nothing of the model is trained, and nothing
// is needed beside parameters.
type Common struct{}

// Adds implements Tuner.
func (Common) Adds(*Structure) ([]NewParam, error) { return nil, nil }

// Attach implements Tuner.
func (Common) Attach(*Attachment) error { return nil }

// Trains implements Tuner.
func (Common) Trains(model.Model, *model.Param) bool { return false }

// Needs implements Tuner.
func (Common) Needs() Needs { return Needs{} }

// Attachment is a model with a method's parameters, for Tuner.Attach and Merger.Merge.
type Attachment struct {
	*Structure
	Hooks  *model.Hooks
	LMHead model.Linear // the language-model head's own map, nil without one

	params *model.Params
	scope  *bindings.Scope // the model's
	former []*Memo         // of the last time the tuner was attached, in the order it asks for them
	memos  []*Memo
}

// Param finds one of the method's own parameters, nil if there is none of that name.
func (x *Attachment) Param(name string) *model.Param { return x.params.Get(name) }

// Memo gives a store for what is computed from these parameters alone; it is kept when the method is detached and
// attached again.
func (x *Attachment) Memo(from ...*model.Param) *Memo {
	c := &Memo{from: from, scope: x.scope}
	if n := len(x.memos); n < len(x.former) {
		c = x.former[n]
		c.from = from
	}
	x.memos = append(x.memos, c)
	return c
}

// lmHead is a model's own language-model head.
type lmHead struct{ m model.CausalLM }

// Forward implements model.Linear.
func (u lmHead) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return (&model.Dense{W: u.m.LMHead()}).Forward(s, x)
}
