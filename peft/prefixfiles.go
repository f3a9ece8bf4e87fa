package peft

import (
	"fmt"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// What the two libraries' files have in common that hold prefixes.

// uncounted reports a prefix whose positions are not counted.
func (a *method) uncounted() bool {
	p, ok := a.ownTuner().(*prefix)
	return ok && p.uncounted
}

// turnPrefix gives a prefix [n, L·2·H·D] with its keys turned by so many positions: where a text is rotated by
// as many more, attention then sees the same.
func turnPrefix(s *bindings.Scope, a *method, t bindings.Tensor, positions int) (bindings.Tensor, error) {
	if positions == 0 {
		return t, nil
	}
	m, i := a.m, a.m.Info()
	slots := s.Reshape(t, -1, int64(i.Layers), 2, int64(a.ownTuner().(*prefix).heads(i)), int64(i.HeadDim))
	keys, err := model.TurnKeys(s, m, s.Narrow(slots, 2, 0, 1), positions)
	if err != nil {
		return bindings.Tensor{}, fmt.Errorf("the prefix's keys would have to be turned, as one of the two libraries counts its positions and the other does not: %w", err)
	}
	return s.Reshape(s.Cat(2, keys, s.Narrow(slots, 2, 1, 1)), t.Shape()...), nil
}

// grouped gives a prefix [n, L·2·H·D] the heads that the model's keys and values have, or says that it cannot.
func (a *method) grouped(s *bindings.Scope, t bindings.Tensor) (bindings.Tensor, error) {
	p, i := a.ownTuner().(*prefix), a.m.Info()
	if !p.spread || i.Heads == i.KVHeads {
		return t, nil
	}
	slots := s.Reshape(t, -1, int64(i.Layers), 2, int64(i.KVHeads), int64(i.Heads/i.KVHeads), int64(i.HeadDim))
	first := s.Narrow(slots, 4, 0, 1)
	if apart := s.MaxAll(s.Abs(s.Sub(slots, first))).Item(); apart != 0 {
		return t, fmt.Errorf("heads that share keys and values have prefixes of their own (%.3g apart), and peft has one for all of them", apart)
	}
	width := t.Size(-1) / int64(i.Heads) * int64(i.KVHeads)
	if t.Dim() == 1 {
		return s.Reshape(first, width), nil
	}
	return s.Reshape(first, -1, width), nil
}

// widened puts zeros behind the rows of a projection's embedding or first weight: to its result they are nothing.
func widened(s *bindings.Scope, t bindings.Tensor, width int) bindings.Tensor {
	missing := int64(width) - t.Size(1)
	if missing <= 0 {
		return t
	}
	return s.Cat(1, t, s.Zeros([]int64{t.Size(0), missing}, t.DType(), t.Device()))
}

// joinProjection gives the projection's parts with the last layer in one piece, which gives what as makes of a prefix.
func joinProjection(s *bindings.Scope, a *method, as func(bindings.Tensor) (bindings.Tensor, error), embedding, in, last string) ([]hf.Named, error) {
	var w, b []bindings.Tensor
	for i := range a.m.Hooks().Blocks {
		w = append(w, a.params.Get(outOf(i)+".weight").T)
		b = append(b, a.params.Get(outOf(i)+".bias").T)
	}
	get := func(name string) bindings.Tensor { return s.Detach(a.params.Get(name).T) }
	columns, err := as(s.Transpose(s.Detach(s.Cat(0, w...)), 0, 1))
	if err != nil {
		return nil, err
	}
	bias, err := as(s.Detach(s.Cat(0, b...)))
	return []hf.Named{
		{Name: embedding, Tensor: get(projEmbedding)}, {Name: in + ".weight", Tensor: get(projIn + ".weight")}, {Name: in + ".bias", Tensor: get(projIn + ".bias")},
		{Name: last + ".weight", Tensor: s.Transpose(columns, 0, 1)}, {Name: last + ".bias", Tensor: bias},
	}, err
}

// foldPrefix is the prefix [k, 2·L·H·D], where need be what its projection computes.
func foldPrefix(s *bindings.Scope, a *method, m model.Model) (out bindings.Tensor) {
	s.NoGrad(func() {
		if p := a.params.Get(promptName); p != nil {
			out = s.Detach(p.T)
			return
		}
		var parts []bindings.Tensor
		for _, b := range m.Hooks().Blocks {
			parts = append(parts, b.Memory[0].(*prefixMemory).slots(s))
		}
		out = s.Cat(1, parts...)
	})
	return out
}

// splitProjection reads a projection whose last layer the file holds in one piece.
func splitProjection(s *bindings.Scope, path string, a files.Archive, added []NewParam, g storedValues, last string, keys func(string) []string) error {
	var names []string
	var wants []want
	blocks := int64(0)
	var part []int64
	for _, n := range added {
		if strings.HasPrefix(n.Name, projOut+".") {
			if strings.HasSuffix(n.Name, ".weight") {
				blocks++
				part = n.Shape
			}
			continue
		}
		names, wants = append(names, n.Name), append(wants, want{keys(n.Name), n.Shape, false})
	}
	wants = append(wants, want{keys(last + ".weight"), []int64{blocks * part[0], part[1]}, false}, want{keys(last + ".bias"), []int64{blocks * part[0]}, false})
	ts, err := pick(s, path, a, wants, nil)
	if err != nil {
		return err
	}
	for i, name := range names {
		g.own[name] = ts[i]
	}
	w, b := ts[len(ts)-2], ts[len(ts)-1]
	for i := range blocks {
		g.own[outOf(int(i))+".weight"] = s.Narrow(w, 0, i*part[0], part[0])
		g.own[outOf(int(i))+".bias"] = s.Narrow(b, 0, i*part[0], part[0])
	}
	return nil
}
