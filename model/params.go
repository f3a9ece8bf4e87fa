package model

import (
	"fmt"
	"path"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// Param is one weight of a model or of a method, under its HuggingFace name.
type Param struct {
	Name      string
	T         bindings.Tensor // as stored: what is saved, and trained when Trainable
	Trainable bool
	Norm      bool // the weight or the bias of a normalisation
	// Inert says that no data make the model's output depend on it, so that its gradient is zero: the bias of a map
	// that is Shiftless, but for a block that a method gives memories.
	Inert bool

	place  hf.Place            // where checkpoints hold it otherwise
	matrix bool                // may be held in a dtype of its own while it is frozen
	linear bool                // of a linear map of a block: may be quantised when it is loaded
	quant  *bindings.Quantised // what is computed with in T's place, or nil
	low    bindings.Tensor     // frozen copy of T in the dtype that is computed in, or none
	file   *files.Entry        // where T lies in its checkpoint's file; nil: it does not, or was written to
	stays  bool                // lies elsewhere until it is needed: computed with as it lies, without a copy
	away   bool                // is only there while it is computed with
	shared bool                // and processes hold it together
	// part is what a process holds of it, if it is shared: elements of T, laid flat.
	part func(s *bindings.Scope, rank int) (from, n int64)
	// whole gathers it, to be saved; nil: T is whole.
	whole     func(s *bindings.Scope) (bindings.Tensor, error)
	untouched *files.Entry // where T lay, and lies until training writes to it
	moved     *int         // counts the changes of where the model's weights lie, and of which are trained
	held      int64        // bytes of memory that the tensor takes which Replace put aside
}

// Value is the tensor to compute with; of a quantised weight, which Linear maps know how to read, it is none to compute with.
func (p *Param) Value() bindings.Tensor {
	if p == nil {
		return bindings.Tensor{}
	}
	if p.low.Defined() {
		return p.low
	}
	return p.T
}

// Replace makes p compute with t, which the caller owns, and returns what puts the former tensor back, frozen.
func (p *Param) Replace(t bindings.Tensor) (restore func()) {
	former := *p
	p.release()
	p.moves()
	p.T, p.low, p.file, p.quant, p.stays, p.away, p.shared, p.untouched = t, bindings.Tensor{}, nil, nil, false, false, false, nil
	if former.file == nil && !t.Same(former.T) {
		p.held = former.Bytes()
	}
	return func() {
		p.T, p.low, p.file, p.quant, p.held, p.Trainable = former.T, former.low, former.file, former.quant, former.held, false
		p.stays, p.away, p.shared = former.stays, former.away, former.shared
		p.moves()
	}
}

// Shared reports whether processes hold the weight together: T is whole only in a pass that computes with it.
func (p *Param) Shared() bool { return p.shared }

// Part is what a process holds of a shared weight that is not quantised: n elements of T, laid flat.
func (p *Param) Part(s *bindings.Scope, rank int) (from, n int64) { return p.part(s, rank) }

// GatherBy says how a shared weight becomes whole when it is saved.
func (p *Param) GatherBy(whole func(s *bindings.Scope) (bindings.Tensor, error)) { p.whole = whole }

// Named is the weight as it is saved under a name, gathered when its turn comes if it is shared.
func (p *Param) Named(name string) hf.Named { return hf.Named{Name: name, Tensor: p.T, Make: p.whole} }

// moves notes that the weight lies elsewhere than it did, or is trained or no longer.
func (p *Param) moves() {
	if p.moved != nil { // it is a model's
		*p.moved++
	}
}

// Assign is Replace for good: the former weight, which s owns, is freed.
func (p *Param) Assign(s *bindings.Scope, t bindings.Tensor) {
	former := *p
	p.Replace(t)
	p.held = 0
	s.Free(former.T)
	if former.quant != nil {
		s.FreeQuantised(former.quant)
	}
}

// release drops the pages of a tensor that lies in its checkpoint's file while it is not computed with: they are read
// from the file again when touched. Should the system refuse, that costs memory only.
func (p *Param) release() {
	if p.file != nil {
		_ = p.file.Release()
	}
}

// Place is where checkpoints hold the weight, if not under its name as it is.
func (p *Param) Place() hf.Place { return p.place }

// Mapped reports whether the stored tensor lies in its checkpoint's file.
func (p *Param) Mapped() bool { return p.file != nil }

// Aside is how many bytes of memory are taken by the tensor that Replace put aside; one in a file takes none.
func (p *Param) Aside() int64 { return p.held }

// Params is an ordered list of parameters with unique names. The order is the model's definition order; it
// decides the order of optimizer state and files.
type Params struct {
	list  []*Param
	index map[string]int
}

// Add appends parameters. A repeated name is a programming error and panics.
func (ps *Params) Add(params ...*Param) {
	if ps.index == nil {
		ps.index = map[string]int{}
	}
	for _, p := range params {
		if _, twice := ps.index[p.Name]; twice {
			panic("model: parameter " + p.Name + " added twice")
		}
		ps.index[p.Name] = len(ps.list)
		ps.list = append(ps.list, p)
	}
}

// All is every parameter in order.
func (ps *Params) All() []*Param { return ps.list }

// Get finds a parameter by name, nil if there is none.
func (ps *Params) Get(name string) *Param {
	if i, ok := ps.index[name]; ok {
		return ps.list[i]
	}
	return nil
}

// Trainable is the trainable parameters in order.
func (ps *Params) Trainable() []*Param {
	var out []*Param
	for _, p := range ps.list {
		if p.Trainable {
			out = append(out, p)
		}
	}
	return out
}

// Count is the number of elements of the trainable and of all parameters.
func (ps *Params) Count() (trainable, total int64) {
	for _, p := range ps.list {
		n := p.T.Numel()
		total += n
		if p.Trainable {
			trainable += n
		}
	}
	return trainable, total
}

// Freeze makes no parameter trainable.
func (ps *Params) Freeze(s *bindings.Scope) {
	for _, p := range ps.list {
		if p.Trainable {
			p.SetTrainable(s, false)
		}
	}
}

// SetTrainable makes autograd track p, or stop.
func (p *Param) SetTrainable(s *bindings.Scope, on bool) {
	p.Trainable = on
	p.moves()
	if on {
		if p.away {
			panic(&bindings.OpError{Op: "train", Message: p.Name + " is elsewhere: streamed, or held by several processes"})
		}
		if p.file != nil {
			p.untouched = p.file
		}
		p.file, p.stays = nil, false // training writes to it
	}
	s.SetRequiresGrad(p.T, on)
	if !on {
		s.SetGrad(p.T, bindings.Tensor{})
	}
}

// Unfreeze makes trainable every parameter whose name matches one of the patterns: a substring between
// dots ("classifier", "layer.5") or a glob over the whole name ("*.bias"). A pattern that matches nothing is
// an error naming it.
func (ps *Params) Unfreeze(s *bindings.Scope, patterns ...string) error {
	for _, pattern := range patterns {
		found, err := ps.Matching(pattern)
		if err != nil {
			return err
		}
		for _, p := range found {
			p.SetTrainable(s, true)
		}
	}
	return nil
}

// Matching lists the parameters whose names match a pattern of Unfreeze; none is an error naming it.
func (ps *Params) Matching(pattern string) ([]*Param, error) {
	var found []*Param
	for _, p := range ps.list {
		ok, err := Matches(pattern, p.Name)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("pattern %q matches no parameter; `gopeft inspect` lists their names", pattern)
	}
	return found, nil
}

// Matches reports whether a parameter's dotted name fits a pattern of Unfreeze.
func Matches(pattern, name string) (bool, error) {
	if strings.ContainsAny(pattern, "*?[") {
		// path.Match keeps * within slashes; names have none, so * spans dots.
		ok, err := path.Match(pattern, name)
		if err != nil {
			return false, fmt.Errorf("pattern %q: %w", pattern, err)
		}
		return ok, nil
	}
	return strings.Contains("."+name+".", "."+pattern+"."), nil
}

// Cast gives a frozen parameter a copy in d to compute with, made once and owned by s; the stored tensor is
// kept for saving. A weight that is streamed has none.
func (p *Param) Cast(s *bindings.Scope, d bindings.DType) {
	if !p.Trainable && !p.stays && p.quant == nil && p.T.DType() != d && !p.low.Defined() {
		p.low = s.To(p.T, d)
		p.release()
	}
}

// DropStored puts the copy that Cast made in the place of the stored tensor, which is owned by s and freed: for a model
// that is never saved.
func (p *Param) DropStored(s *bindings.Scope) {
	if p.low.Defined() {
		s.Free(p.T)
		p.T, p.low, p.file = p.low, bindings.Tensor{}, nil
		p.moves()
	}
}

// FirstNonFinite is the first parameter with an infinite value or one that is not a number, nil if there is none. Of
// quantised weights loading has looked at the scales; what is elsewhere cannot be looked at.
func FirstNonFinite(s *bindings.Scope, params []*Param) *Param {
	var ts []bindings.Tensor
	var of []*Param
	for _, p := range params {
		if !p.Quantised() && !p.away {
			ts, of = append(ts, p.T), append(of, p)
		}
	}
	if i := s.FirstNonFinite(ts); i >= 0 {
		return of[i]
	}
	return nil
}
