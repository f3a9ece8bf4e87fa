// Package bindings is gopeft's tensor layer: libtorch through gotch's raw C API (package libtch) and the
// project's own C++ (package csrc). It is the only package that imports gotch.
//
// All libtorch work runs on one locked OS thread, because libtorch's grad mode, autocast state, last error
// and OpenMP pool are thread-local. Do hands a function to that thread:
//
//	err := bindings.Do(ctx, func(s *bindings.Scope) error {
//		x := s.Full([]int64{2, 3}, 1, bindings.Float, bindings.CPU)
//		y := s.MulScalar(x, 2)
//		fmt.Println(y.Float32s())
//		return nil
//	})
//
// A Scope owns the tensors its operations make and frees them when it closes; In runs a part in a scope of
// its own and keeps only the result. An operation that fails panics with *OpError inside Do, which returns
// it as an error, so model code reads as mathematics.
//
// Glossary:
//
//   - scope: the owner of tensors; see Scope. Every operation is a method of the scope that will own its result.
//   - live: owned by an open scope. Live counts these tensors; tests check that it returns to where it was.
//   - none: the zero Tensor, where an argument or result is optional.
//   - guard: a method that changes a state of libtorch while it runs a function: NoGrad, Autocast, …
//   - fused: computed by one of our own kernels in csrc, which take fp32 and bf16 on CPUs with AVX-512, and fp32 on
//     those with AVX2; see CPUPath.
//   - composed: the same result from several of libtorch's operations, where no kernel of ours serves. SetFused(false)
//     composes everything; tests compare the two.
//   - compiled: computed by one of our kernels for GPUs, which NVIDIA's run-time compiler makes when it is first needed
//     (package nvrtc). SetCompiled(false) leaves them off.
//   - bias: what attention adds to its scores; Masked is the value that hides a key.
//   - over: an operation that may write its result over its input (GELUOver).
//   - quantised: held in 4 to 8 bits a weight, with scales, and computed with as it lies; see Quantised.
//   - placeholder: a tensor without elements, which says what lies elsewhere in another form (Placeholder).
//   - checkpoint: a function whose intermediate results are computed again in the backward pass instead of being kept
//     (Checkpoint); not a file.
package bindings
