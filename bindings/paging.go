package bindings

import (
	"errors"
	"unsafe"

	"gopeft/bindings/csrc/paging"
)

// Pager keeps at hand what a computation reads next of mapped files that are larger than memory. It knows them in units,
// each what one step reads. Pages that are given back are read from the file again when they are touched: nobody may
// have written to them.
type Pager struct{ p unsafe.Pointer }

// NewPager makes a pager of no units. Close it before the memory is unmapped.
func NewPager() (*Pager, error) {
	p, msg := paging.New()
	if msg != "" {
		return nil, errors.New(msg)
	}
	return &Pager{p}, nil
}

// Lay says what the units are from now on: ranges of whole pages of mappings. Pages asked for before are let be.
func (g *Pager) Lay(s *Scope, units [][][]byte) { s.check("lay units", paging.Lay(g.p, units)) }

// Turn asks for the pages of two units, which the system then reads beside what is computed, and gives back those of all
// others.
func (g *Pager) Turn(s *Scope, at, next int) { s.check("turn", paging.Turn(g.p, at, next)) }

// TurnAtGradient turns in the backward pass, once the whole gradient of t is there.
func (g *Pager) TurnAtGradient(s *Scope, t Tensor, at, next int) {
	s.check("turn_at_gradient", paging.TurnAtGradient(g.p, t.p, at, next), t)
}

// Close ends it. Backward passes that are still to come turn no more.
func (g *Pager) Close() { paging.Free(g.p) }
