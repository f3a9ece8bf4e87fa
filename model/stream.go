package model

import (
	"fmt"
	"slices"
	"unsafe"

	"gopeft/bindings"
)

// weightSource is where the frozen weights of a model's units lie while nothing computes with them. Units are its blocks,
// and the language-model head after them, which have the numbers 0 to n.
type weightSource interface {
	// begin comes before each pass over the blocks.
	begin()
	// reach has unit i at hand, into which h goes next. Where h has a gradient it does the same in the backward pass, for
	// the unit that h comes from.
	reach(s *bindings.Scope, i int, h bindings.Tensor)
	// close comes before the weights are freed and their files closed.
	close()
}

// resident weights are always at hand.
type resident struct{}

func (resident) begin()                                      {}
func (resident) reach(*bindings.Scope, int, bindings.Tensor) {}
func (resident) close()                                      {}

// streamed weights lie in their mapped files. The pages of two units are in memory: of the one that is computed and of
// the one that comes next, which is read meanwhile.
type streamed struct {
	pager *bindings.Pager
	units func() [][]*Param // which weights those are changes with what is trained
	laid  [][][]byte        // the units as the pager knows them
}

func (w *streamed) begin() {
	units := w.units()
	laid := make([][][]byte, len(units))
	for i, unit := range units {
		for _, p := range unit {
			if p.file != nil && !p.Trainable {
				laid[i] = append(laid[i], p.file.Pages()...)
			}
		}
	}
	if slices.EqualFunc(laid, w.laid, sameRanges) {
		return
	}
	if err := w.pager.Lay(laid); err != nil { // no memory even for this list
		panic(&bindings.OpError{Op: "stream weights", Message: err.Error()})
	}
	w.laid = laid
}

func sameRanges(a, b [][]byte) bool {
	return slices.EqualFunc(a, b, func(x, y []byte) bool {
		return len(x) == len(y) && unsafe.SliceData(x) == unsafe.SliceData(y)
	})
}

func (w *streamed) reach(s *bindings.Scope, i int, h bindings.Tensor) {
	last := len(w.laid) - 1
	back := s.GradEnabled() && h.RequiresGrad()
	if i <= last {
		next := i + 1
		switch {
		case i < last:
		case back:
			next = max(0, i-1) // the backward pass turns round here
		default:
			next = 0
		}
		w.pager.Turn(i, next)
	}
	if back && i > 0 {
		next := i - 2
		if next < 0 {
			next = min(1, last) // the next pass begins with unit 0, which is at hand then
		}
		w.pager.TurnAtGradient(s, h, i-1, next)
	}
}

func (w *streamed) close() { w.pager.Close() }

// Streaming is how much of the blocks' frozen matrices is streamed, in bytes.
type Streaming struct {
	Streamed int64
	Held     int64          // in memory all the same: not as their file has them
	DType    bindings.DType // of those streamed that are not quantised; 0: all are
}

// Stream implements Model.
func (b *base) Stream() (Streaming, error) {
	var r Streaming
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
	if _, already := b.frozen.(*streamed); already || r.Streamed == 0 {
		return r, nil
	}
	pager, err := bindings.NewPager()
	if err != nil {
		return r, fmt.Errorf("stream weights: %w", err)
	}
	b.frozen = &streamed{pager: pager, units: b.streamable}
	return r, nil
}

// streamable is the blocks' matrices, by block, and the language-model head.
func (b *base) streamable() [][]*Param {
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
