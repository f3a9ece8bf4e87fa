package bindings_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"gopeft/bindings"
)

// gradientParts are the sums of gradients of which each rank has its part, and bits of those that are whole.
func gradientParts(s *Scope, r *rank) error {
	for _, bucket := range []int64{1, 64, 1300, 25 << 20, 0} {
		for _, recompute := range []bool{false, true} {
			if err := inParts(s, r, bucket, recompute); err != nil {
				return fmt.Errorf("buckets of %d, recomputed %t: %w", bucket, recompute, err)
			}
		}
	}
	return nil
}

func inParts(s *Scope, r *rank, bucket int64, recompute bool) error {
	s = s.Child()
	defer s.Close()
	ps := leaves(s, func(int) bindings.DType { return Float })
	own, from := make([]Tensor, len(ps)), make([]int64, len(ps))
	for i, p := range ps {
		n, size := p.Numel(), int64(r.Size)
		from[i] = n * int64(r.Rank) / size
		own[i] = s.Zeros([]int64{n*int64(r.Rank+1)/size - from[i]}, Float, CPU)
	}
	for step, c := range []struct{ passes, idle int }{{1, -1}, {2, -1}, {3, 1}, {2, 0}, {1, -1}} {
		want := expected(s, ps, r.Size, c.passes, c.idle)
		whole, err := s.SumGradientsBy(r.group, ps, bucket)
		if err != nil {
			return err
		}
		if err := oneStep(s, r, whole, ps, c.passes, c.idle, recompute, 1e-6); err != nil {
			return err
		}
		sums := make([][]float32, len(ps))
		for i, p := range ps {
			if g := s.Grad(p); g.Defined() {
				sums[i] = g.Float32s()
			}
		}
		whole.Close()
		parts, err := s.ScatterGradientsBy(r.group, ps, own, from, bucket)
		if err != nil {
			return err
		}
		if err := partsOfStep(s, r, parts, ps, c.passes, c.idle, recompute); err != nil {
			return err
		}
		for i, g := range parts.Own() {
			if g.Defined() != (want[i] != nil) {
				return fmt.Errorf("step %d: one %s has a gradient: %t", step, users[i].what, g.Defined())
			}
			if !g.Defined() {
				continue
			}
			got := g.Float32s()
			if c.passes == 1 && !slices.Equal(got, sums[i][from[i]:from[i]+int64(len(got))]) {
				return fmt.Errorf("step %d: the part of one %s has other bits than the whole", step, users[i].what)
			}
			for k, v := range got {
				if w := want[i][from[i]+int64(k)]; !(math.Abs(float64(v)-w) <= 1e-6*math.Max(1, math.Abs(w))) {
					return fmt.Errorf("step %d: the gradient of one %s is %v at %d of its part, want %v", step, users[i].what, v, k, w)
				}
			}
		}
		parts.Close()
		for _, p := range ps {
			if s.Grad(p).Defined() {
				return fmt.Errorf("%s keeps a gradient", p)
			}
		}
	}
	from[1] = 300
	if _, err := s.ScatterGradientsBy(r.group, ps, own, from, bucket); err == nil && own[1].Numel() > 0 {
		return errors.New("a part that lies behind its parameter is taken")
	}
	return nil
}

func partsOfStep(s *Scope, r *rank, parts *bindings.GradientParts, ps []Tensor, passes, idle int, recompute bool) error {
	for range 2 { // a step begins anew
		if err := parts.Begin(); err != nil {
			return err
		}
		for pass := range passes {
			if loss := lossOf(s, ps, r.Rank, pass, passes, recompute); r.Rank != idle && loss.RequiresGrad() {
				s.Backward(loss)
			}
			if err := parts.Pass(context.Background()); err != nil {
				return err
			}
		}
	}
	return nil
}

// trainedShards are weights of which each rank changes its part: whoever turns to them next reads what all have written.
func trainedShards(s *Scope, r *rank) error {
	h, err := bindings.NewShards(r.Rank, r.Size, func() *bindings.Group { return r.group })
	if err != nil {
		return err
	}
	defer h.Close()
	const n = 5000
	unit := []Tensor{holding(s, of(1, 100), Float), holding(s, of(2, n), Float)}
	w := unit[1]
	s.SetRequiresGrad(w, true)
	h.Add(s, bindings.CPU, unit)
	if !unit[1].RequiresGrad() || unit[0].RequiresGrad() {
		return errors.New("what is trained is another than before")
	}
	held := int64(0)
	for rank := range r.Size {
		from, size := h.Span(s, 0, 1, rank)
		if from != held || size < 0 || from%64 != 0 && size > 0 {
			return fmt.Errorf("rank %d holds %d from %d, where %d are held before it", rank, size, from, held)
		}
		held += size
	}
	if held != n {
		return fmt.Errorf("%d of %d elements are held", held, n)
	}
	want := of(2, n)
	for step := range 3 {
		h.Turn(s, 0, 1)
		if err := holds(s, s.Detach(unit[1]), want); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		s.Backward(s.Sum(s.Mul(unit[1], unit[1])))
		from, size := h.Span(s, 0, 1, r.Rank)
		own := func(t Tensor) Tensor { return s.Narrow(s.Reshape(s.Detach(t), -1), 0, from, size) }
		s.NoGrad(func() { s.Copy(own(unit[1]), s.MulScalar(own(s.Grad(unit[1])), -1)) })
		s.SetGrad(unit[1], Tensor{})
		h.Turn(s, 1, 1)
		for i := range want {
			want[i] *= -2
		}
	}
	return nil
}
