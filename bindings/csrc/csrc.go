// Package csrc is gopeft's own C++ over libtorch: what gotch does not offer (shim.h), and operations that are faster
// than libtorch's (kernels.h, gpu.h, gpu_kernels.h, lmloss.h) or save memory (checkpoint.h, quantised.h).
//
// It is apart from package bindings so that editing Go there does not recompile C++. Its functions mirror
// the headers' one to one: those that can fail return libtorch's message, "" for success. Only bindings uses it.
//
// Where things are:
//
//	tensor.cc autograd.cc machine.cc optim.cc   the functions of shim.h
//	kernels_*.cc                                one fused operation each (kernels.h), as autograd functions
//	gpu.h gpu.cc                                what a GPU computes in few kernels of libtorch's
//	gpu_*                                       what it computes by kernels of our own, and how they are launched
//	nvrtc launch                                those kernels and their compiler; grids and arguments: packages without libtorch
//	gemm.h gemm*.cc                             matrix products: cut into blocks, packed, multiplied tile by tile
//	quant.h quant*.cc                           weights in 4 to 8 bits: rounded, made again, packed for products
//	cpu.cc kernel_table.h                       which path the CPU takes (AVX-512, AVX2, none), and what a path is
//	avx512.cc avx2.cc vec_kernels.h             a path: all of vec_*.h compiled for it, and its table
//	vec_avx512.h vec_avx2.h vec.h               16 elements at a time: on each path, and on top of them
//	vec_*.h                                     the rest is the vector code of kernels_*.cc, attention pass by pass
//	attention.h dropout.h parallel.h typed.h    what vector code shares that is not vector code
//	libtorch.h                                  what differs between libtorch's versions
//	boundary.h handles.h fused.h                tensors and exceptions at the boundary to C; what autograd functions share
package csrc

//go:generate go run ./internal/gen -o calls.go shim.h kernels.h gpu.h gpu_kernels.h lmloss.h quantised.h

/*
#cgo CXXFLAGS: -std=c++17 -O3 -g0 -DGOPEFT_OWN_CXX -Wno-deprecated-declarations -fopenmp
#cgo LDFLAGS: -lstdc++ -ltorch -lc10 -ltorch_cpu -lgomp
#include <stdlib.h>
*/
import "C"

import (
	"unsafe"

	_ "gopeft/bindings/csrc/launch" // its headers are compiled here
)

// Tensor is an at::Tensor* (gotch's libtch.Ctensor is the same pointer).
type Tensor = unsafe.Pointer

func cbool(b bool) C.int {
	if b {
		return 1
	}
	return 0
}

// message takes over a C string that a C function returned.
func message(c *C.char) string {
	if c == nil {
		return ""
	}
	defer C.free(unsafe.Pointer(c))
	return C.GoString(c)
}

// Malloc is C memory: unlike Go's, pointers into it may be kept and written by libtorch.
func Malloc(bytes uintptr) unsafe.Pointer { return C.malloc(C.size_t(bytes)) }

// Free gives back what Malloc, or a C function that allocates, returned.
func Free(p unsafe.Pointer) { C.free(p) }
