package bindings

import (
	"unsafe"

	"gopeft/bindings/csrc"
)

// Empty is an uninitialised tensor.
func (s *Scope) Empty(shape []int64, d DType, dev Device) Tensor {
	return s.made("empty", csrc.Empty(s.slot(), s.dims(shape), int(d), dev.index(), false))
}

// emptyPinned is an uninitialised tensor in page-locked host memory, from which copies to a GPU run beside the
// host's work. It needs CUDA.
func (s *Scope) emptyPinned(shape []int64, d DType) Tensor {
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

// Normal draws from N(mean, std²) with libtorch's generator for the CPU, so that a seed gives the same numbers on
// every device.
func (s *Scope) Normal(shape []int64, mean, std float64, d DType, dev Device) Tensor {
	return s.drawn(shape, d, dev, func(t Tensor) { s.check("normal_", csrc.NormalInPlace(t.p, mean, std), t) })
}

// Uniform draws from [lo, hi) as Normal does.
func (s *Scope) Uniform(shape []int64, lo, hi float64, d DType, dev Device) Tensor {
	return s.drawn(shape, d, dev, func(t Tensor) { s.check("uniform_", csrc.UniformInPlace(t.p, lo, hi), t) })
}

func (s *Scope) drawn(shape []int64, d DType, dev Device, fill func(Tensor)) Tensor {
	t := s.Empty(shape, d, CPU)
	fill(t)
	if !dev.IsCUDA() {
		return t
	}
	defer s.Free(t)
	return s.ToDevice(t, d, dev)
}

// FromFloat32s copies v, in row-major order, to a new fp32 tensor on the CPU.
func (s *Scope) FromFloat32s(v []float32, shape ...int64) Tensor {
	return s.fromSlice(unsafe.Pointer(unsafe.SliceData(v)), len(v), Float, shape)
}

// FromInt64s copies v, in row-major order, to a new int64 tensor on the CPU.
func (s *Scope) FromInt64s(v []int64, shape ...int64) Tensor {
	return s.fromSlice(unsafe.Pointer(unsafe.SliceData(v)), len(v), Int64, shape)
}

// Int64sOn copies v, in row-major order, to a new int64 tensor on dev: on a GPU without waiting for it.
func (s *Scope) Int64sOn(dev Device, v []int64, shape ...int64) Tensor {
	return s.onDevice(dev, unsafe.Pointer(unsafe.SliceData(v)), len(v), Int64, shape)
}

// Float32sOn is Int64sOn of fp32.
func (s *Scope) Float32sOn(dev Device, v []float32, shape ...int64) Tensor {
	return s.onDevice(dev, unsafe.Pointer(unsafe.SliceData(v)), len(v), Float, shape)
}

func (s *Scope) onDevice(dev Device, v unsafe.Pointer, n int, d DType, shape []int64) Tensor {
	if !dev.IsCUDA() {
		return s.fromSlice(v, n, d, shape)
	}
	t := s.emptyPinned(shape, d)
	defer s.Free(t)
	s.fill(t, v, n)
	return s.ToDevice(t, d, dev)
}

// FromRaw copies the bytes of row-major elements of dtype d to a new tensor on the CPU.
func (s *Scope) FromRaw(v []byte, d DType, shape ...int64) Tensor {
	return s.fromSlice(unsafe.Pointer(unsafe.SliceData(v)), len(v)/d.Size(), d, shape)
}

func (s *Scope) fromSlice(p unsafe.Pointer, n int, d DType, shape []int64) Tensor {
	t := s.Empty(shape, d, CPU)
	s.fill(t, p, n)
	return t
}

// fill copies n elements at p to t, which is on the host.
func (s *Scope) fill(t Tensor, p unsafe.Pointer, n int) {
	if t.Numel() != int64(n) {
		fail("from slice", "the slice's length differs from the shape's", t)
	}
	if size := t.DType().Size(); n > 0 {
		copy(unsafe.Slice((*byte)(csrc.Data(t.p)), n*size), unsafe.Slice((*byte)(p), n*size))
	}
}

// OverMemory is a tensor whose elements are mem itself, which Go's collector must not manage: a file mapping, say.
// Nothing is copied. The memory must outlive every tensor that shares it, and a tensor over read-only memory must not
// be written to.
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
