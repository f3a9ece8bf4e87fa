package bindings

import (
	"errors"

	"gopeft/bindings/csrc/offload"
)

// Offload is frozen weights in the host's memory, in units that steps of a computation read on a device. Two units are on the
// device: the one that is turned to, and the next one, which is copied beside what is computed.
type Offload struct{ p offload.Offload }

// NewOffload makes an offload without units, from dev.
func NewOffload(dev Device) (*Offload, error) {
	p, msg := offload.New(dev.index())
	if msg != "" {
		return nil, errors.New(msg)
	}
	return &Offload{p}, nil
}

// Add makes a unit of tensors on the CPU, which must have no gaps. They are on the device then, and may be read while their unit
// is turned to. pinned says that their contents lie in memory of their own, so that no more is read of where they lay.
func (o *Offload) Add(s *Scope, ts []Tensor) (pinned bool) {
	pinned, msg := offload.Add(o.p, raw(ts))
	s.check("offload", msg, ts...)
	return pinned
}

// Held is how many bytes are on the device, of all units.
func (o *Offload) Held() int64 { return offload.Held(o.p) }

// Turn has what is computed from now on read unit at. It begins to copy the next one too, and lets go of all others.
func (o *Offload) Turn(s *Scope, at, next int) {
	s.check("bring weights", offload.Turn(o.p, at, next))
}

// TurnAtGradient turns in the backward pass, once the whole gradient of t is there.
func (o *Offload) TurnAtGradient(s *Scope, t Tensor, at, next int) {
	s.check("turn_at_gradient", offload.TurnAtGradient(o.p, t.p, at, next), t)
}

// Close ends it. Backward passes that are still to come turn no more.
func (o *Offload) Close() { offload.Free(o.p) }
