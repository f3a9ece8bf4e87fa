package files

import (
	"encoding/binary"
	"fmt"
	"math"
)

// ggufReader reads little-endian values and remembers the first failure; what it
// gives after that is zero.
type ggufReader struct {
	data     []byte
	at       int
	elements int64 // array elements seen so far
	err      error
}

func (r *ggufReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *ggufReader) bytes(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.data)-r.at) {
		r.fail("%d bytes wanted at %d of %d: the file is cut short", n, r.at, len(r.data))
	}
	if r.err != nil {
		return nil
	}
	b := r.data[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}

func (r *ggufReader) uint(width uint64) uint64 {
	var b [8]byte
	copy(b[:], r.bytes(width))
	return binary.LittleEndian.Uint64(b[:])
}

func (r *ggufReader) text() string { return string(r.bytes(r.uint(8))) }

// The value types of the format, in the order of their numbers.
const (
	ggufU8 = iota
	ggufI8
	ggufU16
	ggufI16
	ggufU32
	ggufI32
	ggufF32
	ggufBool
	ggufString
	ggufArray
	ggufU64
	ggufI64
	ggufF64
)

// ggufWidth gives the bytes of the smallest value of each type in the file.
var ggufWidth = [...]int64{
	ggufU8: 1, ggufI8: 1, ggufU16: 2, ggufI16: 2, ggufU32: 4, ggufI32: 4, ggufF32: 4,
	ggufBool: 1, ggufString: 8, ggufArray: 12, ggufU64: 8, ggufI64: 8, ggufF64: 8,
}

func (r *ggufReader) value(kind uint64, depth int) any {
	switch kind {
	case ggufF32, ggufF64:
		return r.float(kind)
	case ggufBool:
		return r.bool()
	case ggufString:
		return r.text()
	case ggufArray:
		return r.array(depth)
	case ggufU64:
		if n := r.uint(8); n > math.MaxInt64 {
			return n
		} else {
			return int64(n)
		}
	}
	return r.int(kind)
}

func (r *ggufReader) int(kind uint64) int64 {
	switch kind {
	case ggufU8:
		return int64(r.uint(1))
	case ggufI8:
		return int64(int8(r.uint(1)))
	case ggufU16:
		return int64(r.uint(2))
	case ggufI16:
		return int64(int16(r.uint(2)))
	case ggufU32:
		return int64(r.uint(4))
	case ggufI32:
		return int64(int32(r.uint(4)))
	case ggufI64:
		return int64(r.uint(8))
	case ggufU64:
		n := r.uint(8)
		if n > math.MaxInt64 {
			r.fail("array element %d is too large", n)
		}
		return int64(n)
	}
	r.fail("value type %d does not exist", kind)
	return 0
}

func (r *ggufReader) float(kind uint64) float64 {
	if kind == ggufF32 {
		return float64(math.Float32frombits(uint32(r.uint(4))))
	}
	return math.Float64frombits(r.uint(8))
}

func (r *ggufReader) bool() bool {
	b := r.uint(1)
	if b > 1 {
		r.fail("truth value %d is neither 0 nor 1", b)
	}
	return b == 1
}

func (r *ggufReader) array(depth int) any {
	kind, count := r.uint(4), r.uint(8)
	switch {
	case r.err != nil:
	case kind >= uint64(len(ggufWidth)):
		r.fail("array of value type %d, which does not exist", kind)
	case depth >= maxGGUFNesting:
		r.fail("arrays nested more than %d deep", maxGGUFNesting)
	case count > maxGGUFElements || r.elements+int64(count) > maxGGUFElements:
		r.fail("array of %d elements: the metadata hold more than %d", count, maxGGUFElements)
	case int64(count)*ggufWidth[kind] > int64(len(r.data)-r.at):
		r.fail("array of %d elements in a file of %d bytes: the file is cut short", count, len(r.data))
	}
	if r.err != nil {
		return nil
	}
	r.elements += int64(count)
	n := int(count)
	switch kind {
	case ggufF32, ggufF64:
		return readAll(r, n, func() float64 { return r.float(kind) })
	case ggufBool:
		return readAll(r, n, r.bool)
	case ggufString:
		return readAll(r, n, r.text)
	case ggufArray:
		return readAll(r, n, func() any { return r.array(depth + 1) })
	}
	return readAll(r, n, func() int64 { return r.int(kind) })
}

func readAll[T any](r *ggufReader, count int, read func() T) []T {
	list := make([]T, count)
	for i := range list {
		list[i] = read()
		if r.err != nil {
			return nil
		}
	}
	return list
}
