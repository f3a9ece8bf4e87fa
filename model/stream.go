package model

import (
	"fmt"

	"gopeft/bindings"
)

// Frozen weights may lie elsewhere while nothing computes with them, in units: each block's matrices are one, and the
// language-model head is the last. Two units are at hand: the one that is computed, and the one that comes next.
// On the CPU they lie in their files, whose pages come and go. For a GPU they lie in the host's memory, and are copied.

// store is where units lie. What its methods do when a unit is at hand already costs nothing.
type store interface {
	// Turn has unit at in memory, begins to bring the next, and lets go of all others.
	Turn(s *bindings.Scope, at, next int)
	// TurnAtGradient does so in the backward pass, once the whole gradient of t is there.
	TurnAtGradient(s *bindings.Scope, t bindings.Tensor, at, next int)
	// Close comes before the weights are freed and their files closed.
	Close()
}

// turning takes the units of a model in turn. A nil one is of weights that are always at hand.
type turning struct {
	store store
	ready func(s *bindings.Scope) // for a pass, where weights have moved
	units int
	head  bool // the last unit is a language-model head
	last  int  // unit of the pass
}

// begin comes before each pass over the blocks; logits follow it, or none.
func (w *turning) begin(s *bindings.Scope, hiddenOnly bool) {
	if w == nil {
		return
	}
	w.ready(s)
	if w.last = w.units - 1; w.head && hiddenOnly {
		w.last--
	}
}

// reach has unit i at hand, into which h goes next. Where h has a gradient it does the same in the backward pass, for
// the unit that h comes from.
func (w *turning) reach(s *bindings.Scope, i int, h bindings.Tensor) {
	if w == nil {
		return
	}
	back := s.GradEnabled() && h.RequiresGrad()
	if i <= w.last {
		next := i + 1
		switch {
		case i < w.last:
		case back:
			next = max(0, i-1) // the backward pass turns round here
		default:
			next = 0
		}
		w.store.Turn(s, i, next)
	}
	if back && i > 0 {
		next := i - 2
		if next < 0 {
			next = min(1, w.last) // the next pass begins with unit 0, which is at hand then
		}
		w.store.TurnAtGradient(s, h, i-1, next)
	}
}

func (w *turning) close() {
	if w != nil {
		w.store.Close()
	}
}

// Elsewhere is how much of the blocks' frozen matrices lies elsewhere, in bytes.
type Elsewhere struct {
	Moved int64
	Held  int64          // in memory all the same: not as their file has them
	DType bindings.DType // of those moved that are not quantised; 0: all are
}

// leave notes that a weight lies elsewhere.
func (r *Elsewhere) leave(w *Param) {
	w.stays = true
	r.Moved += w.Bytes()
	if w.quant == nil {
		r.DType = w.T.DType()
	}
}

// Stream implements Model.
func (b *base) Stream(dev bindings.Device) (r Elsewhere, err error) {
	if dev != bindings.CPU {
		return b.offload(dev)
	}
	for _, w := range b.matrices() {
		switch {
		case w.Trainable:
		case w.Mapped():
			r.leave(w)
		default:
			r.Held += w.Bytes()
		}
	}
	if b.frozen != nil || r.Moved == 0 {
		return r, nil
	}
	pager, err := bindings.NewPager()
	if err != nil {
		return r, fmt.Errorf("stream weights: %w", err)
	}
	laid := -1
	b.frozen = &turning{store: pager, units: len(b.Units()), head: b.head != nil, ready: func(s *bindings.Scope) {
		if laid != b.moved {
			pager.Lay(s, b.pages())
			laid = b.moved
		}
	}}
	return r, nil
}

// offload leaves the frozen weights of the units on the CPU, where they were loaded to, and has them copied to dev.
func (b *base) offload(dev bindings.Device) (r Elsewhere, err error) {
	for _, w := range b.matrices() {
		if !w.Trainable {
			r.leave(w)
		} else if w.Device() != dev {
			return r, fmt.Errorf("%s is trained: for a GPU the blocks' matrices can only be streamed while all are frozen", w.Name)
		}
	}
	if b.frozen != nil || r.Moved == 0 {
		return r, nil
	}
	off, err := bindings.NewOffload(dev)
	if err != nil {
		return r, fmt.Errorf("stream weights: %w", err)
	}
	units := b.ownUnits()
	for _, unit := range units {
		ts := tensorsOf(unit, func(w *Param) bool { return !w.Trainable })
		pinned := off.Add(b.scope, ts)
		for _, w := range unit {
			if w.Trainable {
				continue
			}
			if w.stays, w.away = true, true; pinned {
				w.release()
				w.file = nil
			}
		}
	}
	b.frozen = &turning{store: off, units: len(units), head: len(units) > len(b.hooks.Blocks), ready: func(*bindings.Scope) {}}
	return r, nil
}

// tensorsOf are what those weights of a unit that count lie in.
func tensorsOf(unit []*Param, counts func(w *Param) bool) (ts []bindings.Tensor) {
	for _, w := range unit {
		switch {
		case !counts(w):
		case w.quant != nil:
			ts = append(ts, w.quant.Tensors()...)
		default:
			ts = append(ts, w.T)
		}
	}
	return ts
}

// ownUnits are the units without a head that is the embedding table, whose rows are looked up.
func (b *base) ownUnits() [][]*Param {
	units := b.Units()
	if b.tied() {
		units = units[:len(units)-1]
	}
	return units
}

// matrices are the blocks'.
func (b *base) matrices() (ws []*Param) {
	for _, block := range b.hooks.Blocks {
		for _, m := range block.Modules {
			ws = append(ws, m.Dense.W)
		}
	}
	return ws
}

// pages are the units as their files are mapped, of what is not trained.
func (b *base) pages() [][][]byte {
	units := b.Units()
	laid := make([][][]byte, len(units))
	for i, unit := range units {
		for _, p := range unit {
			if p.file != nil && !p.Trainable {
				laid[i] = append(laid[i], p.file.Pages()...)
			}
		}
	}
	return laid
}

// Units implements Model.
func (b *base) Units() [][]*Param {
	var units [][]*Param
	for _, block := range b.hooks.Blocks {
		var unit []*Param
		for _, m := range block.Modules {
			unit = append(unit, m.Dense.W)
		}
		units = append(units, unit)
	}
	if b.head != nil {
		units = append(units, []*Param{b.head})
	}
	return units
}
