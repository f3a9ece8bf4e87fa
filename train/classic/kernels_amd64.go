package classic

import "golang.org/x/sys/cpu"

// haveKernels tells whether this processor runs the assembly.
var haveKernels = cpu.X86.HasAVX2 && cpu.X86.HasFMA

// dotKernel is dot for n > 0 elements, n a multiple of lanes.
//
//go:noescape
func dotKernel(x *float32, w *float64, n int) float64

// axpyKernel is axpy for n > 0 elements, n a multiple of lanes.
//
//go:noescape
func axpyKernel(a float64, x *float32, y *float64, n int)
