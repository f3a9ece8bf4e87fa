package bindings

import (
	"errors"
	"time"

	"gopeft/bindings/csrc/c10d"
)

// Shards is weights, in units that steps of a computation read, of which each process of a group holds its part.
// The rest of a unit is gathered when the computation turns to it, and let go of when it turns to others: two units are
// whole at a time. What is trained of them is read whole, and written to in this process's part. Every process turns to the same units in the same order among the group's other operations. In a
// backward pass that happens where no context is looked at: Group.GiveUp ends what waits there.
type Shards struct {
	p     c10d.Shards
	group func() *Group
}

// NewShards makes shards without units. group is asked for when the first unit is turned to.
func NewShards(rank, size int, group func() *Group) (*Shards, error) {
	p, msg := c10d.NewShards(rank, size)
	if msg != "" {
		return nil, errors.New(msg)
	}
	return &Shards{p, group}, nil
}

// Add makes a unit of tensors, which must have no gaps. Of their contents this process's part is copied to dev, and no more is
// read. The tensors are on dev then, and may be read while their unit is turned to.
func (h *Shards) Add(s *Scope, dev Device, ts []Tensor) {
	s.check("share", c10d.AddShards(h.p, dev.index(), s.pointers(ts)), ts...)
}

// Span is the elements, laid flat, that a process keeps of tensor i of a unit: n from the one numbered from.
func (h *Shards) Span(s *Scope, unit, i, rank int) (from, n int64) {
	from, n, msg := c10d.SpanShards(h.p, unit, i, rank)
	s.check("part of a shared weight", msg)
	return from, n
}

// Held is how many bytes this process keeps of all units.
func (h *Shards) Held() int64 { return c10d.HeldShards(h.p) }

// Turn returns once unit at is whole. It begins to gather the next one too, and lets go of all others.
func (h *Shards) Turn(s *Scope, at, next int) {
	if h.group != nil {
		if g := h.group(); g != nil {
			c10d.JoinShards(h.p, g.p)
			h.group = nil
		}
	}
	s.check("gather weights", c10d.TurnShards(h.p, at, next))
}

// TurnAtGradient turns in the backward pass, once the whole gradient of t is there.
func (h *Shards) TurnAtGradient(s *Scope, t Tensor, at, next int) {
	s.check("turn_at_gradient", c10d.TurnShardsAtGradient(h.p, t.p, at, next), t)
}

// Close ends it. Backward passes that are still to come turn no more.
func (h *Shards) Close() { c10d.FreeShards(h.p) }

// GiveUp lets what waits in the group's shards end with an error. It may be called from any goroutine, also after Leave.
func (g *Group) GiveUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.left {
		c10d.GiveUp(g.p)
	}
}

// Broken reports whether an operation has failed: the group is of no more use.
func (g *Group) Broken() bool {
	broken, _, _ := g.shared()
	return broken || g.failed
}

// Gathered is how many times a unit of shards was gathered, and how long that was waited for. It may be called from any
// goroutine, also after Leave.
func (g *Group) Gathered() (times int64, waited time.Duration) {
	_, times, ns := g.shared()
	return times, time.Duration(ns)
}

func (g *Group) shared() (broken bool, begun, waitedNS int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left {
		return false, 0, 0
	}
	return c10d.Shared(g.p)
}
