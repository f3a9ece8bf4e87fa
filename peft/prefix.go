package peft

import (
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// PrefixOptions are the settings of prefix beside those it shares with prompt.
type PrefixOptions struct {
	PrefixProjection bool `yaml:"prefix-projection" usage:"of prefix: train through a small network that is folded when saved"`
	PrefixHidden     int  `yaml:"prefix-hidden" usage:"of prefix: width of that network (the hidden size)"`
}

func (o *PrefixOptions) complete() error { return checkCount("prefix-hidden", &o.PrefixHidden, 0) }

// prefixMethod is prefix tuning (Li & Liang 2021): trained keys and values that join every block's own in one
// softmax, either as they are, prompt_embeddings [k, 2·L·Hkv·D] with keys in even slots and values in odd ones
// as in the peft library, or, for training, through embedding → linear → tanh → linear, which is folded to
// that when saved.
func prefixMethod() Definition {
	return Definition{
		Name: "prefix",
		Complete: func(o *Options) error {
			if o.PrefixProjection {
				return choose("init", &o.Init, "random", "text", "vocab")
			}
			return choose("init", &o.Init, "vocab", "text", "random")
		},
		New:         func(o Options) Tuner { return &prefix{o: o} },
		Dialects:    []Dialect{DialectPeft, DialectHub},
		Unmergeable: "its keys and values belong to no token, so no weight can produce them",
	}
}

type prefix struct {
	Common
	o Options
	// uncounted: text behind rotary positions starts at position 0, not behind the prefix.
	uncounted bool
	// spread: keys and values have as many heads as the queries, also where the model's own are shared.
	spread bool
	input  int // width of the projection's embedding; 0: that of keys
}

// heads is the number of heads of the prefix's keys and values.
func (p *prefix) heads(i model.Info) int {
	if p.spread {
		return i.Heads
	}
	return i.KVHeads
}

const (
	projEmbedding = "embedding.weight"
	projIn        = "transform.0"
	projOut       = "transform.2"
)

// outOf names a block's part of the projection's last layer: it is kept in parts by block so that a block's
// backward pass touches its own part only.
func outOf(block int) string { return fmt.Sprintf("%s.%d", projOut, block) }

func (p *prefix) Adds(x *Structure) ([]NewParam, error) {
	k, in := int64(p.o.VirtualTokens), p.heads(x.Info)*x.Info.HeadDim
	width := int64(in)
	if !p.o.PrefixProjection {
		init := p.realInit
		if p.o.Init == "random" {
			init = Gaussian(1)
		}
		return []NewParam{{Name: promptName, Shape: []int64{k, 2 * int64(x.Info.Layers) * width}, Init: init}}, nil
	}
	if p.o.Init != "random" {
		return nil, errors.New("init: a prefix with prefix-projection starts at random")
	}
	hidden := p.o.PrefixHidden
	if hidden == 0 {
		hidden = in
	}
	if p.input > 0 {
		in = p.input
	}
	mid := int64(hidden)
	out := []NewParam{
		{Name: projEmbedding, Shape: []int64{k, int64(in)}, Init: Gaussian(1)},
		{Name: projIn + ".weight", Shape: []int64{mid, int64(in)}, Init: KaimingUniform(in)},
		{Name: projIn + ".bias", Shape: []int64{mid}, Init: KaimingUniform(in)},
	}
	for i := range x.Info.Layers {
		out = append(out,
			NewParam{Name: outOf(i) + ".weight", Shape: []int64{2 * width, mid}, Init: KaimingUniform(hidden)},
			NewParam{Name: outOf(i) + ".bias", Shape: []int64{2 * width}, Init: KaimingUniform(hidden)})
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

func (p *prefix) Attach(x *Attachment) error {
	for i, b := range x.Blocks {
		m := &prefixMemory{
			flat: x.Param(promptName), embedding: x.Param(projEmbedding),
			inW: x.Param(projIn + ".weight"), inB: x.Param(projIn + ".bias"),
			outW: x.Param(outOf(i) + ".weight"), outB: x.Param(outOf(i) + ".bias"),
			block: i, n: p.o.VirtualTokens, heads: int64(p.heads(x.Info)), width: 2 * int64(p.heads(x.Info)*x.Info.HeadDim),
		}
		b.Memory, b.Spread = append(b.Memory, m), p.spread
	}
	x.Hooks.Uncounted = p.uncounted
	return nil
}

func (p *prefix) Needs() Needs { return Needs{Memories: p.o.VirtualTokens} }

func (p *prefix) LR() float64 {
	if p.o.PrefixProjection {
		return 1e-3
	}
	return 1e-2
}

func (p *prefix) Describe() string {
	from := map[string]string{"vocab": "real keys and values of random tokens", "text": "real keys and values of a text", "random": "N(0, 1)"}[p.o.Init]
	if p.o.PrefixProjection {
		from = "a random embedding through linear, tanh, linear"
	}
	return fmt.Sprintf("%d keys and values per block, from %s", p.o.VirtualTokens, from)
}

// prefixMemory is one block's part.
type prefixMemory struct {
	flat                            *model.Param // nil with a projection
	embedding, inW, inB, outW, outB *model.Param
	block, n                        int
	heads, width                    int64 // of K/V; width: numbers per position, 2·heads·D
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
