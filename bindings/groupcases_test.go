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
	{"own gradients again", ownGradients}, {"gradients in parts", gradientParts}, {"shards", shards}, {"shards that are trained", trainedShards}, {"what a group refuses", refused},
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

// shards holds units of several types with the others, and takes them in turn forward and backward.
func shards(s *Scope, r *rank) error {
	h, err := bindings.NewShards(r.Rank, r.Size, func() *bindings.Group { return r.group })
	if err != nil {
		return err
	}
	defer h.Close()
	sizes := []int{1, 30000, 77}
	types := []bindings.DType{bindings.BFloat16, Float, bindings.Int8}
	units := make([][]Tensor, 4)
	for u := range units {
		for k, n := range sizes {
			units[u] = append(units[u], holding(s, of(u, n), types[k]))
		}
		h.Add(s, bindings.CPU, units[u])
	}
	whole := func(u int) error {
		for k, n := range sizes {
			if err := holds(s, units[u][k], of(u, n)); err != nil {
				return fmt.Errorf("unit %d: %w", u, err)
			}
		}
		return nil
	}
	for _, turn := range [][2]int{{0, 1}, {1, 2}, {2, 3}, {3, 2}, {2, 1}, {0, 3}, {3, 0}, {3, 3}} {
		if h.Turn(s, turn[0], turn[1]); turn[0] == 0 { // again costs nothing
			h.Turn(s, turn[0], turn[1])
		}
		if err := whole(turn[0]); err != nil {
			return fmt.Errorf("turned to %v: %w", turn, err)
		}
	}
	if r.Size > 1 && whole(1) == nil {
		return errors.New("a unit that was left is still whole")
	}
	const page, bytes = 4096, 4 * (4*30000 + 2*64 + 77)
	if held := h.Held(); held < bytes/int64(r.Size) || held > bytes/int64(r.Size)+5*page {
		return fmt.Errorf("%d bytes are held", held)
	}
	// Products by unit 0 and then unit 2, of which the backward pass needs unit 2 again, and then unit 0.
	weight := func(u int) Tensor { return s.Reshape(units[u][1], 1, -1) }
	x := s.Reshape(holding(s, of(0, 30000), Float), 1, -1)
	s.SetRequiresGrad(x, true)
	h.Turn(s, 0, 2)
	y := s.Mul(x, weight(0))
	h.TurnAtGradient(s, y, 0, 1)
	h.Turn(s, 2, 1)
	z := s.Mul(y, weight(2))
	h.TurnAtGradient(s, z, 2, 3)
	h.Turn(s, 1, 3)
	s.Backward(s.Sum(z))
	want := of(0, 30000)
	for i, w := range of(2, 30000) {
		want[i] *= w
	}
	return holds(s, s.Reshape(s.Grad(x), -1), want)
}
