package bindings_test

import (
	"context"
	"fmt"
	"math"

	"gopeft/bindings"
)

// user says whether a rank's loss of a pass depends on a parameter.
type user struct {
	what string
	uses func(rank, pass, passes int) bool
}

var users = []user{
	{"used by all", func(int, int, int) bool { return true }},
	{"used by one rank", func(rank, _, _ int) bool { return rank == 1 }},
	{"used by none", func(int, int, int) bool { return false }},
	{"used in the first pass", func(_, pass, _ int) bool { return pass == 0 }},
	{"used in the last pass", func(_, pass, passes int) bool { return pass == passes-1 }},
	{"used by turns", func(rank, pass, _ int) bool { return rank%2 == pass%2 }},
	{"used by the last rank's last pass", func(rank, pass, passes int) bool { return rank > 0 && pass == passes-1 }},
}

// sizes are those of the parameters: some buckets hold one, some several.
var sizes = [][]int64{{4}, {300}, {2, 3}, {1}, {17}, {64}, {5}}

func leaves(s *Scope, d func(i int) bindings.DType) []Tensor {
	var ps []Tensor
	for i, shape := range sizes {
		n := int64(1)
		for _, d := range shape {
			n *= d
		}
		p := s.To(s.Reshape(s.MulScalar(s.Arange(1, n+1, Float, CPU), 0.3/float64(n)), shape...), d(i))
		s.SetRequiresGrad(p, true)
		ps = append(ps, p)
	}
	return ps
}

// lossOf is what a rank computes in a pass. Each parameter comes twice, once in what may be computed again.
func lossOf(s *Scope, ps []Tensor, rank, pass, passes int, recompute bool) Tensor {
	loss := s.Scalar(0, Float, CPU)
	for i, p := range ps {
		if !users[i].uses(rank, pass, passes) {
			continue
		}
		factor := s.Full(p.Shape(), float64(1+rank)+0.25*float64(pass)+0.5*float64(i), p.DType(), CPU)
		part := func(s *Scope, in []Tensor) Tensor { return s.Tanh(s.Mul(s.Tanh(s.Mul(p, in[0])), p)) }
		var y Tensor
		if recompute {
			y = s.Checkpoint([]Tensor{factor}, part)
		} else {
			y = part(s, []Tensor{factor})
		}
		loss = s.Add(loss, s.To(s.Sum(s.Mul(y, p)), Float))
	}
	return loss
}

// expected are the sums of all ranks' gradients, computed here; nil where no rank has one. idle is a rank that has no rows.
func expected(s *Scope, ps []Tensor, size, passes, idle int) [][]float64 {
	want := make([][]float64, len(ps))
	for rank := range size {
		for pass := range passes {
			loss := lossOf(s, ps, rank, pass, passes, false)
			if rank == idle || !loss.RequiresGrad() {
				continue
			}
			for i, g := range s.Gradients(loss, Tensor{}, ps) {
				if !g.Defined() {
					continue
				}
				if want[i] == nil {
					want[i] = make([]float64, g.Numel())
				}
				for k, v := range s.To(g, bindings.Double).Float64s() {
					want[i][k] += v
				}
			}
		}
	}
	return want
}

func gradients(s *Scope, r *rank) error {
	return compareGradients(s, r, func(int) bindings.DType { return Float }, 1e-6)
}

func mixedGradients(s *Scope, r *rank) error {
	kinds := []bindings.DType{Float, bindings.BFloat16, bindings.Double}
	return compareGradients(s, r, func(i int) bindings.DType { return kinds[i/2%3] }, 0.03)
}

func compareGradients(s *Scope, r *rank, d func(i int) bindings.DType, tol float64) error {
	for _, bucket := range []int64{1, 64, 1300, 25 << 20, 0} {
		for _, recompute := range []bool{false, true} {
			err := func() error {
				s := s.Child()
				defer s.Close()
				ps := leaves(s, d)
				all, err := s.SumGradientsBy(r.group, ps, bucket)
				if err != nil {
					return err
				}
				defer all.Close()
				for step, c := range []struct{ passes, idle int }{{1, -1}, {2, -1}, {3, 1}, {2, 0}} {
					if err := oneStep(s, r, all, ps, c.passes, c.idle, recompute, tol); err != nil {
						return fmt.Errorf("buckets of %d, recomputed %t, step %d: %w", bucket, recompute, step, err)
					}
				}
				return nil
			}()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func oneStep(s *Scope, r *rank, all *bindings.Gradients, ps []Tensor, passes, idle int, recompute bool, tol float64) error {
	s = s.Child()
	defer s.Close()
	want := expected(s, ps, r.Size, passes, idle)
	if err := all.Begin(); err != nil {
		return err
	}
	for pass := range passes {
		if r.Rank == idle {
			break
		}
		if pass == passes-1 {
			if err := all.Last(); err != nil {
				return err
			}
		}
		if loss := lossOf(s, ps, r.Rank, pass, passes, recompute); loss.RequiresGrad() {
			s.Backward(loss)
		}
	}
	if err := all.Sum(context.Background()); err != nil {
		return err
	}
	return sameGradients(s, ps, want, tol)
}

func sameGradients(s *Scope, ps []Tensor, want [][]float64, tol float64) error {
	for i, p := range ps {
		g := s.Grad(p)
		if g.Defined() != (want[i] != nil) {
			return fmt.Errorf("one %s has a gradient: %t", users[i].what, g.Defined())
		}
		if !g.Defined() {
			continue
		}
		for k, got := range s.To(g, bindings.Double).Float64s() {
			if w := want[i][k]; !(math.Abs(got-w) <= tol*math.Max(1, math.Abs(w))) {
				return fmt.Errorf("the gradient of one %s is %v at %d, want %v", users[i].what, got, k, w)
			}
		}
	}
	return nil
}

// ownGradients are what parameters have again when their sums are closed.
func ownGradients(s *Scope, r *rank) error {
	ps := leaves(s, func(int) bindings.DType { return Float })
	all, err := s.SumGradients(r.group, ps)
	if err != nil {
		return err
	}
	if err := oneStep(s, r, all, ps, 2, -1, false, 1e-6); err != nil {
		return err
	}
	all.Close()
	for _, p := range ps {
		if s.Grad(p).Defined() {
			return fmt.Errorf("%s keeps a part of what is closed", p)
		}
	}
	s.Backward(lossOf(s, ps, 1, 0, 1, false)) // as rank 1, on all: nothing is summed
	want := make([][]float64, len(ps))
	for i, g := range s.Gradients(lossOf(s, ps, 1, 0, 1, false), Tensor{}, ps) {
		if g.Defined() {
			want[i] = s.To(g, bindings.Double).Float64s()
		}
	}
	return sameGradients(s, ps, want, 1e-6)
}
