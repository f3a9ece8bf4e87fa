// Package emulator runs the GPU kernels of csrc/nvrtc on the CPU, so that their tests need no GPU: the same sources,
// launched by the same functions of csrc/launch, with a block's threads as fibres. What it cannot show is what only a GPU
// has: its conversions and the rounding of its expf, threads that run at once, and speed.
package emulator

/*
#cgo CXXFLAGS: -std=c++17 -O2
#cgo LDFLAGS: -lstdc++ -lm
#include <stdlib.h>
#include "emulator.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"

	_ "gopeft/bindings/csrc/launch" // its headers are compiled here
	_ "gopeft/bindings/csrc/nvrtc"  // and so are its kernels
)

// Element is what a kernel reads and writes.
type Element int

// The elements, numbered as the kernels' ELEMENT.
const (
	Float Element = iota
	BFloat16
	Half
)

func (e Element) String() string { return [...]string{"fp32", "bf16", "fp16"}[e] }

// Size is an element's bytes.
func (e Element) Size() int { return [...]int{4, 2, 2}[e] }

// Order is how a block's threads take turns.
type Order int

// The orders.
const (
	Forwards  Order = C.kForwards
	Backwards Order = C.kBackwards
)

// Machine runs kernels for elements of a type, its threads in an order.
type Machine struct {
	Element Element
	Order   Order
}

// Memory is bytes outside Go's heap with a fence behind them. The nil Memory is a null pointer.
type Memory struct {
	p            unsafe.Pointer
	bytes, shift int
}

// NewMemory takes bytes at a multiple of 16 and shift more.
func NewMemory(bytes, shift int) *Memory {
	return &Memory{C.fenced(C.size_t(bytes), C.size_t(shift)), bytes, shift}
}

// Bytes is the memory itself.
func (m *Memory) Bytes() []byte { return unsafe.Slice((*byte)(m.p), m.bytes) }

// Free gives the memory back; it is an error if bytes around it were written.
func (m *Memory) Free() error {
	if C.fenced_free(m.p, C.size_t(m.bytes), C.size_t(m.shift)) == 0 {
		return fmt.Errorf("bytes around a memory of %d were written", m.bytes)
	}
	return nil
}

func (m *Memory) at() unsafe.Pointer {
	if m == nil {
		return nil
	}
	return m.p
}

func (m *Memory) floats() *C.float { return (*C.float)(m.at()) }

func failure(message *C.char) error {
	if message == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(message))
	return errors.New(C.GoString(message))
}

// Emulated is whether there is a kernel of that name.
func Emulated(kernel string) bool {
	name := C.CString(kernel)
	defer C.free(unsafe.Pointer(name))
	return C.emulated(name) != 0
}

func (m Machine) element() C.int { return C.int(m.Element) }
func (m Machine) order() C.int   { return C.int(m.Order) }

// RMSNorm launches rms_norm for x [rows, d].
func (m Machine) RMSNorm(x, w, y, rstd *Memory, rows, d int, eps float64) error {
	return failure(C.emulate_rms_norm(m.element(), m.order(), x.at(), w.at(), y.at(), rstd.floats(), C.int64_t(rows), C.int64_t(d), C.double(eps)))
}

// RMSNormBackward launches rms_norm_backward.
func (m Machine) RMSNormBackward(g, x, w, rstd, dx *Memory, rows, d int) error {
	return failure(C.emulate_rms_norm_backward(m.element(), m.order(), g.at(), x.at(), w.at(), rstd.floats(), dx.at(), C.int64_t(rows), C.int64_t(d)))
}

// WeightParts is how many rows of sums RMSNormWeight gives.
func WeightParts(rows int) int { return int(C.emulate_weight_parts(C.int64_t(rows))) }

// RMSNormWeight launches rms_norm_weight.
func (m Machine) RMSNormWeight(g, x, rstd, parts *Memory, rows, d int) error {
	return failure(C.emulate_rms_norm_weight(m.element(), m.order(), g.at(), x.at(), rstd.floats(), parts.floats(), C.int64_t(rows), C.int64_t(d)))
}

// SwiGLU launches swiglu.
func (m Machine) SwiGLU(gate, up, y *Memory, n int) error {
	return failure(C.emulate_swiglu(m.element(), m.order(), gate.at(), up.at(), y.at(), C.int64_t(n)))
}

// SwiGLUBackward launches swiglu_backward.
func (m Machine) SwiGLUBackward(g, gate, up, dgate, dup *Memory, n int) error {
	return failure(C.emulate_swiglu_backward(m.element(), m.order(), g.at(), gate.at(), up.at(), dgate.at(), dup.at(), C.int64_t(n)))
}

// Rotation is the shape of what Rotate turns: see emulator.h.
type Rotation struct {
	Batch, Positions, Half   int
	Heads, KeyHeads          int // of x and of k, which is none with 0
	HeadsFirst, SharedAngles bool
}

// Rotate launches rotate, to y and kTo; transposed it gives the gradient.
func (m Machine) Rotate(r Rotation, x, y, k, kTo, cos, sin *Memory, transposed bool) error {
	return failure(C.emulate_rotate(m.element(), m.order(), x.at(), y.at(), C.int(r.Heads), k.at(), kTo.at(), C.int(r.KeyHeads),
		cos.at(), sin.at(), number(r.SharedAngles), C.int64_t(r.Batch), C.int64_t(r.Positions), C.int64_t(r.Half), number(r.HeadsFirst), number(transposed)))
}

func number(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// CrossEntropy launches cross_entropy for int64 targets [rows].
func (m Machine) CrossEntropy(logits, targets, losses *Memory, rows, vocab int, gradient bool) error {
	return failure(C.emulate_cross_entropy(m.element(), m.order(), logits.at(), (*C.int64_t)(targets.at()), losses.floats(), C.int64_t(rows), C.int64_t(vocab), number(gradient)))
}

// AddLowRank launches add_low_rank.
func (m Machine) AddLowRank(y, h, up, out *Memory, rows, cols, rank int, scale float64) error {
	return failure(C.emulate_add_low_rank(m.element(), m.order(), y.at(), h.floats(), up.floats(), out.at(), C.int64_t(rows), C.int64_t(cols), C.int64_t(rank), C.double(scale)))
}

// Format is how a quantised matrix lies in memory, numbered as arguments.h has it.
type Format int

// The formats.
const (
	NF4 Format = iota
	FP4
	Int8Rows
	Q4_0
	Q4_K
)

func (f Format) String() string { return [...]string{"nf4", "fp4", "int8_rows", "q4_0", "q4_k"}[f] }

// Matrix is a quantised matrix: see QuantMatrix in arguments.h.
type Matrix struct {
	Format                           Format
	Codes, Plain, Nested, Map, Outer *Memory
	Offset                           float32
	Shift, OuterShift                int
	Rows, Cols                       int
}

func (q Matrix) c() *C.emulated_matrix {
	return &C.emulated_matrix{
		format: C.int(q.Format), codes: q.Codes.at(), plain: q.Plain.at(), nested: q.Nested.at(), map_: q.Map.at(), outer: q.Outer.at(),
		offset: C.float(q.Offset), shift: C.int(q.Shift), outer_shift: C.int(q.OuterShift), rows: C.int64_t(q.Rows), cols: C.int64_t(q.Cols),
	}
}

// Dequantise launches the format's dequantise.
func (m Machine) Dequantise(q Matrix, y *Memory) error {
	return failure(C.emulate_dequantise(m.element(), m.order(), q.c(), y.at()))
}

// Multiply launches the format's multiply for x [few, q.Cols].
func (m Machine) Multiply(q Matrix, x, y *Memory, few int) error {
	return failure(C.emulate_multiply(m.element(), m.order(), q.c(), x.at(), y.at(), C.int64_t(few)))
}
