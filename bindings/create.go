package bindings

import (
	"unsafe"

	"gopeft/bindings/csrc"
)

// Empty is an uninitialised tensor.
func (s *Scope) Empty(shape []int64, d DType, dev Device) Tensor {
	return s.made("empty", csrc.Empty(s.slot(), s.dims(shape), int(d), dev.index(), false))
}

// EmptyPinned is an uninitialised tensor in page-locked host memory, from which copies to a GPU run beside
// computation. It needs CUDA.
func (s *Scope) EmptyPinned(shape []int64, d DType) Tensor {
	return s.made("empty", csrc.Empty(s.slot(), s.dims(shape), int(d), CPU.index(), true))
}

// Full is a tensor filled with v.
func (s *Scope) Full(shape []int64, v float64, d DType, dev Device) Tensor {
	return s.made("full", csrc.Full(s.slot(), s.dims(shape), v, int(d), dev.index()))
}

// Zeros is a tensor of zeros.
func (s *Scope) Zeros(shape []int64, d DType, dev Device) Tensor { return s.Full(shape, 0, d, dev) }

// Scalar is a tensor without dimensions.
func (s *Scope) Scalar(v float64, d DType, dev Device) Tensor { return s.Full(nil, v, d, dev) }

// Arange is start, start+1, … end-1.
func (s *Scope) Arange(start, end int64, d DType, dev Device) Tensor {
	return s.made("arange", csrc.Arange(s.slot(), start, end, int(d), dev.index()))
}

// Normal draws from N(mean, std²) with libtorch's generator.
func (s *Scope) Normal(shape []int64, mean, std float64, d DType, dev Device) Tensor {
	t := s.Empty(shape, d, dev)
	s.check("normal_", csrc.NormalInPlace(t.p, mean, std), t)
	return t
}

// Uniform draws from [lo, hi) with libtorch's generator.
func (s *Scope) Uniform(shape []int64, lo, hi float64, d DType, dev Device) Tensor {
	t := s.Empty(shape, d, dev)
	s.check("uniform_", csrc.UniformInPlace(t.p, lo, hi), t)
	return t
}

// FromFloat32s copies v, in row-major order, to a new fp32 tensor on the CPU.
func (s *Scope) FromFloat32s(v []float32, shape ...int64) Tensor {
	return s.fromSlice(unsafe.Pointer(unsafe.SliceData(v)), len(v), Float, shape)
}

// FromInt64s copies v, in row-major order, to a new int64 tensor on the CPU.
func (s *Scope) FromInt64s(v []int64, shape ...int64) Tensor {
	return s.fromSlice(unsafe.Pointer(unsafe.SliceData(v)), len(v), Int64, shape)
}

// FromBools copies v, in row-major order, to a new bool tensor on the CPU.
func (s *Scope) FromBools(v []bool, shape ...int64) Tensor {
	return s.fromSlice(unsafe.Pointer(unsafe.SliceData(v)), len(v), Bool, shape)
}

// FromRaw copies the bytes of row-major elements of dtype d to a new tensor on the CPU.
func (s *Scope) FromRaw(v []byte, d DType, shape ...int64) Tensor {
	return s.fromSlice(unsafe.Pointer(unsafe.SliceData(v)), len(v)/d.Size(), d, shape)
}

func (s *Scope) fromSlice(p unsafe.Pointer, n int, d DType, shape []int64) Tensor {
	t := s.Empty(shape, d, CPU)
	if t.Numel() != int64(n) {
		fail("from slice", "the slice's length differs from the shape's", t)
	}
	if n > 0 {
		copy(unsafe.Slice((*byte)(csrc.Data(t.p)), n*d.Size()), unsafe.Slice((*byte)(p), n*d.Size()))
	}
	return t
}

// OverMemory is a tensor over memory that Go's collector does not manage, such as a file mapping: nothing
// is copied, and the memory must outlive every tensor that shares it. The tensor must not be written to when
// the memory is read-only.
func (s *Scope) OverMemory(mem []byte, d DType, shape ...int64) Tensor {
	n := int64(d.Size())
	for _, x := range shape {
		n *= x
	}
	if n != int64(len(mem)) {
		panic(&OpError{Op: "over memory", Message: "the memory's length differs from the shape's"})
	}
	return s.made("from_blob", csrc.FromBlob(s.slot(), unsafe.Pointer(unsafe.SliceData(mem)), s.dims(shape), int(d)))
}

// check panics with an *OpError when a csrc call returned a message.
func (s *Scope) check(op, message string, args ...Tensor) {
	if message != "" {
		fail(op, message, args...)
	}
}
