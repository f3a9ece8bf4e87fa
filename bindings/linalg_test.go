package bindings_test

import (
	"errors"
	"math"
	"testing"

	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
)

// TestDecompositions: [[3, 0], [4, 5]] has the singular values √45 and √5 and, but for signs, R = [[5, 4], [0, 3]].
func TestDecompositions(t *testing.T) {
	close := func(what string, got bindings.Tensor, want ...float64) {
		t.Helper()
		for i, v := range got.Float32s() {
			if math.Abs(float64(v)-want[i]) > 1e-5 {
				t.Errorf("%s[%d] is %v, want %v", what, i, v, want[i])
			}
		}
	}
	bindingstest.Do(t, func(s *bindings.Scope) error {
		a := s.FromFloat32s([]float32{3, 0, 4, 5}, 2, 2)
		u, sigma, v := s.SVD(a)
		close("sigma", sigma, math.Sqrt(45), math.Sqrt(5))
		close("u·sigma·vᵀ", s.Contiguous(s.MatMul(s.Mul(u, sigma), s.Transpose(v, 0, 1))), 3, 0, 4, 5)
		q, r := s.QR(a)
		close("|r|", s.Contiguous(s.Abs(r)), 5, 4, 0, 3)
		close("q·r", s.Contiguous(s.MatMul(q, r)), 3, 0, 4, 5)
		wide := s.FromFloat32s([]float32{1, 2, 2, 2, 1, -2}, 2, 3)
		u, sigma, v = s.SVD(wide)
		if u.Size(1) != 2 || sigma.Numel() != 2 || v.Size(0) != 3 || v.Size(1) != 2 {
			t.Errorf("a wide matrix gives u %v, sigma %v, v %v", u.Shape(), sigma.Shape(), v.Shape())
		}
		close("x of x·a = b", s.Contiguous(s.SolveRight(a, s.FromFloat32s([]float32{11, 10}, 1, 2))), 1, 2)
		return nil
	})
	for op, run := range map[string]func(s *bindings.Scope, a bindings.Tensor){
		"svd": func(s *bindings.Scope, a bindings.Tensor) { s.SVD(a) }, "linalg_qr": func(s *bindings.Scope, a bindings.Tensor) { s.QR(a) },
		"linalg_solve": func(s *bindings.Scope, a bindings.Tensor) { s.SolveRight(a, a) },
	} {
		err := bindings.Do(t.Context(), func(s *bindings.Scope) error {
			run(s, s.FromFloat32s([]float32{1, 2, 3}, 3))
			return nil
		})
		var failed *bindings.OpError
		if !errors.As(err, &failed) || failed.Op != op {
			t.Errorf("%s of a vector: %v", op, err)
		}
	}
}
