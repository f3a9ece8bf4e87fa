//go:build !amd64

package classic

const haveKernels = false

func dotKernel(*float32, *float64, int) float64   { return 0 }
func axpyKernel(float64, *float32, *float64, int) {}
