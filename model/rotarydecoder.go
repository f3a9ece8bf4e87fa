package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// rotaryKind is what tells one family of rotaryDecoders from another.
type rotaryKind struct {
	name    string
	classes map[string]string // by model_type, what transformers' class names begin with: "Llama",
	scorer  string            // and those of classifiers, where that differs
	config  func(raw []byte) (decoderConfig, error)
	// gguf reads the names of a GGUF file's tensors; nil where no such files are loaded.
	gguf func(g *files.GGUF, i Info) hf.Request
	// biased are the model_types whose config.json says which maps have a bias.
	biased []string
}

// complete adds to f what the families of a kind have in common: their settings say the rest.
func (k *rotaryKind) complete(f family) family {
	f.name = k.name
	for modelType := range k.classes {
		f.types = append(f.types, modelType)
	}
	slices.Sort(f.types)
	f.traits.Decoder = true
	f.traits.Blocks, f.traits.Attention = rotaryPrefix+"layers", "self_attn"
	f.traits.Classifier, f.traits.LMHead = "score", "lm_head"
	f.traits.Words = rotaryPrefix + "embed_tokens"
	if f.maps == nil {
		f.maps = rotaryMaps
	}
	f.size = func(config []byte) (positions, vocab int, err error) {
		c, err := k.config(config)
		return c.Rope.reach(c.MaxPositions), c.Vocab, err
	}
	f.load = func(s *bindings.Scope, c *opened) (Model, error) { return loadRotary(s, c, k) }
	modelType := f.types[0]
	f.config = func(i Info, labels int) map[string]any {
		c := map[string]any{"model_type": modelType, "vocab_size": i.Vocab, "max_position_embeddings": i.MaxPositions, "num_hidden_layers": i.Layers,
			"num_attention_heads": i.Heads, "num_key_value_heads": i.KVHeads, "hidden_size": i.Hidden, "intermediate_size": i.FFN,
			"tie_word_embeddings": false}
		if i.HeadDim > 0 {
			c["head_dim"] = i.HeadDim
		}
		if labels > 0 {
			c["num_labels"] = labels
		}
		return c
	}
	return f
}

func rotaryMaps(i Info) []Map {
	d, q, kv, ffn := i.Hidden, i.Heads*i.HeadDim, i.KVHeads*i.HeadDim, i.FFN
	return []Map{
		{Slot: Q, Name: "self_attn.q_proj", In: d, Out: q, Bias: i.hasBias(Q)},
		{Slot: K, Name: "self_attn.k_proj", In: d, Out: kv, Bias: i.hasBias(K)},
		{Slot: V, Name: "self_attn.v_proj", In: d, Out: kv, Bias: i.hasBias(V)},
		{Slot: O, Name: "self_attn.o_proj", In: q, Out: d, Bias: i.hasBias(O)},
		{Slot: Gate, Name: "mlp.gate_proj", In: d, Out: ffn, Bias: i.hasBias(Gate)},
		{Slot: Up, Name: "mlp.up_proj", In: d, Out: ffn, Bias: i.hasBias(Up)},
		{Slot: Down, Name: "mlp.down_proj", In: ffn, Out: d, Bias: i.hasBias(Down)},
	}
}

const rotaryPrefix = "model."

// names reads a checkpoint's names, with or without the prefix, or a GGUF file's.
func (k *rotaryKind) names(c *opened, i Info) hf.Request {
	if c.gguf != nil {
		return k.gguf(c.gguf, i)
	}
	return hf.Request{
		Rename: func(name string) string {
			for _, own := range []string{"layers.", "embed_tokens.", "norm."} {
				if strings.HasPrefix(name, own) {
					return rotaryPrefix + name
				}
			}
			return name
		},
		Ignore: func(name string) bool { return strings.HasSuffix(name, ".rotary_emb.inv_freq") },
	}
}

// loadRotary builds a decoder from a checkpoint. One without a head for its task has none of it.
func loadRotary(s *bindings.Scope, c *opened, k *rotaryKind) (Model, error) {
	where := func(err error) error { return fmt.Errorf("%s: %w", c.where, err) }
	cfg, err := k.config(c.Config)
	if err != nil {
		return nil, where(err)
	}
	if c.Dropout != nil {
		if cfg.AttentionDropout, cfg.ResidualDropout = *c.Dropout, min(cfg.ResidualDropout, *c.Dropout); !(*c.Dropout >= 0 && *c.Dropout < 1) {
			return nil, rateError("dropout", *c.Dropout)
		}
	}
	labels, freshHead, err := headLabels(c.Config, c.Options)
	if err != nil {
		return nil, where(err)
	}
	names := k.names(c, (&rotaryDecoder{kind: k, cfg: cfg}).Info())
	m := newRotary(k, cfg, labels, holdsHead(c, names))
	if m.config, err = configMap(c.Config); err != nil {
		return nil, where(err)
	}
	modelType, _ := m.config["model_type"].(string)
	class := k.classes[modelType]
	if len(labels) > 0 && k.scorer != "" {
		class = k.scorer
	}
	m.finishConfig(class, c.DType)
	_, err = m.fill(s, c, m.withoutOtherHeads(names, cfg.Tied), freshHead, cfg.InitRange)
	return m, err
}

// rotaryDecoder is a decoder as Touvron et al. 2023 build it (pre-norm blocks with RMSNorm, rotary positions, grouped-query
// attention, SwiGLU) with a language-model head or a sequence-classification head ("score", on the last real
// token). What its families do otherwise are settings of it: see decoderConfig.
type rotaryDecoder struct {
	kind *rotaryKind
	cfg  decoderConfig
	causal
	blocks []*rotaryBlock
	norm   rmsNorm
}

type rotaryBlock struct {
	*Block
	index int
	// Norms of what attention and feed-forward read, of what they leave, and of queries and keys.
	attnNorm, ffnNorm, attnPost, ffnPost, qNorm, kNorm rmsNorm
}

// newRotary declares the model's parameters; their tensors come from a checkpoint or from init. Without
// withHead, and without labels, the model has no head at all and gives hidden states only.
func newRotary(k *rotaryKind, cfg decoderConfig, labels []string, withHead bool) *rotaryDecoder {
	m := &rotaryDecoder{kind: k, cfg: cfg}
	m.labels, m.logitScale, m.logitCap = labels, cfg.LogitScale, cfg.LogitCap
	info, d := m.Info(), int64(cfg.Hidden)
	norm := func(name string, width int64) rmsNorm {
		if cfg.NormsOffset {
			return rmsNorm{m.declareNorm(name+".weight", zero, width), cfg.NormEps, true}
		}
		return rmsNorm{w: m.declareNorm(name+".weight", one, width), eps: cfg.NormEps}
	}
	m.hooks.Words = m.declareMatrix(rotaryPrefix+"embed_tokens.weight", int64(cfg.Vocab), d)
	for i := range cfg.Layers {
		b := &rotaryBlock{Block: m.addBlock(info, i), index: i}
		for _, mp := range info.Maps() {
			m.declareModule(b.Block, mp)
			if mp.Slot == O && (cfg.HeadNorms || cfg.WideNorms) {
				q, k := int64(cfg.HeadDim), int64(cfg.HeadDim)
				if cfg.WideNorms {
					q, k = q*int64(cfg.Heads), k*int64(cfg.KVHeads)
				}
				b.qNorm, b.kNorm = norm(b.Name+".self_attn.q_norm", q), norm(b.Name+".self_attn.k_norm", k)
			}
		}
		switch cfg.Norms {
		case normsBefore:
			b.attnNorm, b.ffnNorm = norm(b.Name+".input_layernorm", d), norm(b.Name+".post_attention_layernorm", d)
		case normsAfter:
			b.attnPost, b.ffnPost = norm(b.Name+".post_attention_layernorm", d), norm(b.Name+".post_feedforward_layernorm", d)
		case normsAround:
			b.attnNorm, b.attnPost = norm(b.Name+".input_layernorm", d), norm(b.Name+".post_attention_layernorm", d)
			b.ffnNorm, b.ffnPost = norm(b.Name+".pre_feedforward_layernorm", d), norm(b.Name+".post_feedforward_layernorm", d)
		}
		m.blocks = append(m.blocks, b)
	}
	m.norm = norm(rotaryPrefix+"norm", d)
	m.declareHeads(cfg.Hidden, int64(cfg.Vocab), cfg.Tied, withHead)
	return m
}

// Info implements Model.
func (m *rotaryDecoder) Info() Info {
	c := m.cfg
	i := Info{Family: m.kind.name, Vocab: c.Vocab, Hidden: c.Hidden, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, FFN: c.FFN, MaxPositions: c.Rope.reach(c.MaxPositions)}.Complete()
	for _, w := range c.Windows {
		if w > 0 && (i.Window == 0 || w < i.Window) {
			i.Window = w
		}
	}
	if c.QKVBias {
		i.setBias(Q, K, V)
	}
	if c.OutBias {
		i.setBias(O)
	}
	if c.MLPBias {
		i.setBias(Gate, Up, Down)
	}
	return i
}

// AddBiases implements Model. Where the model_type fixes which maps have one, there is no place for others.
func (m *rotaryDecoder) AddBiases() error {
	if modelType, _ := m.config["model_type"].(string); !slices.Contains(m.kind.biased, modelType) {
		return m.base.AddBiases()
	}
	for _, add := range m.withoutBias() {
		add()
	}
	m.cfg.QKVBias, m.cfg.OutBias, m.cfg.MLPBias = true, true, true
	m.config["attention_bias"], m.config["mlp_bias"] = true, true
	return nil
}

// rope is how positions turn queries and keys, where they do so alike in all layers and for texts of any length.
func (m *rotaryDecoder) rope() (Rope, error) {
	switch c := m.cfg; {
	case c.Rope.Kind == "dynamic" || c.Rope.Kind == "longrope":
		return c.Rope, fmt.Errorf("the model's rotation of keys depends on the text's length (rope_scaling %s)", c.Rope.Kind)
	case c.LocalRope != nil || slices.Contains(c.Unrotated, true):
		return c.Rope, errors.New("the model's layers rotate their keys each in its own way")
	case c.RotaryDim != c.HeadDim:
		return c.Rope, errors.New("the model rotates parts of its keys")
	}
	return m.cfg.Rope, nil
}

// Forward implements Model. With in.Cache it computes the new tokens only and adds them to the cache.
func (m *rotaryDecoder) Forward(s *bindings.Scope, in Input) Output {
	m.hooks.Train = in.Train
	before, behind := m.cfg.EmbeddingScale, 0.0
	if m.cfg.ScalesPrompt {
		before, behind = behind, before
	}
	h, virtual := m.embedPrompt(s, in, before)
	h = scaled(s, h, behind)
	l := newLayout(s, in, virtual, m.hooks.MemoryLen(), computeDType(s, h), m.hooks.Pool != RealToken)
	turns := [2]turn{l.turn(m.cfg.Rope, m.cfg.RotaryDim)}
	if local := m.cfg.LocalRope; local != nil {
		turns[1] = l.turn(*local, m.cfg.RotaryDim)
	}
	l.kind = s.Sees(h, l.dtype, m.cfg.HeadDim)
	h = m.through(s, in, h, len(m.blocks), func(i int, h bindings.Tensor) bindings.Tensor { return m.step(s, m.blocks[i], h, l, turns, in) })
	if in.Cache != nil {
		in.Cache.advance(l)
	}
	h = m.norm.forward(s, h)
	keepState(in, h) // as transformers has it, the last state follows the final norm
	return Output{Hidden: h, Virtual: virtual}
}

// step is one block.
func (m *rotaryDecoder) step(s *bindings.Scope, b *rotaryBlock, h bindings.Tensor, l *layout, turns [2]turn, in Input) bindings.Tensor {
	c := m.cfg
	a := attention{index: b.index, keyNorm: b.kNorm, scale: c.AttentionScale, cap: c.ScoreCap, dropout: rate(c.AttentionDropout, in.Train)}
	window, by := c.Windows[b.index], turns[0]
	if window > 0 && c.LocalRope != nil {
		by = turns[1]
	}
	if c.Unrotated[b.index] {
		by = turn{}
	}
	reads := []bindings.Tensor{h, by.cos, by.sin}
	return a.step(s, in, b.Block, l, window, reads, func(s *bindings.Scope, ts []bindings.Tensor, a attention) bindings.Tensor {
		return m.block(s, b, ts[0], turn{ts[1], ts[2]}, a, rate(c.ResidualDropout, in.Train))
	})
}

func (m *rotaryDecoder) block(s *bindings.Scope, b *rotaryBlock, x bindings.Tensor, by turn, a attention, p float64) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		join := func(s *bindings.Scope, h bindings.Tensor) bindings.Tensor {
			return s.Add(x, scaled(s, h, m.cfg.ResidualScale))
		}
		h := b.attnPost.forward(s, m.attend(s, b, b.attnNorm.forward(s, x), by, a))
		x = join(s, transform(s, b.AfterAttn, s.Dropout(h, p), join))
		f := s.In(func(s *bindings.Scope) bindings.Tensor {
			h := b.ffnNorm.forward(s, x)
			gate, up := b.Linear(Gate).Forward(s, h), b.Linear(Up).Forward(s, h)
			if m.cfg.GELU {
				h = geGLU(s, b.Linear(Down), gate, up)
			} else {
				h = swiGLU(s, b.Linear(Down), gate, up)
			}
			return s.Dropout(b.ffnPost.forward(s, h), p)
		})
		return join(s, transform(s, b.AfterFFN, f, join))
	})
}

// attend is rotary grouped-query attention.
func (m *rotaryDecoder) attend(s *bindings.Scope, b *rotaryBlock, x bindings.Tensor, by turn, a attention) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		q := b.qNorm.heads(s, b.Linear(Q).Forward(s, x), m.cfg.Heads)
		k := b.kNorm.heads(s, b.Linear(K).Forward(s, x), m.cfg.KVHeads)
		v := mappedHeads(s, b.Block, V, x, m.cfg.KVHeads)
		q, k = by.both(s, q, k)
		if b.Spread {
			k, v = spread(s, k, m.cfg.Heads), spread(s, v, m.cfg.Heads)
		}
		return a.apply(s, b.Block, q, k, v)
	})
}
