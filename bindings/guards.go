package bindings

import "gopeft/bindings/csrc"

// A guard sets libtorch's state for the duration of fn and restores what it found, also when fn panics.

// NoGrad runs fn without recording for autograd.
func (s *Scope) NoGrad(fn func()) { s.withGrad(false, fn) }

// EnableGrad runs fn with recording, inside NoGrad.
func (s *Scope) EnableGrad(fn func()) { s.withGrad(true, fn) }

func (s *Scope) withGrad(on bool, fn func()) {
	was := csrc.GradEnabled()
	csrc.SetGradEnabled(on)
	defer csrc.SetGradEnabled(was)
	fn()
}

// GradEnabled reports whether operations are recorded for autograd.
func (s *Scope) GradEnabled() bool { return csrc.GradEnabled() }

// Inference runs fn in libtorch's inference mode: no recording and no version counting. Its tensors can
// never take part in a backward pass.
func (s *Scope) Inference(fn func()) {
	guard := csrc.InferenceEnter()
	defer csrc.InferenceLeave(guard)
	fn()
}

// Autocast runs fn with automatic mixed precision on a device: matrix products in d (BFloat16 or Half),
// reductions in fp32, as in PyTorch. With d Float it runs fn with mixed precision off.
func (s *Scope) Autocast(dev Device, d DType, fn func()) {
	on := d != Float
	if !on {
		d = BFloat16
	}
	var wasOn, wasDType int32
	csrc.AutocastSet(dev.index(), on, int(d), &wasOn, &wasDType)
	defer func() {
		var on, dtype int32 // what fn left, which is not needed
		csrc.AutocastSet(dev.index(), wasOn != 0, int(wasDType), &on, &dtype)
	}()
	fn()
}

// Seed seeds the generators of the CPU and of every GPU.
func (s *Scope) Seed(seed uint64) { s.check("seed", csrc.Seed(seed)) }

// RNGState is a device's generator state, an opaque uint8 tensor on the CPU.
func (s *Scope) RNGState(dev Device) Tensor {
	return s.made("rng state", csrc.RNGGet(s.slot(), dev.index()))
}

// SetRNGState puts back what RNGState returned.
func (s *Scope) SetRNGState(state Tensor, dev Device) {
	s.check("set rng state", csrc.RNGSet(state.p, dev.index()), state)
}
