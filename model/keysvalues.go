package model

import "gopeft/bindings"

// KeysValues are the keys and values [1, Hkv, S, D] that a model's blocks compute for a sequence of tokens, as
// attention sees them (after rotation), owned by s. The model must carry no method.
func KeysValues(s *bindings.Scope, m Model, ids []int64) [][2]bindings.Tensor {
	n := int64(len(ids))
	var out [][2]bindings.Tensor
	_ = s.Run(func(c *bindings.Scope) error {
		in := Input{IDs: c.ToDevice(c.FromInt64s(ids, 1, n), bindings.Int64, m.Params().All()[0].Device())}
		keep := func(t bindings.Tensor) bindings.Tensor { return c.MoveTo(s, c.Clone(t)) }
		if m.Info().Decoder {
			in.Cache = NewCache(c, len(ids))
			defer in.Cache.Close()
			c.NoGrad(func() { m.Forward(c, in) })
			for i := range m.Hooks().Blocks {
				l := in.Cache.layers[i]
				out = append(out, [2]bindings.Tensor{keep(c.Narrow(l.k, 2, 0, n)), keep(c.Narrow(l.v, 2, 0, n))})
			}
			return nil
		}
		// An encoder's blocks show their keys and values through wrapped maps.
		seen := make([][2]bindings.Tensor, len(m.Hooks().Blocks))
		for i, b := range m.Hooks().Blocks {
			for j, slot := range []Slot{K, V} {
				own, _ := b.Module(slot)
				b.SetWrap(slot, &recorder{own.Dense, c, &seen[i][j]})
			}
		}
		defer m.Hooks().Clear()
		c.NoGrad(func() { m.Forward(c, in) })
		for _, kv := range seen {
			out = append(out, [2]bindings.Tensor{keep(heads(c, kv[0], m.Info().KVHeads)), keep(heads(c, kv[1], m.Info().KVHeads))})
		}
		return nil
	})
	return out
}

// recorder keeps what a map computes.
type recorder struct {
	inner *Dense
	keep  *bindings.Scope
	seen  *bindings.Tensor
}

// Forward implements Linear.
func (r *recorder) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	y := r.inner.Forward(s, x)
	*r.seen = s.MoveTo(r.keep, s.Clone(y))
	return y
}
