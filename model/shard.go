package model

import (
	"fmt"
	"slices"

	"gopeft/bindings"
)

// Sharing says which part of the weights that several processes hold together is this one's.
type Sharing struct {
	Rank, Size int
	Device     bindings.Device        // that they are computed on
	Group      func() *bindings.Group // of the processes, once they have met
}

// Shard implements Model.
func (b *base) Shard(o Sharing) (r Elsewhere, err error) {
	for _, w := range b.matrices() {
		switch {
		case !w.Trainable:
			r.leave(w)
		case w.Device() != o.Device:
			return r, fmt.Errorf("%s is trained: on a GPU the blocks' matrices can only be shared while all are frozen", w.Name)
		}
	}
	if b.frozen != nil || r.Moved == 0 {
		return r, nil
	}
	shards, err := bindings.NewShards(o.Rank, o.Size, o.Group)
	if err != nil {
		return r, fmt.Errorf("share weights: %w", err)
	}
	units := b.Units()
	if b.tied() {
		units = units[:len(units)-1]
	}
	for _, unit := range units {
		var ts []bindings.Tensor
		for _, w := range unit {
			switch {
			case w.Trainable:
			case w.quant != nil:
				ts = append(ts, w.quant.Tensors()...)
			default:
				ts = append(ts, w.T)
			}
		}
		shards.Add(b.scope, o.Device, ts)
		for _, w := range unit {
			if !w.Trainable {
				w.release()
				w.file, w.stays, w.shared = nil, true, true
			}
		}
	}
	b.shared = shards.Held()
	b.frozen = &turning{store: shards, units: len(units), head: len(units) > len(b.hooks.Blocks), ready: func(*bindings.Scope) {}}
	return r, nil
}

// Shared implements Model.
func (b *base) Shared() int64 { return b.shared }

// tied reports whether the language-model head is the embedding table, whose rows every process looks up.
func (b *base) tied() bool { return b.head != nil && b.head == b.hooks.Words }

// shareable reports whether Shard takes a weight while it is frozen.
func (b *base) shareable(p *Param) bool {
	return p != b.hooks.Words && slices.ContainsFunc(b.Units(), func(unit []*Param) bool { return slices.Contains(unit, p) })
}
