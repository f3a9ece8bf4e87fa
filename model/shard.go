package model

import (
	"fmt"
	"slices"

	"gopeft/bindings"
)

// Of weights that several processes hold together each has a part, and reads them whole while it computes with them. The
// part of a trained weight is what its process trains.

// Sharing says which part of the weights is this process's.
type Sharing struct {
	Rank, Size int
	Device     bindings.Device        // that they are computed on
	Trained    bool                   // what is trained of them is shared too
	Group      func() *bindings.Group // of the processes, once they have met
}

// Shard implements Model.
func (b *base) Shard(o Sharing) (r Elsewhere, err error) {
	for _, w := range b.matrices() {
		if w.Trainable && w.Device() != o.Device {
			return r, fmt.Errorf("%s is trained: on a GPU the blocks' matrices can only be shared while all are frozen", w.Name)
		}
		if !w.Trainable || o.Trained {
			r.leave(w)
		}
	}
	if b.frozen != nil || r.Moved == 0 {
		return r, nil
	}
	shards, err := bindings.NewShards(o.Rank, o.Size, o.Group)
	if err != nil {
		return r, fmt.Errorf("share weights: %w", err)
	}
	units := b.ownUnits()
	taken := func(w *Param) bool { return !w.Trainable || o.Trained }
	for n, unit := range units {
		ts := tensorsOf(unit, taken)
		at := 0
		for _, w := range unit {
			switch {
			case !taken(w):
			case w.quant != nil:
				at += len(w.quant.Tensors())
			default:
				i := at
				w.part = func(s *bindings.Scope, rank int) (from, elements int64) { return shards.Span(s, n, i, rank) }
				at++
			}
		}
		shards.Add(b.scope, o.Device, ts)
		for _, w := range unit {
			if taken(w) {
				if w.Trainable { // and not yet written to
					w.file = w.untouched
				}
				w.release()
				w.file, w.untouched, w.stays, w.away, w.shared = nil, nil, true, true, true
			}
		}
	}
	b.shared, b.divided = shards.Held(), o.Trained
	b.frozen = &turning{store: shards, units: len(units), head: len(units) > len(b.hooks.Blocks), ready: func(*bindings.Scope) {}}
	return r, nil
}

// Shared implements Model.
func (b *base) Shared() int64 { return b.shared }

// Retake implements Model.
func (b *base) Retake(s *bindings.Scope) {
	if b.divided {
		b.frozen.store.Turn(s, b.frozen.units, b.frozen.units)
	}
}

// tied reports whether the language-model head is the embedding table, whose rows every process looks up.
func (b *base) tied() bool { return b.head != nil && b.head == b.hooks.Words }

// leaves reports whether Shard, or Stream for a GPU, takes a weight while it is frozen.
func (b *base) leaves(p *Param) bool {
	return p != b.hooks.Words && slices.ContainsFunc(b.Units(), func(unit []*Param) bool { return slices.Contains(unit, p) })
}
