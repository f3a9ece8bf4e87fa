package bindings

// The ways to make weights, for tests that compare them.
const (
	QuantComposed = quantComposed
	QuantPortable = quantPortable
	QuantFastest  = quantFastest
)

// Fuses reports whether our own kernels serve x on this CPU.
func (s *Scope) Fuses(x Tensor) bool { return s.fused(x, Tensor{}, Tensor{}, Tensor{}) }

// DequantiseBy is Dequantise by a way of the caller's choice.
func (s *Scope) DequantiseBy(q *Quantised, d DType, way int) Tensor { return s.dequantise(q, d, way) }

// QuantRowsBy is QuantRows by a way of the caller's choice.
func (s *Scope) QuantRowsBy(q *Quantised, ids Tensor, d DType, way int) Tensor {
	return s.quantRows(q, ids, d, way)
}

// ScatterGradientsBy is ScatterGradients with buckets of a size of the caller's choice, in bytes.
func (s *Scope) ScatterGradientsBy(g *Group, params, own []Tensor, from []int64, bucket int64) (*GradientParts, error) {
	return s.scatterGradients(g, params, own, from, bucket)
}

// SumGradientsBy is SumGradients with buckets of a size of the caller's choice, in bytes.
func (s *Scope) SumGradientsBy(g *Group, params []Tensor, bucket int64) (*Gradients, error) {
	return s.sumGradients(g, params, bucket)
}
