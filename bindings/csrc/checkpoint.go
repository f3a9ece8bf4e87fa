package csrc

/*
#include "checkpoint.h"
#cgo noescape gp_checkpoint_begin
#cgo nocallback gp_checkpoint_begin
#cgo noescape gp_checkpoint_end
#cgo nocallback gp_checkpoint_end
#cgo noescape gp_checkpoint_dead
#cgo nocallback gp_checkpoint_dead
*/
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

// Recompute runs a checkpointed block again on its inputs, which it takes over; nil stands for none.
type Recompute func(inputs []Tensor) error

// CheckpointBegin starts dropping what autograd saves; id is a handle on a Recompute, deleted by
// CheckpointSweep when the graph is gone. *frame is nil when nothing is dropped, and id then still the caller's.
func CheckpointBegin(frame *unsafe.Pointer, inputs []Tensor, id cgo.Handle) string {
	return message(C.gp_checkpoint_begin(frame, (*C.gp_tensor)(unsafe.SliceData(inputs)), C.int(len(inputs)), C.uint64_t(id)))
}

// CheckpointEnd stops what CheckpointBegin started.
func CheckpointEnd(frame unsafe.Pointer) { C.gp_checkpoint_end(frame) }

// CheckpointSweep deletes the handles of graphs that are gone.
func CheckpointSweep() {
	for {
		var ids [64]C.uint64_t
		n := C.gp_checkpoint_dead(&ids[0], C.int(len(ids)))
		for _, id := range ids[:n] {
			cgo.Handle(id).Delete()
		}
		if int(n) < len(ids) {
			return
		}
	}
}

//export gpCheckpointRun
func gpCheckpointRun(id C.uint64_t, inputs *unsafe.Pointer, n C.int) *C.char {
	ts := append([]Tensor(nil), unsafe.Slice(inputs, int(n))...)
	if err := cgo.Handle(id).Value().(Recompute)(ts); err != nil {
		return C.CString(err.Error())
	}
	return nil
}
