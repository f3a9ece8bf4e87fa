package bindings

import lib "github.com/sugarme/gotch/libtch"

// SVD is the singular value decomposition of a [m, n] in float32 or float64: a = u·diag(sigma)·vᵀ with u [m, k], sigma [k], largest
// first, and v [n, k], where k is the smaller of m and n. The sign that a column of u shares with that of v is left open.
func (s *Scope) SVD(a Tensor) (u, sigma, v Tensor) {
	s.buf.out[1], s.buf.out[2] = nil, nil
	lib.AtgSvd(s.prep(), lib.Ctensor(a.p), 1, 1)
	second, third := s.buf.out[1], s.buf.out[2]
	u = s.take("svd", a)
	return u, s.adopt(second), s.adopt(third)
}

// QR is the decomposition of a [m, n] in float32 or float64 into q [m, k] with orthonormal columns and an upper triangular r [k, n],
// where k is the smaller of m and n.
func (s *Scope) QR(a Tensor) (q, r Tensor) {
	s.buf.out[1] = nil
	lib.AtgLinalgQr(s.prep(), lib.Ctensor(a.p), "reduced")
	second := s.buf.out[1]
	q = s.take("linalg_qr", a)
	return q, s.adopt(second)
}

// SolveRight is the x with x·a = b, for square matrices a [..., n, n] and b [..., m, n] in float32 or float64.
func (s *Scope) SolveRight(a, b Tensor) Tensor {
	lib.AtgLinalgSolve(s.prep(), lib.Ctensor(a.p), lib.Ctensor(b.p), 0)
	return s.take("linalg_solve", a, b)
}
