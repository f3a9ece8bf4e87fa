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
package bindings
