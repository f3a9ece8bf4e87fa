// Package paging asks for the pages of mapped memory before they are computed with and gives them back afterwards, in
// backward passes too. Its functions mirror paging.h's one to one: those that can fail return libtorch's message, "" for
// success. Only bindings uses it.
//
// It is apart from csrc so that neither is compiled again for a change of the other.
package paging

/*
#cgo CXXFLAGS: -std=c++17 -O2 -g0 -Wno-deprecated-declarations
#cgo LDFLAGS: -lstdc++ -ltorch -lc10 -ltorch_cpu
#include <stdlib.h>
#include "paging.h"
*/
import "C"

import (
	"unsafe"

	"gopeft/bindings/csrc"
)

// Pager is a handle on what paging.h describes.
type Pager = unsafe.Pointer

func message(c *C.char) string {
	if c == nil {
		return ""
	}
	defer C.free(unsafe.Pointer(c))
	return C.GoString(c)
}

// New makes a pager of no units.
func New() (Pager, string) {
	var p C.gp_pager
	msg := message(C.gp_pager_new(&p))
	return Pager(p), msg
}

// Free ends it.
func Free(p Pager) { C.gp_pager_free(C.gp_pager(p)) }

// Lay says what the units are, each ranges of whole pages. The memory is not Go's.
func Lay(p Pager, units [][][]byte) string {
	var starts, sizes []C.uint64_t
	counts := make([]C.int64_t, len(units))
	for i, ranges := range units {
		counts[i] = C.int64_t(len(ranges))
		for _, r := range ranges {
			starts = append(starts, C.uint64_t(uintptr(unsafe.Pointer(unsafe.SliceData(r)))))
			sizes = append(sizes, C.uint64_t(len(r)))
		}
	}
	return message(C.gp_pager_lay(C.gp_pager(p), unsafe.SliceData(starts), unsafe.SliceData(sizes), unsafe.SliceData(counts), C.int(len(units))))
}

// Turn asks for two units and gives back the others.
func Turn(p Pager, at, next int) string {
	return message(C.gp_pager_turn(C.gp_pager(p), C.int64_t(at), C.int64_t(next)))
}

// TurnAtGradient turns once the backward pass has t's gradient.
func TurnAtGradient(p Pager, t csrc.Tensor, at, next int) string {
	return message(C.gp_pager_turn_at_gradient(C.gp_pager(p), C.gp_tensor(t), C.int64_t(at), C.int64_t(next)))
}
