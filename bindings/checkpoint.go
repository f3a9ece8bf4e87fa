package bindings

import (
	"context"
	"fmt"
	"runtime/cgo"
	"unsafe"

	"gopeft/bindings/csrc"
)

// Checkpoint is fn(inputs), whose intermediate results are not kept for the backward pass: the backward pass runs fn
// again, with the random and autocast state of the first time (Chen et al. 2016). Gradients are the same bit for bit.
// inputs are tensors that fn reads and that a scope may free before the backward pass: Checkpoint keeps them alive. An
// input may be none. What else fn reads, such as parameters, must live until the backward pass and gets its gradient
// like any other tensor. fn must compute the same from the same inputs and keep none of its tensors.
func (s *Scope) Checkpoint(inputs []Tensor, fn func(s *Scope, inputs []Tensor) Tensor) Tensor {
	csrc.CheckpointSweep()
	buf, ctx := s.buf, context.WithoutCancel(s.ctx)
	id := cgo.NewHandle(csrc.Recompute(func(boxes []csrc.Tensor) error {
		return again(&Scope{buf: buf, ctx: ctx}, boxes, fn)
	}))
	s.buf.out[1] = nil
	frame := &s.buf.out[1]
	msg := csrc.CheckpointBegin(frame, raw(inputs), id)
	f := *frame
	if f == nil {
		id.Delete()
	}
	s.check("checkpoint", msg, inputs...)
	defer csrc.CheckpointEnd(f)
	return s.In(func(s *Scope) Tensor { return fn(s, inputs) })
}

// again is the second run of a checkpointed function, inside the backward pass. Its result is of no use: what
// autograd saves on the way is.
func again(s *Scope, boxes []unsafe.Pointer, fn func(*Scope, []Tensor) Tensor) (err error) {
	defer s.Close()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *OpError:
			err = r
		default: // libtorch's frames lie between here and Do
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	inputs := make([]Tensor, len(boxes))
	for i, p := range boxes {
		if p != nil {
			inputs[i] = s.adopt(p)
		}
	}
	fn(s, inputs)
	return nil
}

// AutocastDType is the dtype that autocast computes matrix products in on dev, false when it is off.
func (s *Scope) AutocastDType(dev Device) (DType, bool) {
	d := csrc.AutocastDtype(dev.index())
	return DType(max(d, 0)), d >= 0
}
