package dist

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"gopeft/bindings"
)

// Stopping reports whether any rank's context has ended: every rank then stops at the same place. All ranks call it.
func (g *Group) Stopping(ctx context.Context, s *bindings.Scope) (bool, error) {
	if g == nil {
		return ctx.Err() != nil, nil
	}
	sums, err := g.SumInts(s, Vote(ctx.Err() != nil))
	return err == nil && sums[0] > 0, err
}

// Vote is 1 for yes, so that SumInts counts votes.
func Vote(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// Patient is a context that does not end with ctx where others take part: all of them stop at the same place, which
// Stopping says.
func (g *Group) Patient(ctx context.Context) context.Context {
	if g == nil {
		return ctx
	}
	return context.WithoutCancel(ctx)
}

// SumInts adds up the ranks' numbers.
func (g *Group) SumInts(s *bindings.Scope, v ...int64) ([]int64, error) {
	if g == nil {
		return v, nil
	}
	s = s.Child()
	defer s.Close()
	t := s.FromInt64s(v, int64(len(v)))
	if err := g.SumTensor(t); err != nil {
		return nil, err
	}
	return t.Int64s(), nil
}

// SumFloats adds up the ranks' numbers in double precision.
func (g *Group) SumFloats(s *bindings.Scope, v ...float64) ([]float64, error) {
	if g == nil || len(v) == 0 {
		return v, nil
	}
	s = s.Child()
	defer s.Close()
	raw := make([]byte, 0, 8*len(v))
	for _, x := range v {
		raw = binary.NativeEndian.AppendUint64(raw, math.Float64bits(x))
	}
	t := s.FromRaw(raw, bindings.Double, int64(len(v)))
	if err := g.SumTensor(t); err != nil {
		return nil, err
	}
	return t.Float64s(), nil
}

// SumTensor adds up the ranks' t, in place.
func (g *Group) SumTensor(t bindings.Tensor) error {
	if g == nil {
		return nil
	}
	return g.do(func(ctx context.Context) error { return g.group.Load().Sum(ctx, t) })
}

// SumRows adds up the ranks' rows, which are of one width, or nil where another rank computed them.
func (g *Group) SumRows(s *bindings.Scope, rows [][]float32) error {
	if g == nil {
		return nil
	}
	width := 0
	for _, r := range rows {
		width = max(width, len(r))
	}
	sums, err := g.Gather(s, int64(width))
	if err != nil {
		return err
	}
	for _, w := range sums {
		width = max(width, int(w[0]))
	}
	if width == 0 {
		return nil
	}
	flat := make([]float32, len(rows)*width)
	for i, r := range rows {
		copy(flat[i*width:], r)
	}
	if err := g.SumFloat32s(s, flat); err != nil {
		return err
	}
	for i := range rows {
		rows[i] = flat[i*width : (i+1)*width]
	}
	return nil
}

// SumFloat32s adds up the ranks' numbers, in place.
func (g *Group) SumFloat32s(s *bindings.Scope, v []float32) error {
	if g == nil || len(v) == 0 {
		return nil
	}
	s = s.Child()
	defer s.Close()
	t := s.FromFloat32s(v, int64(len(v)))
	if err := g.SumTensor(t); err != nil {
		return err
	}
	copy(v, t.Float32s())
	return nil
}

// Gather is every rank's numbers.
func (g *Group) Gather(s *bindings.Scope, v ...int64) ([][]int64, error) {
	if g == nil {
		return [][]int64{v}, nil
	}
	all := make([]int64, g.Size()*len(v))
	copy(all[g.Rank()*len(v):], v)
	sums, err := g.SumInts(s, all...)
	if err != nil {
		return nil, err
	}
	out := make([][]int64, g.Size())
	for rank := range out {
		out[rank] = sums[rank*len(v) : (rank+1)*len(v)]
	}
	return out, nil
}

// GatherBytes is every rank's bytes.
func (g *Group) GatherBytes(s *bindings.Scope, v []byte) ([][]byte, error) {
	if g == nil {
		return [][]byte{v}, nil
	}
	sizes, err := g.Gather(s, int64(len(v)))
	if err != nil {
		return nil, err
	}
	total, before := 0, 0
	for rank, n := range sizes {
		if rank < g.Rank() {
			before += int(n[0])
		}
		total += int(n[0])
	}
	out := make([][]byte, g.Size())
	if total == 0 {
		return out, nil
	}
	s = s.Child()
	defer s.Close()
	all := make([]byte, total)
	copy(all[before:], v)
	t := s.FromRaw(all, bindings.Uint8, int64(total))
	if err := g.SumTensor(t); err != nil {
		return nil, err
	}
	all = t.Raw()
	for rank, n := range sizes {
		out[rank], all = all[:n[0]], all[n[0]:]
	}
	return out, nil
}

// Same sees that every rank's tensors hold the same bits.
func (g *Group) Same(s *bindings.Scope, what string, ts []bindings.Tensor) error {
	if g == nil {
		return nil
	}
	all, err := g.Gather(s, int64(s.Hash(ts)))
	if err != nil {
		return err
	}
	for rank, h := range all {
		if h[0] != all[0][0] {
			return g.peerError(rank, "has other %s than rank 0: the processes have parted", what)
		}
	}
	return nil
}

// Broadcast gives every rank one's tensors, in place.
func (g *Group) Broadcast(from int, ts ...bindings.Tensor) error {
	if g == nil {
		return nil
	}
	for _, t := range ts {
		if err := g.do(func(ctx context.Context) error { return g.group.Load().Broadcast(ctx, t, from) }); err != nil {
			return err
		}
	}
	return nil
}

// Engine is what the ranks compute together with; nil before Join.
func (g *Group) Engine() *bindings.Group { return g.group.Load() }

// do runs an operation of the group.
func (g *Group) do(op func(ctx context.Context) error) error {
	g.seq.Add(1)
	if g.ctx.Err() != nil {
		return context.Cause(g.ctx)
	}
	begun := time.Now()
	if err := op(g.ctx); err != nil {
		return g.lost(err)
	}
	g.waited += time.Since(begun)
	return nil
}
