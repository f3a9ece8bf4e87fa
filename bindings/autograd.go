package bindings

import (
	"unsafe"

	lib "github.com/sugarme/gotch/libtch"

	"gopeft/bindings/csrc"
)

// SetRequiresGrad makes autograd track the leaf t, or stop.
func (s *Scope) SetRequiresGrad(t Tensor, on bool) {
	s.check("requires_grad_", csrc.SetRequiresGrad(t.p, on), t)
}

// Detach is t outside the graph, sharing its memory.
func (s *Scope) Detach(t Tensor) Tensor { return s.unary("detach", lib.AtgDetach, t) }

// Backward accumulates the gradient of the scalar loss into the leaves that require one.
func (s *Scope) Backward(loss Tensor) { s.check("backward", csrc.Backward(loss.p, nil), loss) }

// BackwardWith is Backward for a loss of any shape, given the gradient with respect to it.
func (s *Scope) BackwardWith(loss, grad Tensor) {
	s.check("backward", csrc.Backward(loss.p, grad.p), loss, grad)
}

// Gradients is the gradient of output (weighted by grad, which may be none for a scalar) with respect to
// each input; none where output does not depend on it. It does not add to the gradients that leaves hold.
func (s *Scope) Gradients(output, grad Tensor, inputs []Tensor) []Tensor {
	if len(inputs) == 0 {
		return nil
	}
	outs := unsafe.Slice((*unsafe.Pointer)(csrc.Malloc(uintptr(len(inputs))*8)), len(inputs))
	defer csrc.Free(unsafe.Pointer(&outs[0]))
	s.check("grad", csrc.GradOf(&outs[0], output.p, grad.p, s.pointers(inputs)), output)
	grads := make([]Tensor, len(inputs))
	for i, p := range outs {
		if p != nil {
			grads[i] = s.adopt(p)
		}
	}
	return grads
}

// Grad is the gradient accumulated in the leaf t, none if there is none.
func (s *Scope) Grad(t Tensor) Tensor {
	msg := csrc.GetGrad(s.slot(), t.p)
	s.check("grad", msg, t)
	if s.buf.out[0] == nil {
		return Tensor{}
	}
	return s.adopt(s.buf.out[0])
}

// SetGrad replaces the gradient of the leaf t; none removes it and frees its memory.
func (s *Scope) SetGrad(t, grad Tensor) { s.check("set grad", csrc.SetGrad(t.p, grad.p), t, grad) }

// In-place operations record nothing for autograd.

// Copy writes src, converted to its dtype and device, into dst.
func (s *Scope) Copy(dst, src Tensor) {
	s.check("copy_", csrc.CopyInPlace(dst.p, src.p, false), dst, src)
}

// AddInPlace is dst += alpha·src.
func (s *Scope) AddInPlace(dst, src Tensor, alpha float64) {
	s.check("add_", csrc.AddInPlace(dst.p, src.p, alpha), dst, src)
}

// MulScalarInPlace is t *= v.
func (s *Scope) MulScalarInPlace(t Tensor, v float64) {
	s.check("mul_", csrc.MulScalarInPlace(t.p, v), t)
}

// Fill sets every element to v.
func (s *Scope) Fill(t Tensor, v float64) { s.check("fill_", csrc.FillInPlace(t.p, v), t) }
