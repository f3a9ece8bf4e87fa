package files

import (
	"fmt"
	"math/bits"
)

// DType is the storage type of an entry: a plain scalar type, one of GGUF's
// block-quantised types, or one whose scales lie in tensors of their own.
type DType uint8

// The scalar types, the block types of GGUF that can be dequantised, and the types
// of tensors that [Group] puts together.
const (
	Invalid DType = iota
	F64
	F32
	F16
	BF16
	I64
	I32
	I16
	I8
	U8
	Bool
	Q4_0
	Q4_1
	Q5_0
	Q5_1
	Q8_0
	Q4_K
	Q5_K
	Q6_K
	NF4
	FP4
	Int8
	Int4
)

// kind describes how a type is laid out: elements come in blocks of elems, each
// taking size bytes (scalar types have blocks of one element).
type kind struct {
	name  string
	elems int64
	size  int64
}

var kinds = [...]kind{
	Invalid: {"invalid", 1, 0},
	F64:     {"F64", 1, 8},
	F32:     {"F32", 1, 4},
	F16:     {"F16", 1, 2},
	BF16:    {"BF16", 1, 2},
	I64:     {"I64", 1, 8},
	I32:     {"I32", 1, 4},
	I16:     {"I16", 1, 2},
	I8:      {"I8", 1, 1},
	U8:      {"U8", 1, 1},
	Bool:    {"BOOL", 1, 1},
	Q4_0:    {"Q4_0", 32, 18},
	Q4_1:    {"Q4_1", 32, 20},
	Q5_0:    {"Q5_0", 32, 22},
	Q5_1:    {"Q5_1", 32, 24},
	Q8_0:    {"Q8_0", 32, 34},
	Q4_K:    {"Q4_K", 256, 144},
	Q5_K:    {"Q5_K", 256, 176},
	Q6_K:    {"Q6_K", 256, 210},
	NF4:     {"NF4", 2, 1},
	FP4:     {"FP4", 2, 1},
	Int8:    {"INT8", 1, 1},
	Int4:    {"INT4", 2, 1},
}

func (d DType) kind() kind {
	if int(d) >= len(kinds) {
		return kinds[Invalid]
	}
	return kinds[d]
}

// String gives the name used by safetensors ("F32", "BOOL") and GGUF ("Q4_K").
func (d DType) String() string { return d.kind().name }

// Size gives the bytes of one element, or 0 for quantised types.
func (d DType) Size() int {
	if d.Quantised() {
		return 0
	}
	return int(d.kind().size)
}

// Block gives how many consecutive elements are stored together and in how many
// bytes: (1, 4) for F32, (32, 18) for Q4_0. Of a grouped type these are its codes.
func (d DType) Block() (elements, bytes int) {
	k := d.kind()
	return int(k.elems), int(k.size)
}

// Quantised tells whether elements are stored as codes that scales belong to.
func (d DType) Quantised() bool { return d >= Q4_0 && int(d) < len(kinds) }

// Grouped tells whether the scales lie in tensors of their own: see [Packed].
func (d DType) Grouped() bool { return d >= NF4 && d.Quantised() }

// Float tells whether the type is a plain floating point type.
func (d DType) Float() bool { return d == F64 || d == F32 || d == F16 || d == BF16 }

// ParseDType reads a type's name as [DType.String] writes it.
func ParseDType(name string) (DType, error) {
	for d := F64; int(d) < len(kinds); d++ {
		if kinds[d].name == name {
			return d, nil
		}
	}
	return Invalid, fmt.Errorf("dtype %q is not supported", name)
}

// maxDims is PyTorch's own limit on the rank of a tensor.
const maxDims = 64

// elements multiplies a shape, refusing negative dimensions and overflow.
func elements(shape []int64) (int64, error) {
	if len(shape) > maxDims {
		return 0, fmt.Errorf("%d dimensions, more than %d", len(shape), maxDims)
	}
	n := int64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", shape)
		}
		hi, lo := bits.Mul64(uint64(n), uint64(d))
		if hi != 0 || lo > 1<<62 {
			return 0, fmt.Errorf("shape %v overflows", shape)
		}
		n = int64(lo)
	}
	return n, nil
}

// byteSize gives the bytes that a tensor of this type and shape takes. The last
// dimension of a block-quantised tensor must be whole blocks.
func byteSize(d DType, shape []int64) (int64, error) {
	n, err := elements(shape)
	if err != nil {
		return 0, err
	}
	k := d.kind()
	if k.elems > 1 && (len(shape) == 0 || shape[len(shape)-1]%k.elems != 0) {
		return 0, fmt.Errorf("shape %v is not in rows of whole %s blocks (%d elements)", shape, k.name, k.elems)
	}
	hi, lo := bits.Mul64(uint64(n/k.elems), uint64(k.size))
	if hi != 0 || lo > 1<<62 {
		return 0, fmt.Errorf("shape %v overflows", shape)
	}
	return int64(lo), nil
}
