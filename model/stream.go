package model

import (
	"fmt"

	"gopeft/bindings"
)

// Frozen weights may lie elsewhere while nothing computes with them, in units: each block's matrices are one, and the
// language-model head is the last. Two units are at hand: the one that is computed, and the one that comes next.

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

// Streaming is how much of the blocks' frozen matrices is streamed, in bytes.
type Streaming struct {
	Streamed int64
	Held     int64          // in memory all the same: not as their file has them
	DType    bindings.DType // of those streamed that are not quantised; 0: all are
}

// Stream implements Model.
func (b *base) Stream() (Streaming, error) {
	r := b.elsewhere()
	if b.frozen != nil || r.Streamed == 0 {
		return r, nil
	}
	pager, err := bindings.NewPager()
	if err != nil {
		return r, fmt.Errorf("stream weights: %w", err)
	}
	laid := -1
	b.turn(pager, func(s *bindings.Scope) {
		if laid == b.moved {
			return
		}
		pager.Lay(s, b.pages())
		laid = b.moved
	})
	return r, nil
}

// elsewhere marks the blocks' frozen matrices that can lie in their files, and tells how much that is.
func (b *base) elsewhere() (r Streaming) {
	for _, block := range b.hooks.Blocks {
		for _, m := range block.Modules {
			switch w := m.Dense.W; {
			case w.Trainable:
			case w.Mapped():
				w.stays = true
				r.Streamed += w.Bytes()
				if w.quant == nil {
					r.DType = w.T.DType()
				}
			default:
				r.Held += w.Bytes()
			}
		}
	}
	return r
}

// turn takes the units in turn from now on.
func (b *base) turn(from store, ready func(s *bindings.Scope)) {
	b.frozen = &turning{store: from, ready: ready, units: len(b.Units()), head: b.head != nil}
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
