package bindings

import (
	"unsafe"

	"gopeft/bindings/csrc"
)

// AdamOptions are the constants of one Adam step.
type AdamOptions struct {
	LR, Beta1, Beta2, Eps, WeightDecay float64
	Decoupled                          bool // AdamW: decay the weights apart from the gradient
	Composed                           bool // of libtorch's plain operations, one parameter at a time
}

// AdamStep updates all parameters, in one fused pass unless o says otherwise. m and v are the moments; steps are fp32
// scalars, one per parameter, that already count this step. The parameters' Version rises.
func (s *Scope) AdamStep(params, grads, m, v, steps []Tensor, o AdamOptions) {
	msg := csrc.AdamStep(raw(params), raw(grads), raw(m), raw(v), raw(steps),
		o.LR, o.Beta1, o.Beta2, o.WeightDecay, o.Eps, o.Decoupled, !o.Composed)
	s.check("adam", msg)
	for _, p := range params {
		s.Copy(p, p) // libtorch does not count the fused step as a change: a copy onto itself does nothing else
	}
}

// SGDStep is p -= lr·(g + weightDecay·p), through momentum buffers when momentum is not 0.
func (s *Scope) SGDStep(params, grads, momenta []Tensor, lr, momentum, weightDecay float64, first bool) {
	s.check("sgd", csrc.SGDStep(raw(params), raw(grads), raw(momenta), lr, momentum, weightDecay, first))
}

// Norm is the L2 norm over all elements of all tensors.
func (s *Scope) Norm(ts []Tensor) float64 {
	var n float64
	s.check("norm", csrc.Norm(raw(ts), &n))
	return n
}

// ScaleAll multiplies every tensor in place.
func (s *Scope) ScaleAll(ts []Tensor, factor float64) {
	s.check("scale", csrc.ScaleAllInPlace(raw(ts), factor))
}

// AddAll adds v to every tensor in place.
func (s *Scope) AddAll(ts []Tensor, v float64) { s.check("add", csrc.AddAllInPlace(raw(ts), v)) }

// FirstNonFinite is the index of the first tensor with an infinite or NaN element, -1 if there is none.
func (s *Scope) FirstNonFinite(ts []Tensor) int {
	var i int32
	s.check("isfinite", csrc.FirstNonfinite(raw(ts), &i))
	return int(i)
}

// Unscale multiplies the gradients by the scalar tensor invScale in place and sets foundInf to 1 if any
// element is not finite.
func (s *Scope) Unscale(grads []Tensor, foundInf, invScale Tensor) {
	s.check("unscale", csrc.Unscale(raw(grads), foundInf.p, invScale.p))
}

// UpdateScale is the loss scaler's rule: scale shrinks by backoff when foundInf, else grows by growth after
// every interval clean steps, counted in growthTracker (int32).
func (s *Scope) UpdateScale(scale, growthTracker, foundInf Tensor, growth, backoff float64, interval int64) {
	msg := csrc.UpdateScale(scale.p, growthTracker.p, foundInf.p, growth, backoff, interval)
	s.check("update scale", msg)
}

// raw views tensors as csrc's pointers: a Tensor holds nothing else.
func raw(ts []Tensor) []csrc.Tensor {
	return unsafe.Slice((*csrc.Tensor)(unsafe.Pointer(unsafe.SliceData(ts))), len(ts))
}
