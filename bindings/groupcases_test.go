package bindings_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"gopeft/bindings"
)

// groupCase is something that all ranks do, each of which compares with what it computes alone.
type groupCase struct {
	name string
	run  func(s *Scope, r *rank) error
}

var groupCases = []groupCase{
	{"sums", sums}, {"broadcast", broadcast}, {"gather", gather}, {"hash", hash}, {"gradients", gradients}, {"gradients of two kinds", mixedGradients},
	{"own gradients again", ownGradients}, {"what a group refuses", refused},
}

// of is a list of numbers that each rank has of its own, small enough to be exact in any type.
func of(rank, n int) []float64 {
	v := make([]float64, n)
	for i := range v {
		v[i] = float64((rank+2)*(i%7) - 5)
	}
	return v
}

// holding is a tensor of v.
func holding(s *Scope, v []float64, d bindings.DType) Tensor {
	var raw []byte
	for _, x := range v {
		raw = binary.NativeEndian.AppendUint64(raw, math.Float64bits(x))
	}
	return s.To(s.FromRaw(raw, bindings.Double, int64(len(v))), d)
}

func holds(s *Scope, t Tensor, want []float64) error {
	if got := s.To(t, bindings.Double).Float64s(); !slices.Equal(got, want) {
		return fmt.Errorf("%s holds %v, want %v", t, got, want)
	}
	return nil
}

var groupTypes = []bindings.DType{bindings.Int64, bindings.Double, Float, bindings.BFloat16, bindings.Half}

func sums(s *Scope, r *rank) error {
	for _, d := range groupTypes {
		for _, n := range []int{0, 1, 33, 5000} {
			want := make([]float64, n)
			for rank := range r.Size {
				for i, x := range of(rank, n) {
					want[i] += x
				}
			}
			t := holding(s, of(r.Rank, n), d)
			if err := r.group.Sum(context.Background(), t); err != nil {
				return err
			}
			if err := holds(s, t, want); err != nil {
				return fmt.Errorf("%s: %w", d, err)
			}
		}
	}
	return nil
}

func broadcast(s *Scope, r *rank) error {
	for _, d := range groupTypes {
		for root := range r.Size {
			t := holding(s, of(r.Rank, 9), d)
			if err := r.group.Broadcast(context.Background(), t, root); err != nil {
				return err
			}
			if err := holds(s, t, of(root, 9)); err != nil {
				return fmt.Errorf("%s of rank %d: %w", d, root, err)
			}
		}
	}
	return nil
}

func gather(s *Scope, r *rank) error {
	for _, d := range groupTypes {
		var want []float64
		for rank := range r.Size {
			want = append(want, of(rank, 6)...)
		}
		whole := s.Zeros([]int64{int64(r.Size), 6}, d, CPU)
		if err := r.group.Gather(context.Background(), whole, holding(s, of(r.Rank, 6), d)); err != nil {
			return err
		}
		if err := holds(s, s.Reshape(whole, -1), want); err != nil {
			return fmt.Errorf("%s: %w", d, err)
		}
	}
	return nil
}

func hash(s *Scope, r *rank) error {
	a, b := holding(s, of(0, 11), Float), holding(s, of(1, 3), bindings.BFloat16)
	want := s.Hash([]Tensor{a, b})
	mine := s.FromInt64s([]int64{int64(want)}, 1)
	all := s.Zeros([]int64{int64(r.Size), 1}, bindings.Int64, CPU)
	if err := r.group.Gather(context.Background(), all, mine); err != nil {
		return err
	}
	for _, h := range all.Int64s() {
		if uint64(h) != want {
			return fmt.Errorf("the same bits give %x and %x", h, want)
		}
	}
	bits := a.Raw()
	bits[len(bits)-1] ^= 1
	for name, list := range map[string][]Tensor{
		"a bit of another": {s.FromRaw(bits, Float, 11), b}, "another order": {b, a}, "one less": {a}, "none": nil,
		"a tensor in two parts": {s.Narrow(a, 0, 0, 5), s.Narrow(a, 0, 5, 6), b}, "a zero at the end": {holding(s, append(of(0, 11), 0), Float), b},
	} {
		if s.Hash(list) == want {
			return fmt.Errorf("%s: the same number", name)
		}
	}
	if s.Hash([]Tensor{s.Clone(a), b}) != want {
		return errors.New("a copy: another number")
	}
	return nil
}

// refused are errors that leave the group as it was.
func refused(s *Scope, r *rank) error {
	closed, err := bindings.OpenStore(bindings.StoreOptions{Host: "127.0.0.1", Port: r.Port, Timeout: r.options("").Timeout})
	if err != nil {
		return err
	}
	closed.Close()
	for name, err := range map[string]error{
		"NCCL at a closed store": s.JoinNCCL(r.group, closed, bindings.GroupOptions{Rank: r.Rank, Size: r.Size}),
		"NCCL without CUDA":      s.JoinNCCL(r.group, r.store, bindings.GroupOptions{Rank: r.Rank, Size: r.Size}),
	} {
		if err == nil {
			return fmt.Errorf("%s: no error", name)
		}
	}
	return sums(s, r)
}
