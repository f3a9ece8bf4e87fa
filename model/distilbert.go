package model

import "gopeft/bindings"

// DistilBERTConfig is the part of a DistilBERT (or BERT) config.json that shapes the model.
type DistilBERTConfig struct {
	Vocab               int
	MaxPositions        int
	Layers              int
	Heads               int
	Dim                 int
	FFN                 int
	Activation          string // "gelu" or "relu"
	Dropout             float64
	AttentionDropout    float64
	ClassifierDropout   float64
	PadToken            int
	LayerNormEps        float64
	InitRange           float64
	SinusoidalPositions bool
}

// DistilBERT is the encoder of Sanh et al. 2019 (post-norm blocks, learned positions, no token types) with
// an optional sequence-classification head: pre_classifier → ReLU → dropout → classifier on [CLS].
type DistilBERT struct {
	cfg    DistilBERTConfig
	base          // weights, hooks, labels: shared with the other families
	words  *Param // [vocab, dim]
	places *Param // [positions, dim]
	norm   layerNorm
	blocks []*distilBlock
	pre    *Dense // nil without a head
	out    *Dense
}

type layerNorm struct {
	w, b *Param
	eps  float64
}

func (n layerNorm) forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.LayerNorm(x, n.w.Value(), n.b.Value(), n.eps)
}

type distilBlock struct {
	*Block
	attnNorm, ffnNorm layerNorm
}

const (
	distilFamily = "distilbert"
	distilPrefix = "distilbert."
)

// newDistilBERT declares the model's parameters; their tensors come from a checkpoint or from init.
func newDistilBERT(cfg DistilBERTConfig, labels []string) *DistilBERT {
	m := &DistilBERT{cfg: cfg}
	m.labels = labels
	info, d := m.Info(), int64(cfg.Dim)
	norm := func(name string) layerNorm {
		return layerNorm{m.declareNorm(name+".weight", one, d), m.declareNorm(name+".bias", zero, d), cfg.LayerNormEps}
	}
	m.words = m.declare(distilPrefix+"embeddings.word_embeddings.weight", normal, int64(cfg.Vocab), d)
	m.hooks.Words = m.words
	m.places = m.declare(distilPrefix+"embeddings.position_embeddings.weight", normal, int64(cfg.MaxPositions), d)
	m.norm = norm(distilPrefix + "embeddings.LayerNorm")
	for i := range cfg.Layers {
		b := &distilBlock{Block: info.block(i)}
		for _, mp := range info.Maps() {
			m.declareModule(b.Block, mp)
			if mp.Slot == O {
				b.attnNorm = norm(b.Name + ".sa_layer_norm")
			}
		}
		b.ffnNorm = norm(b.Name + ".output_layer_norm")
		m.blocks = append(m.blocks, b)
		m.hooks.Blocks = append(m.hooks.Blocks, b.Block)
	}
	if len(labels) > 0 {
		m.pre = m.declareMap("pre_classifier", Map{In: cfg.Dim, Out: cfg.Dim, Bias: true})
		m.out = m.declareMap("classifier", Map{In: cfg.Dim, Out: len(labels), Bias: true})
		m.headNames = []string{"pre_classifier", "classifier"}
	}
	return m
}

// Info implements Model.
func (m *DistilBERT) Info() Info {
	c := m.cfg
	i := Info{Family: distilFamily, Vocab: c.Vocab, Hidden: c.Dim, Layers: c.Layers, Heads: c.Heads, KVHeads: c.Heads,
		HeadDim: c.Dim / c.Heads, FFN: c.FFN, MaxPositions: c.MaxPositions, LoadedFrom: m.loadedFrom}
	i.distilFacts()
	return i
}

// distilFacts fills in what every DistilBERT of i's sizes has.
func (i *Info) distilFacts() {
	i.Blocks, i.Attention = distilPrefix+"transformer.layer", "attention"
}

func (i Info) distilMaps() []Map {
	d := i.Hidden
	return []Map{
		{Slot: Q, Name: "attention.q_lin", In: d, Out: d, Bias: true},
		{Slot: K, Name: "attention.k_lin", In: d, Out: d, Bias: true, Shiftless: true},
		{Slot: V, Name: "attention.v_lin", In: d, Out: d, Bias: true},
		{Slot: O, Name: "attention.out_lin", In: d, Out: d, Bias: true},
		{Slot: Up, Name: "ffn.lin1", In: d, Out: i.FFN, Bias: true},
		{Slot: Down, Name: "ffn.lin2", In: i.FFN, Out: d, Bias: true},
	}
}

// Forward implements Model.
func (m *DistilBERT) Forward(s *bindings.Scope, in Input) Output {
	m.hooks.Train = in.Train
	h := m.embed(s, in)
	virtual := 0
	if p := m.hooks.Prompt; p != nil {
		virtual = p.Len()
	}
	pad := &padding{scope: s, mask: extendMask(s, in.Mask, virtual)}
	if in.States != nil {
		*in.States = append(*in.States, h)
	}
	for i, b := range m.blocks {
		read := everywhere
		if in.Pooled && in.States == nil && i == len(m.blocks)-1 {
			read, virtual = m.pooledAt(virtual, h.Size(1)), 0
		}
		next := m.step(s, b, h, pad, in, read)
		if in.States == nil {
			s.Free(h)
		}
		if h = next; in.States != nil {
			*in.States = append(*in.States, h)
		}
	}
	return Output{Hidden: h, Virtual: virtual}
}

// everywhere stands for all positions where one is asked for.
const everywhere = -1

// pooledAt is which of so many positions Classify reads, with virtual tokens in front.
func (m *DistilBERT) pooledAt(virtual int, positions int64) int {
	switch m.hooks.Pool {
	case FirstPosition:
		return 0
	case LastPosition:
		return int(positions) - 1
	}
	return virtual
}

// embed is LayerNorm(words + positions), dropped out; a prompt counts as the first positions.
func (m *DistilBERT) embed(s *bindings.Scope, in Input) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		e := withPrompt(s, m.hooks.Prompt, s.Embedding(m.words.Value(), in.IDs))
		var places bindings.Tensor
		if in.Positions.Defined() {
			places = s.Embedding(m.places.Value(), in.Positions)
		} else {
			places = s.Narrow(m.places.Value(), 0, 0, e.Size(1))
		}
		return dropout(s, m.norm.forward(s, s.Add(e, places)), m.cfg.Dropout, in.Train)
	})
}

func dropout(s *bindings.Scope, x bindings.Tensor, p float64, train bool) bindings.Tensor {
	if !train {
		return x
	}
	return s.Dropout(x, p)
}

func rate(p float64, train bool) float64 {
	if train {
		return p
	}
	return 0
}

// step is one block, its activations kept or, when in asks so, recomputed in the backward pass.
func (m *DistilBERT) step(s *bindings.Scope, b *distilBlock, h bindings.Tensor, pad *padding, in Input, read int) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		memory := memories(s, b.Memory)
		bias := pad.bias(memoryLen(memory), computeDType(s, h))
		return checkpointed(s, in, append([]bindings.Tensor{h, bias}, memory...), func(s *bindings.Scope, ts []bindings.Tensor) bindings.Tensor {
			return m.block(s, b, ts[0], ts[1], ts[2:], in, read)
		})
	})
}

// block computes all positions, or only the one at read: [B, 1, hidden].
func (m *DistilBERT) block(s *bindings.Scope, b *distilBlock, all, bias bindings.Tensor, memory []bindings.Tensor, in Input, read int) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		x := all
		if read != everywhere {
			x = s.Narrow(all, 1, int64(read), 1)
		}
		joinAttn := func(s *bindings.Scope, h bindings.Tensor) bindings.Tensor { return b.attnNorm.forward(s, s.Add(h, x)) }
		a := transform(s, b.AfterAttn, m.attend(s, b, x, all, bias, memory, in), joinAttn)
		x = s.AddLayerNorm(a, x, b.attnNorm.w.Value(), b.attnNorm.b.Value(), b.attnNorm.eps, 0)
		f := s.In(func(s *bindings.Scope) bindings.Tensor {
			up, down := b.Linear(Up).Forward(s, x), b.Linear(Down)
			if m.cfg.Activation == "relu" {
				return down.Forward(s, s.ReLU(up))
			}
			if own, bare := down.(*Dense); bare {
				return s.GELULinear(up, own.W.Value(), own.B.Value())
			}
			return down.Forward(s, s.GELUOver(up))
		})
		p := rate(m.cfg.Dropout, in.Train)
		if len(b.AfterFFN) > 0 { // transforms come after the sublayer's own dropout
			join := func(s *bindings.Scope, h bindings.Tensor) bindings.Tensor { return b.ffnNorm.forward(s, s.Add(h, x)) }
			f, p = transform(s, b.AfterFFN, s.Dropout(f, p), join), 0
		}
		return s.AddLayerNorm(f, x, b.ffnNorm.w.Value(), b.ffnNorm.b.Value(), b.ffnNorm.eps, p)
	})
}

// attend is multi-head attention of x's positions over all, with the block's memories and branches.
func (m *DistilBERT) attend(s *bindings.Scope, b *distilBlock, x, all, bias bindings.Tensor, memory []bindings.Tensor, in Input) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		n := m.cfg.Heads
		q := heads(s, b.Linear(Q).Forward(s, x), n)
		k := heads(s, b.Linear(K).Forward(s, all), n)
		v := heads(s, b.Linear(V).Forward(s, all), n)
		k, v = remember(s, memory, k, v)
		o := s.Attention(q, k, v, biasFor(s, bias, q), 0, rate(m.cfg.AttentionDropout, in.Train))
		for _, branch := range b.Branch {
			o = s.Add(o, branch.Attend(s, q, func(p bindings.Tensor) (bindings.Tensor, bindings.Tensor) {
				return ownHeads(s, b.Block, K, p, n), ownHeads(s, b.Block, V, p, n)
			}))
		}
		return b.Linear(O).Forward(s, joinHeads(s, o))
	})
}

// ownHeads applies the block's own map of a slot, unwrapped, and splits heads.
func ownHeads(s *bindings.Scope, b *Block, slot Slot, x bindings.Tensor, n int) bindings.Tensor {
	own, _ := b.Module(slot)
	return heads(s, own.Dense.Forward(s, x), n)
}

// Classify implements Model: it reads the first real token, [CLS].
func (m *DistilBERT) Classify(s *bindings.Scope, in Input, out Output) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		cls := s.Select(out.Hidden, 1, int64(m.pooledAt(out.Virtual, out.Hidden.Size(1))))
		if c := m.hooks.Classifier; c != nil {
			return c.Forward(s, cls)
		}
		cls = s.To(cls, m.pre.W.Value().DType()) // a method may keep its head in fp32 over a half base
		h := s.ReLU(m.pre.Forward(s, cls))
		return m.out.Forward(s, dropout(s, h, m.cfg.ClassifierDropout, in.Train))
	})
}
