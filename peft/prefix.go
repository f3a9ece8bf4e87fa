package peft

import (
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// prefix is prefix tuning (Li & Liang 2021): trained keys and values that join every block's own in one
// softmax, either as they are, prompt_embeddings [k, 2·L·Hkv·D] with keys in even slots and values in odd ones
// as in the peft library, or, for training, through embedding → linear → tanh → linear, which is folded to
// that when saved.
type prefix struct {
	plain
	o Options
	// uncounted: the decoder's text starts at position 0, as AdapterHub has it, not behind the prefix.
	uncounted bool
}

const (
	projEmbedding = "embedding.weight"
	projIn        = "transform.0"
	projOut       = "transform.2"
)

// outOf names a block's part of the projection's last layer: it is kept in parts by block so that a block's
// backward pass touches its own part only.
func outOf(block int) string { return fmt.Sprintf("%s.%d", projOut, block) }

func (p *prefix) specs(o *outline) ([]spec, error) {
	k, width := int64(p.o.VirtualTokens), int64(o.info.KVHeads*o.info.HeadDim)
	if !p.o.PrefixProjection {
		init := p.realInit
		if p.o.Init == "random" {
			init = gaussian(1)
		}
		return []spec{{promptName, []int64{k, 2 * int64(o.info.Layers) * width}, init}}, nil
	}
	if p.o.Init != "random" {
		return nil, errors.New("init: a prefix with prefix-projection starts at random")
	}
	mid := int64(p.o.PrefixHidden)
	if mid == 0 {
		mid = width
	}
	out := []spec{
		{projEmbedding, []int64{k, width}, gaussian(1)},
		{projIn + ".weight", []int64{mid, width}, kaiming(width)}, {projIn + ".bias", []int64{mid}, kaiming(width)},
	}
	for i := range o.info.Layers {
		out = append(out,
			spec{outOf(i) + ".weight", []int64{2 * width, mid}, kaiming(mid)}, spec{outOf(i) + ".bias", []int64{2 * width}, kaiming(mid)})
	}
	return out, nil
}

// realInit are the keys and values that the model itself computes for a text, or for random tokens.
func (p *prefix) realInit(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error) {
	vocab := int64(m.Info().Vocab)
	var ids []int64
	if p.o.Init == "text" {
		var err error
		if ids, err = repeat(p.o.InitIDs, shape[0], vocab); err != nil {
			return bindings.Tensor{}, err
		}
	} else {
		ids = randomIDs(s, shape[0], vocab)
	}
	if limit := m.Info().MaxPositions; limit > 0 && len(ids) > limit {
		return bindings.Tensor{}, fmt.Errorf("virtual-tokens is %d, but the model reads at most %d tokens", len(ids), limit)
	}
	var out bindings.Tensor
	s.NoGrad(func() {
		var slots []bindings.Tensor
		for _, kv := range model.KeysValues(s, m, ids) {
			for _, t := range kv { // [1, Hkv, k, D] to [k, Hkv·D]
				slots = append(slots, s.Reshape(s.Transpose(s.Squeeze(t, 0), 0, 1), shape[0], -1))
			}
		}
		out = s.To(s.Cat(1, slots...), bindings.Float)
	})
	return out, nil
}

func (p *prefix) mount(x *mounting) error {
	for i, b := range x.blocks {
		m := &prefixMemory{
			flat: x.params.Get(promptName), embedding: x.params.Get(projEmbedding),
			inW: x.params.Get(projIn + ".weight"), inB: x.params.Get(projIn + ".bias"),
			outW: x.params.Get(outOf(i) + ".weight"), outB: x.params.Get(outOf(i) + ".bias"),
			block: i, n: p.o.VirtualTokens, heads: int64(x.info.KVHeads), width: 2 * int64(x.info.KVHeads*x.info.HeadDim),
		}
		b.Memory = append(b.Memory, m)
	}
	x.hooks.Uncounted = p.uncounted
	return nil
}

func (p *prefix) lr() float64 {
	if p.o.PrefixProjection {
		return 1e-3
	}
	return 1e-2
}

func (p *prefix) describe() string {
	from := map[string]string{"vocab": "real keys and values of random tokens", "text": "real keys and values of a text", "random": "N(0, 1)"}[p.o.Init]
	if p.o.PrefixProjection {
		from = "a random embedding through linear, tanh, linear"
	}
	return fmt.Sprintf("%d keys and values per block, from %s", p.o.VirtualTokens, from)
}

// uncounted reports a prefix whose positions are not counted.
func (a *adapter) uncounted() bool {
	p, ok := core(a.technique).(*prefix)
	return ok && p.uncounted
}

// turnPrefix gives a prefix [n, L·2·Hkv·D] with its keys turned by so many positions: where a text is rotated by
// as many more, attention then sees the same.
func turnPrefix(s *bindings.Scope, m model.Model, t bindings.Tensor, positions int) (bindings.Tensor, error) {
	if positions == 0 {
		return t, nil
	}
	i := m.Info()
	slots := s.Reshape(t, -1, int64(i.Layers), 2, int64(i.KVHeads), int64(i.HeadDim))
	keys, err := model.TurnKeys(s, m, s.Narrow(slots, 2, 0, 1), positions)
	if err != nil {
		return bindings.Tensor{}, fmt.Errorf("the prefix's keys would have to be turned, as one of the two libraries counts its positions and the other does not: %w", err)
	}
	return s.Reshape(s.Cat(2, keys, s.Narrow(slots, 2, 1, 1)), t.Shape()...), nil
}

// prefixMemory is one block's part.
type prefixMemory struct {
	flat                            *model.Param // nil with a projection
	embedding, inW, inB, outW, outB *model.Param
	block, n                        int
	heads, width                    int64 // of K/V; width: numbers per position, 2·Hkv·D
}

// Len implements model.Memory.
func (p *prefixMemory) Len() int { return p.n }

// KV implements model.Memory.
func (p *prefixMemory) KV(s *bindings.Scope) (k, v bindings.Tensor) {
	return s.In2(func(s *bindings.Scope) (bindings.Tensor, bindings.Tensor) {
		kv := p.slots(s)
		width := kv.Size(1) / 2
		part := func(start int64) bindings.Tensor { // [k, Hkv·D] to [1, Hkv, k, D]
			t := s.Reshape(s.Narrow(kv, 1, start, width), int64(p.n), p.heads, -1)
			return s.Unsqueeze(s.Transpose(t, 0, 1), 0)
		}
		return part(0), part(width)
	})
}

// slots is the block's [k, 2·Hkv·D].
func (p *prefixMemory) slots(s *bindings.Scope) bindings.Tensor {
	if p.flat == nil {
		mid := s.Tanh(s.Linear(p.embedding.T, p.inW.T, p.inB.T))
		return s.Linear(mid, p.outW.T, p.outB.T)
	}
	return s.Narrow(p.flat.T, 1, int64(p.block)*p.width, p.width)
}
