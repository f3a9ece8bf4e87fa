// Package offload brings weights from the host's memory to a device before they are computed with, in backward passes too.
// Its functions mirror offload.h's one to one: those that can fail return libtorch's message, "" for success. Only bindings
// uses it.
//
// It is apart from csrc so that neither is compiled again for a change of the other.
package offload

/*
#cgo CXXFLAGS: -std=c++17 -O2 -g0 -Wno-deprecated-declarations
#cgo LDFLAGS: -lstdc++ -ltorch -lc10 -ltorch_cpu
#include <stdlib.h>
#include "offload.h"
*/
import "C"

import (
	"unsafe"

	"gopeft/bindings/csrc"
)

// Offload is a handle on what offload.h describes.
type Offload = unsafe.Pointer

func message(c *C.char) string {
	if c == nil {
		return ""
	}
	defer C.free(unsafe.Pointer(c))
	return C.GoString(c)
}

// New offloads nothing yet, from a device.
func New(device int) (Offload, string) {
	var o C.gp_offload
	msg := message(C.gp_offload_new(&o, C.int(device)))
	return Offload(o), msg
}

// Free ends it.
func Free(o Offload) { C.gp_offload_free(C.gp_offload(o)) }

// Add makes a unit of tensors.
func Add(o Offload, list []csrc.Tensor) (pinned bool, msg string) {
	var p C.int
	msg = message(C.gp_offload_add(C.gp_offload(o), (*C.gp_tensor)(unsafe.SliceData(list)), C.int(len(list)), &p))
	return p != 0, msg
}

// Held is the bytes on the device.
func Held(o Offload) int64 { return int64(C.gp_offload_held(C.gp_offload(o))) }

// Turn has unit at computed with from now on, and next copied.
func Turn(o Offload, at, next int) string {
	return message(C.gp_offload_turn(C.gp_offload(o), C.int64_t(at), C.int64_t(next)))
}

// TurnAtGradient turns once the backward pass has t's gradient.
func TurnAtGradient(o Offload, t csrc.Tensor, at, next int) string {
	return message(C.gp_offload_turn_at_gradient(C.gp_offload(o), C.gp_tensor(t), C.int64_t(at), C.int64_t(next)))
}
