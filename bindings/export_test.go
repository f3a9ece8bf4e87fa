package bindings

// The ways to make weights, for tests that compare them.
const (
	QuantComposed = quantComposed
	QuantPortable = quantPortable
	QuantFastest  = quantFastest
)

// DequantiseBy is Dequantise by a way of the caller's choice.
func (s *Scope) DequantiseBy(q *Quantised, d DType, way int) Tensor { return s.dequantise(q, d, way) }

// QuantRowsBy is QuantRows by a way of the caller's choice.
func (s *Scope) QuantRowsBy(q *Quantised, ids Tensor, d DType, way int) Tensor {
	return s.quantRows(q, ids, d, way)
}
