package model

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
)

// encoderConfig is the part of a config.json that shapes an encoder of post-norm blocks on learned positions.
type encoderConfig struct {
	Vocab             int
	MaxPositions      int // that a text may take
	Layers            int
	Heads             int
	Dim               int
	FFN               int
	Activation        string // "gelu" or "relu"
	Dropout           float64
	AttentionDropout  float64
	ClassifierDropout float64
	PadToken          int
	LayerNormEps      float64
	InitRange         float64
	TokenTypes        int  // 0: it has none
	Unread            int  // rows of the table of positions before a text's first
	DropsAttention    bool // attention's output is dropped out too, as the feed-forward's is
}

// encoder completes what was read of an encoder's config, and gives the labels of its head and whether that begins anew.
func (c *opened) encoder(read encoderConfig, err error) (cfg encoderConfig, labels []string, freshHead bool, _ error) {
	if err == nil {
		err = read.complete(c.Options)
	}
	if err == nil {
		labels, freshHead, err = headLabels(c.Config, c.Options)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", c.where, err)
	}
	return read, labels, freshHead, err
}

// complete puts o's dropout in place of the config's and says what no model can be built of.
func (c *encoderConfig) complete(o Options) error {
	if err := checkDims(dim{"vocab_size", c.Vocab}, dim{"max_position_embeddings", c.MaxPositions}, dim{"the number of layers", c.Layers},
		dim{"the number of heads", c.Heads}, dim{"the hidden size", c.Dim}, dim{"the feed-forward size", c.FFN}); err != nil {
		return err
	}
	if c.Layers > maxLayers {
		return fmt.Errorf("the number of layers is %d, more than %d", c.Layers, maxLayers)
	}
	if c.Dim%c.Heads != 0 {
		return fmt.Errorf("the hidden size %d is not a multiple of the %d heads", c.Dim, c.Heads)
	}
	if c.Activation != "gelu" && c.Activation != "relu" {
		return fmt.Errorf("activation %q is not supported (gelu, relu)", c.Activation)
	}
	if o.Dropout != nil {
		c.Dropout, c.AttentionDropout, c.ClassifierDropout = *o.Dropout, *o.Dropout, *o.Dropout
	}
	for _, p := range []float64{c.Dropout, c.AttentionDropout, c.ClassifierDropout} {
		if p < 0 || p >= 1 || math.IsNaN(p) {
			return fmt.Errorf("a dropout rate is %v, want 0 to below 1", p)
		}
	}
	return nil
}

// info is the shape of an encoder of a family.
func (c *encoderConfig) info(family string) Info {
	return Info{Family: family, Vocab: c.Vocab, Hidden: c.Dim, Layers: c.Layers, Heads: c.Heads, KVHeads: c.Heads,
		HeadDim: c.Dim / c.Heads, FFN: c.FFN, MaxPositions: c.MaxPositions}.Complete()
}

// encoderMaps are the maps of a post-norm block under a family's names, in the order q, k, v, o, up, down.
func encoderMaps(i Info, names ...string) []Map {
	d := i.Hidden
	return []Map{
		{Slot: Q, Name: names[0], In: d, Out: d, Bias: true},
		{Slot: K, Name: names[1], In: d, Out: d, Bias: true, Shiftless: true},
		{Slot: V, Name: names[2], In: d, Out: d, Bias: true},
		{Slot: O, Name: names[3], In: d, Out: d, Bias: true},
		{Slot: Up, Name: names[4], In: d, Out: i.FFN, Bias: true},
		{Slot: Down, Name: names[5], In: i.FFN, Out: d, Bias: true},
	}
}

// encoderSize reads how many positions and tokens a model has, of which there are so many where the config says nothing.
func encoderSize(config []byte, positions, vocab int) (int, int, error) {
	c := struct {
		MaxPositions int `json:"max_position_embeddings"`
		Vocab        int `json:"vocab_size"`
	}{positions, vocab}
	if err := json.Unmarshal(config, &c); err != nil {
		return 0, 0, err
	}
	return c.MaxPositions, c.Vocab, checkDims(dim{"max_position_embeddings", c.MaxPositions}, dim{"vocab_size", c.Vocab})
}

// encoder is what encoders of post-norm blocks (Vaswani et al. 2017) on learned positions have in common.
type encoder struct {
	cfg    encoderConfig
	info   Info
	base          // weights, hooks, labels: shared with the other families
	words  *Param // [vocab, dim]
	places *Param // [unread + positions, dim]
	types  *Param // [token types, dim], nil: none
	norm   layerNorm
	blocks []*encoderBlock
	// positions numbers the rows of places that a batch behind so many virtual tokens reads, [B, virtual+S]; nil: the
	// first is every text's first.
	positions func(s *bindings.Scope, ids bindings.Tensor, virtual int) bindings.Tensor
	// classify is the head: the first token's state [B, dim] to logits [B, labels]. nil: there is none.
	classify func(s *bindings.Scope, h bindings.Tensor, train bool) bindings.Tensor
}

type encoderBlock struct {
	*Block
	attnNorm, ffnNorm layerNorm
}

// declareEncoder declares the parameters but for the head's; their tensors come from a checkpoint or from init. attnNorm and
// ffnNorm are the names of a block's norms.
func (m *encoder) declareEncoder(attnNorm, ffnNorm string) {
	d, top := int64(m.cfg.Dim), m.info.Top()+".embeddings."
	norm := func(name string) layerNorm {
		return layerNorm{m.declareNorm(name+".weight", one, d), m.declareNorm(name+".bias", zero, d), m.cfg.LayerNormEps}
	}
	m.words = m.declareMatrix(top+"word_embeddings.weight", int64(m.cfg.Vocab), d)
	m.hooks.Words = m.words
	m.places = m.declare(top+"position_embeddings.weight", normal, int64(m.cfg.Unread+m.cfg.MaxPositions), d)
	if m.cfg.TokenTypes > 0 {
		m.types = m.declare(top+"token_type_embeddings.weight", normal, int64(m.cfg.TokenTypes), d)
	}
	m.norm = norm(top + "LayerNorm")
	for i := range m.cfg.Layers {
		b := &encoderBlock{Block: m.addBlock(m.info, i)}
		for _, mp := range m.info.Maps() {
			m.declareModule(b.Block, mp)
			if mp.Slot == O { // the norms stand where the model defines them, which decides the parameters' order
				b.attnNorm = norm(b.Name + "." + attnNorm)
			}
		}
		b.ffnNorm = norm(b.Name + "." + ffnNorm)
		m.blocks = append(m.blocks, b)
	}
}

// declareHead declares a map behind the blocks, which has the dtype of vectors and is never quantised.
func (m *encoder) declareHead(name string, out int) *Dense {
	return &Dense{W: m.declare(name+".weight", normal, int64(out), int64(m.cfg.Dim)), B: m.declare(name+".bias", zero, int64(out))}
}

// encoderNames reads a checkpoint's names, with or without the prefix top that those of the encoder's parts have, and norms
// as they were called in TensorFlow. Heads of other tasks, and buffers that old versions saved, are left out; so is the
// classification head unless it is asked for.
func encoderNames(top string, classify bool, parts ...string) hf.Request {
	norms := strings.NewReplacer(".gamma", ".weight", ".beta", ".bias")
	return hf.Request{
		Rename: func(name string) string {
			for _, part := range append(parts, "embeddings") {
				if strings.HasPrefix(name, part+".") {
					name = top + "." + name
				}
			}
			if strings.Contains(name, ".LayerNorm.") {
				name = norms.Replace(name)
			}
			return name
		},
		Ignore: func(name string) bool {
			if strings.HasPrefix(name, top+".") {
				return name == top+".embeddings.position_ids" || name == top+".embeddings.token_type_ids"
			}
			return !classify || !strings.HasPrefix(name, "classifier.")
		},
	}
}

// Info implements Model.
func (m *encoder) Info() Info { return m.info }

// Forward implements Model.
func (m *encoder) Forward(s *bindings.Scope, in Input) Output {
	m.hooks.Train = in.Train
	h := m.embed(s, in)
	virtual := m.hooks.PromptLen()
	pad := &padding{scope: s, mask: extendMask(s, in.Mask, virtual)}
	h = m.through(s, in, h, len(m.blocks), func(i int, h bindings.Tensor) bindings.Tensor {
		read := everywhere
		if in.Pooled && in.States == nil && i == len(m.blocks)-1 {
			read, virtual = m.hooks.pooledAt(virtual, h.Size(1)), 0
		}
		return m.step(s, m.blocks[i], h, pad, in, read)
	})
	keepState(in, h)
	return Output{Hidden: h, Virtual: virtual}
}

// everywhere stands for all positions where one is asked for.
const everywhere = -1

// pooledAt is which of so many positions an encoder's Classify reads, with virtual tokens in front.
func (h *Hooks) pooledAt(virtual int, positions int64) int {
	switch h.Pool {
	case FirstPosition:
		return 0
	case LastPosition:
		return int(positions) - 1
	}
	return virtual
}

// embed is LayerNorm(words + positions + token types), dropped out; a prompt counts as the first positions, of type 0.
func (m *encoder) embed(s *bindings.Scope, in Input) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		virtual := m.hooks.PromptLen()
		e := withPrompt(s, m.hooks.Prompt, m.embedTokens(s, in.IDs))
		var places bindings.Tensor
		switch {
		case in.Positions.Defined():
			places = s.Embedding(m.places.Value(), s.To(s.AddScalar(in.Positions, float64(m.cfg.Unread)), bindings.Int64))
		case m.positions != nil:
			places = s.Embedding(m.places.Value(), m.positions(s, in.IDs, virtual))
		default:
			places = s.Narrow(m.places.Value(), 0, 0, e.Size(1))
		}
		switch {
		case m.types == nil:
		case in.TokenTypes.Defined():
			types := in.TokenTypes
			if virtual > 0 {
				types = s.Cat(1, s.Zeros([]int64{types.Size(0), int64(virtual)}, types.DType(), types.Device()), types)
			}
			places = s.Add(s.Embedding(m.types.Value(), types), places)
		default:
			places = s.Add(places, s.Select(m.types.Value(), 0, 0))
		}
		return dropout(s, m.norm.forward(s, s.Add(e, places)), m.cfg.Dropout, in.Train)
	})
}

// step is one block, its activations kept or, when in asks so, recomputed in the backward pass.
func (m *encoder) step(s *bindings.Scope, b *encoderBlock, h bindings.Tensor, pad *padding, in Input, read int) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		memory := memories(s, b.Memory)
		bias := pad.bias(memoryLen(memory), computeDType(s, h))
		return checkpointed(s, in, append([]bindings.Tensor{h, bias}, memory...), func(s *bindings.Scope, ts []bindings.Tensor) bindings.Tensor {
			a := attention{sight: sight{bias: ts[1]}, memory: ts[2:], dropout: rate(m.cfg.AttentionDropout, in.Train)}
			return m.block(s, b, ts[0], a, rate(m.cfg.Dropout, in.Train), read)
		})
	})
}

// block computes all positions, or only the one at read: [B, 1, hidden].
func (m *encoder) block(s *bindings.Scope, b *encoderBlock, all bindings.Tensor, a attention, dropout float64, read int) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		x := all
		if read != everywhere {
			x = s.Narrow(all, 1, int64(read), 1)
		}
		attended := s.In(func(s *bindings.Scope) bindings.Tensor {
			q := mappedHeads(s, b.Block, Q, x, m.cfg.Heads)
			k := mappedHeads(s, b.Block, K, all, m.cfg.Heads)
			return a.apply(s, b.Block, q, k, mappedHeads(s, b.Block, V, all, m.cfg.Heads))
		})
		between := 0.0
		if m.cfg.DropsAttention {
			between = dropout
		}
		y := b.attnNorm.joined(s, b.AfterAttn, attended, x, between)
		f := s.In(func(s *bindings.Scope) bindings.Tensor {
			up, down := b.Linear(Up).Forward(s, y), b.Linear(Down)
			if m.cfg.Activation == "relu" {
				return down.Forward(s, s.ReLU(up))
			}
			return gelu(s, down, up)
		})
		return b.ffnNorm.joined(s, b.AfterFFN, f, y, dropout)
	})
}

// joined normalises x plus a sublayer's output h, which is dropped out at rate p and then transformed.
func (n layerNorm) joined(s *bindings.Scope, ts []Transform, h, x bindings.Tensor, p float64) bindings.Tensor {
	if len(ts) > 0 {
		if p > 0 {
			h = s.Dropout(h, p)
		}
		join := func(s *bindings.Scope, h bindings.Tensor) bindings.Tensor { return n.forward(s, s.Add(h, x)) }
		h, p = transform(s, ts, h, join), 0
	}
	return n.afterAdd(s, h, x, p)
}

// Classify implements Model: it reads the first real token, [CLS].
func (m *encoder) Classify(s *bindings.Scope, in Input, out Output) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		cls := s.Select(out.Hidden, 1, int64(m.hooks.pooledAt(out.Virtual, out.Hidden.Size(1))))
		if c := m.hooks.Classifier; c != nil {
			return c.Forward(s, cls)
		}
		return m.classify(s, cls, in.Train)
	})
}

// forwardAs applies the map to x in the dtype of its weight: a method may keep its head in fp32 over a half base.
func (d *Dense) forwardAs(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return d.Forward(s, s.To(x, d.W.Value().DType()))
}
