// Package lanes runs on the CPU what csrc/offload tells a GPU to do: copies and computations in two lanes that go on in any
// order their marks allow. Its tests need no GPU. What it cannot show is that a GPU's streams and events do as they are told.
package lanes

/*
#cgo CXXFLAGS: -std=c++17 -O2
#cgo LDFLAGS: -lstdc++
#include <stdlib.h>
#include "lanes.h"
*/
import "C"

import (
	"errors"
	"unsafe"

	_ "gopeft/bindings/csrc/offload" // its header is compiled here
)

// Turn is a unit to compute with, and the one that comes next.
type Turn struct{ At, Next int }

// What the lanes forget to wait for.
const (
	Nothing = iota
	Copies
	Computations
)

// Run issues turns and lets the lanes run what comes of them, in an order of chance.
func Run(seed uint, units int, turns []Turn, forget int) error {
	flat := make([]C.int, 0, 2*len(turns))
	for _, t := range turns {
		flat = append(flat, C.int(t.At), C.int(t.Next))
	}
	msg := C.lanes_run(C.uint(seed), C.int(units), unsafe.SliceData(flat), C.int(len(turns)), C.int(forget))
	if msg == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(msg))
	return errors.New(C.GoString(msg))
}
