package bindings

import (
	"fmt"
	"strings"
	"sync/atomic"
	"unsafe"

	lib "github.com/sugarme/gotch/libtch"

	"gopeft/bindings/csrc"
)

// DType is an element type, with libtorch's numbering.
type DType int

// The element types gopeft uses.
const (
	Uint8    DType = 0
	Int8     DType = 1
	Int16    DType = 2
	Int      DType = 3
	Int64    DType = 4
	Half     DType = 5
	Float    DType = 6
	Double   DType = 7
	Bool     DType = 11
	BFloat16 DType = 15
)

func (d DType) String() string {
	switch d {
	case Uint8:
		return "uint8"
	case Int8:
		return "int8"
	case Int16:
		return "int16"
	case Int:
		return "int32"
	case Int64:
		return "int64"
	case Half:
		return "fp16"
	case Float:
		return "fp32"
	case Double:
		return "fp64"
	case Bool:
		return "bool"
	case BFloat16:
		return "bf16"
	}
	return fmt.Sprintf("dtype(%d)", int(d))
}

// Size is the bytes of one element.
func (d DType) Size() int {
	switch d {
	case Uint8, Int8, Bool:
		return 1
	case Int16, Half, BFloat16:
		return 2
	case Int, Float:
		return 4
	}
	return 8
}

// Floating reports whether d is a floating-point type.
func (d DType) Floating() bool { return d == Half || d == Float || d == Double || d == BFloat16 }

// Device is where a tensor's elements are: the zero value is the CPU.
type Device int

const (
	// CPU is the host.
	CPU Device = 0
	// Nowhere is where placeholders are.
	Nowhere Device = -1
)

// CUDA is the n-th GPU.
func CUDA(n int) Device { return Device(n + 1) }

// IsCUDA reports whether d is a GPU.
func (d Device) IsCUDA() bool { return d > 0 }

// index is d in the C functions' numbering: -1 for the CPU, n for the n-th GPU, -2 for nowhere.
func (d Device) index() int { return int(d) - 1 }

func (d Device) String() string {
	switch d {
	case CPU:
		return "cpu"
	case Nowhere:
		return "nowhere"
	}
	return fmt.Sprintf("cuda:%d", d.index())
}

// Tensor is a handle on a libtorch tensor that some Scope owns. It is a plain value: copying it copies the
// handle. The zero Tensor stands for "none" where an argument is optional.
type Tensor struct{ p unsafe.Pointer }

// Defined reports whether t is a tensor rather than "none".
func (t Tensor) Defined() bool { return t.p != nil }

// Dim is the number of dimensions.
func (t Tensor) Dim() int { return int(csrc.Dim(t.p)) }

// Size is the extent of a dimension, counted from the end when negative; -1 when there is no such dimension.
func (t Tensor) Size(dim int) int64 { return csrc.Size(t.p, int64(dim)) }

// Shape is the extent of every dimension.
func (t Tensor) Shape() []int64 {
	shape := make([]int64, t.Dim())
	for i := range shape {
		shape[i] = t.Size(i)
	}
	return shape
}

// Numel is the number of elements.
func (t Tensor) Numel() int64 { return csrc.Numel(t.p) }

// Bytes is the number of bytes of the elements; a placeholder has none.
func (t Tensor) Bytes() int64 {
	if t.Device() == Nowhere {
		return 0
	}
	return t.Numel() * csrc.ItemSize(t.p)
}

// DType is the element type.
func (t Tensor) DType() DType { return DType(csrc.Dtype(t.p)) }

// Device is where the elements are.
func (t Tensor) Device() Device { return CUDA(csrc.Device(t.p)) }

// RequiresGrad reports whether autograd tracks t.
func (t Tensor) RequiresGrad() bool { return csrc.RequiresGrad(t.p) }

// IsContiguous reports whether the elements lie in row-major order without gaps.
func (t Tensor) IsContiguous() bool { return csrc.IsContiguous(t.p) }

// Version counts the in-place changes made to t's memory: what was computed from t is current while it stays
// the same.
func (t Tensor) Version() int64 { return lib.Atg_Version(lib.Ctensor(t.p)) }

// Same reports whether t and o are the same handle.
func (t Tensor) Same(o Tensor) bool { return t.p == o.p }

// String is the dtype and shape, e.g. "fp32[2 3]".
func (t Tensor) String() string {
	if !t.Defined() {
		return "none"
	}
	var b strings.Builder
	b.WriteString(t.DType().String())
	fmt.Fprint(&b, t.Shape())
	if d := t.Device(); d != CPU {
		b.WriteString("@" + d.String())
	}
	return b.String()
}

// reads counts the times that values were copied out of tensors.
var reads atomic.Int64

// Reads is how often values were copied out of tensors so far. For each a GPU is waited for: tests count them.
func Reads() int64 { return reads.Load() }

// read copies t, converted to dtype, into dst in row-major order.
func (t Tensor) read(dst unsafe.Pointer, dtype DType) {
	reads.Add(1)
	if msg := csrc.Read(t.p, dst, int(dtype)); msg != "" {
		fail("read", msg, t)
	}
}

// Float32s is a copy of the elements as float32.
func (t Tensor) Float32s() []float32 {
	v := make([]float32, t.Numel())
	if len(v) > 0 {
		t.read(unsafe.Pointer(&v[0]), Float)
	}
	return v
}

// Float64s is a copy of the elements as float64.
func (t Tensor) Float64s() []float64 {
	v := make([]float64, t.Numel())
	if len(v) > 0 {
		t.read(unsafe.Pointer(&v[0]), Double)
	}
	return v
}

// Int64s is a copy of the elements as int64.
func (t Tensor) Int64s() []int64 {
	v := make([]int64, t.Numel())
	if len(v) > 0 {
		t.read(unsafe.Pointer(&v[0]), Int64)
	}
	return v
}

// Raw is a copy of the elements' bytes in row-major order, in t's own dtype.
func (t Tensor) Raw() []byte {
	v := make([]byte, t.Bytes())
	if len(v) > 0 {
		t.read(unsafe.Pointer(&v[0]), t.DType())
	}
	return v
}

// View calls fn with the elements' bytes in place; t must be contiguous and on the CPU. The slice is valid
// only inside fn.
func (t Tensor) View(fn func([]byte) error) error {
	if t.Device() != CPU || !t.IsContiguous() {
		fail("view", "needs a contiguous tensor on the CPU", t)
	}
	n := t.Bytes()
	if n == 0 {
		return fn(nil)
	}
	return fn(unsafe.Slice((*byte)(csrc.Data(t.p)), n))
}

// Item is the value of a tensor with one element.
func (t Tensor) Item() float64 {
	if t.Numel() != 1 {
		fail("item", "needs exactly one element", t)
	}
	var v float64
	t.read(unsafe.Pointer(&v), Double)
	return v
}
