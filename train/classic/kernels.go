package classic

// The two inner loops of the regression: float32 data against float64
// parameters and accumulators, which keeps the coefficients to the last digits
// at the memory traffic of float32.

// lanes is the number of elements per iteration of the assembly kernels.
const lanes = 16

// dot returns Σ x[i]·w[i].
func dot(x []float32, w []float64) float64 {
	w = w[:len(x)]
	n, sum := 0, 0.0
	if haveKernels && len(x) >= lanes {
		n = len(x) &^ (lanes - 1)
		sum = dotKernel(&x[0], &w[0], n)
	}
	return sum + dotGeneric(x[n:], w[n:])
}

// axpy adds a·x to y.
func axpy(a float64, x []float32, y []float64) {
	y = y[:len(x)]
	n := 0
	if haveKernels && len(x) >= lanes {
		n = len(x) &^ (lanes - 1)
		axpyKernel(a, &x[0], &y[0], n)
	}
	axpyGeneric(a, x[n:], y[n:])
}

func dotGeneric(x []float32, w []float64) float64 {
	w = w[:len(x)]
	// Independent sums, so that the additions need not wait for each other.
	var s0, s1, s2, s3 float64
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s0 += float64(x[i]) * w[i]
		s1 += float64(x[i+1]) * w[i+1]
		s2 += float64(x[i+2]) * w[i+2]
		s3 += float64(x[i+3]) * w[i+3]
	}
	for ; i < len(x); i++ {
		s0 += float64(x[i]) * w[i]
	}
	return (s0 + s1) + (s2 + s3)
}

func axpyGeneric(a float64, x []float32, y []float64) {
	y = y[:len(x)]
	for i, v := range x {
		y[i] += a * float64(v)
	}
}
