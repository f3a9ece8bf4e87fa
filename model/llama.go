package model

import "gopeft/bindings"

// LLaMAConfig is the part of a config.json that shapes a LLaMA, Mistral or Qwen2 decoder.
type LLaMAConfig struct {
	Vocab        int
	MaxPositions int
	Layers       int
	Heads        int
	KVHeads      int
	HeadDim      int
	Hidden       int
	FFN          int
	NormEps      float64
	Rope         Rope
	Windows      []int // per layer, how many positions a token sees, itself included; 0: all
	Tied         bool  // the language-model head is the embedding table
	QKVBias      bool
	OutBias      bool
	MLPBias      bool

	AttentionDropout float64
	InitRange        float64
}

// LLaMA is the decoder of Touvron et al. 2023 (pre-norm blocks with RMSNorm, rotary positions, grouped-query
// attention, SwiGLU) with a language-model head or a sequence-classification head ("score", on the last real
// token). Mistral's sliding window and Qwen2's biases are settings of it.
type LLaMA struct {
	cfg    LLaMAConfig
	base   // weights, hooks, labels: shared with the other families
	words  *Param
	blocks []*llamaBlock
	norm   rmsNorm
	head   *Param // [vocab, hidden], the embedding table when tied; nil where the checkpoint has none
	score  *Dense // nil without a classification head
}

// CausalLM is a model that predicts the next token.
type CausalLM interface {
	Model
	// LMWeight is the language-model head [vocab, hidden]; none when the checkpoint has none.
	LMWeight() bindings.Tensor
	// Logits maps hidden states [..., hidden] to scores over the vocabulary [..., vocab].
	Logits(s *bindings.Scope, hidden bindings.Tensor) bindings.Tensor
}

type rmsNorm struct {
	w   *Param
	eps float64
}

func (n rmsNorm) forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.RMSNorm(x, n.w.Value(), n.eps)
}

type llamaBlock struct {
	*Block
	index             int
	attnNorm, ffnNorm rmsNorm
}

const (
	llamaFamily = "llama"
	llamaPrefix = "model."
)

// newLLaMA declares the model's parameters; their tensors come from a checkpoint or from init. Without
// withHead, and without labels, the model has no head at all and gives hidden states only.
func newLLaMA(cfg LLaMAConfig, labels []string, withHead bool) *LLaMA {
	m := &LLaMA{cfg: cfg}
	m.labels = labels
	d := int64(cfg.Hidden)
	norm := func(name string) rmsNorm { return rmsNorm{m.declareNorm(name+".weight", one, d), cfg.NormEps} }
	info := m.Info()
	m.words = m.declare(llamaPrefix+"embed_tokens.weight", normal, int64(cfg.Vocab), d)
	m.hooks.Words = m.words
	for i := range cfg.Layers {
		b := &llamaBlock{Block: info.block(i), index: i}
		for _, mp := range info.Maps() {
			m.declareModule(b.Block, mp)
		}
		b.attnNorm = norm(b.Name + ".input_layernorm")
		b.ffnNorm = norm(b.Name + ".post_attention_layernorm")
		m.blocks = append(m.blocks, b)
		m.hooks.Blocks = append(m.hooks.Blocks, b.Block)
	}
	m.norm = norm(llamaPrefix + "norm")
	switch {
	case len(labels) > 0:
		m.score = &Dense{W: m.declare("score.weight", normal, int64(len(labels)), d)}
		m.headNames = []string{"score"}
	case cfg.Tied:
		m.head = m.words
	case withHead:
		m.head = m.declare("lm_head.weight", normal, int64(cfg.Vocab), d)
	}
	return m
}

// Info implements Model.
func (m *LLaMA) Info() Info {
	c := m.cfg
	i := Info{Family: llamaFamily, Vocab: c.Vocab, Hidden: c.Hidden, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads,
		HeadDim: c.HeadDim, FFN: c.FFN, MaxPositions: c.Rope.reach(c.MaxPositions)}
	i.llamaFacts()
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

// AddBiases implements Model. The other model_types fix which maps have one.
func (m *LLaMA) AddBiases() error {
	if m.config["model_type"] != "llama" {
		return m.base.AddBiases()
	}
	for _, add := range m.withoutBias() {
		add()
	}
	m.cfg.QKVBias, m.cfg.OutBias, m.cfg.MLPBias = true, true, true
	m.config["attention_bias"], m.config["mlp_bias"] = true, true
	return nil
}

// llamaFacts fills in what every LLaMA of i's sizes has.
func (i *Info) llamaFacts() {
	i.Decoder, i.Rotary, i.PreNorm = true, true, true
	i.Blocks, i.Attention, i.LMHead = llamaPrefix+"layers", "self_attn", "lm_head"
}

func (i Info) llamaMaps() []Map {
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

// LMWeight implements CausalLM.
func (m *LLaMA) LMWeight() bindings.Tensor { return m.head.Value() }

// Logits implements CausalLM.
func (m *LLaMA) Logits(s *bindings.Scope, hidden bindings.Tensor) bindings.Tensor {
	if u := m.hooks.Unembed; u != nil {
		return u.Forward(s, hidden)
	}
	if m.head == nil {
		panic(&bindings.OpError{Op: "logits", Args: []string{hidden.String()}, Message: "the model has no language-model head"})
	}
	return s.Linear(hidden, m.LMWeight(), bindings.Tensor{})
}

// Forward implements Model. With in.Cache it computes the new tokens only and adds them to the cache.
func (m *LLaMA) Forward(s *bindings.Scope, in Input) Output {
	m.hooks.Train = in.Train
	prompt := m.hooks.Prompt
	if in.Cache != nil && in.Cache.tokens > 0 {
		prompt = nil // its keys and values are in the cache
	}
	virtual := 0
	if prompt != nil {
		virtual = prompt.Len()
	}
	h := withPrompt(s, prompt, s.Embedding(m.words.Value(), in.IDs))
	l := newLayout(s, m.cfg, in, virtual, m.hooks.MemoryLen(), computeDType(s, h), m.hooks.Pool != RealToken)
	states := func(h bindings.Tensor) {
		if in.States != nil {
			*in.States = append(*in.States, h)
		}
	}
	states(h)
	for i, b := range m.blocks {
		next := m.step(s, b, h, l, in)
		if in.States == nil {
			s.Free(h)
		}
		h = next
		if i < len(m.blocks)-1 {
			states(h)
		}
	}
	if in.Cache != nil {
		in.Cache.advance(l)
	}
	h = m.norm.forward(s, h)
	states(h) // as transformers has it, the last state follows the final norm
	return Output{Hidden: h, Virtual: virtual}
}

// step is one block, its activations kept or, when in asks so, recomputed in the backward pass.
func (m *LLaMA) step(s *bindings.Scope, b *llamaBlock, h bindings.Tensor, l *layout, in Input) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		var memory []bindings.Tensor
		if in.Cache == nil || in.Cache.tokens == 0 {
			memory = memories(s, b.Memory)
		}
		bias, causal := l.bias(in.Cache.extra(b.index, memory), m.cfg.Windows[b.index])
		return checkpointed(s, in, append([]bindings.Tensor{h, l.cos, l.sin, bias}, memory...), func(s *bindings.Scope, ts []bindings.Tensor) bindings.Tensor {
			return m.block(s, b, ts[0], llamaAttention{cos: ts[1], sin: ts[2], bias: ts[3], causal: causal, memory: ts[4:]}, in)
		})
	})
}

// llamaAttention is what one block's attention reads besides its input.
type llamaAttention struct {
	cos, sin, bias bindings.Tensor
	causal         bool              // every key is seen up to the query's own place: bias is none
	memory         []bindings.Tensor // keys and values of the block's memories in turn
}

func (m *LLaMA) block(s *bindings.Scope, b *llamaBlock, x bindings.Tensor, a llamaAttention, in Input) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		join := func(s *bindings.Scope, h bindings.Tensor) bindings.Tensor { return s.Add(x, h) }
		x = s.Add(x, transform(s, b.AfterAttn, m.attend(s, b, b.attnNorm.forward(s, x), a, in), join))
		f := s.In(func(s *bindings.Scope) bindings.Tensor {
			h := b.ffnNorm.forward(s, x)
			gate, up := b.Linear(Gate).Forward(s, h), b.Linear(Up).Forward(s, h)
			down := b.Linear(Down)
			if own, bare := down.(*Dense); bare {
				return s.SwiGLULinear(gate, up, own.W.Value(), own.B.Value())
			}
			act := s.SwiGLUOver(gate, up)
			s.Free(up)
			return down.Forward(s, act)
		})
		return s.Add(x, transform(s, b.AfterFFN, f, join))
	})
}

// attend is rotary grouped-query attention with the block's memories and branches.
func (m *LLaMA) attend(s *bindings.Scope, b *llamaBlock, x bindings.Tensor, a llamaAttention, in Input) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		n := m.cfg.KVHeads
		q := heads(s, b.Linear(Q).Forward(s, x), m.cfg.Heads)
		k := heads(s, b.Linear(K).Forward(s, x), n)
		v := heads(s, b.Linear(V).Forward(s, x), n)
		cos, sin := s.To(a.cos, q.DType()), s.To(a.sin, q.DType())
		q, k = s.Rotate(q, cos, sin), s.Rotate(k, cos, sin)
		if in.Cache != nil {
			k, v = in.Cache.add(s, b.index, a.memory, k, v)
		} else {
			k, v = remember(s, a.memory, k, v)
		}
		p := rate(m.cfg.AttentionDropout, in.Train)
		var o bindings.Tensor
		switch {
		case a.causal:
			o = s.CausalAttention(q, k, v, 0, p)
		case q.Size(2) == 1 && q.Size(1) != k.Size(1):
			// One query per row: the heads that share a K/V head become its rows, and K and V stay as they are.
			rows := s.Reshape(q, q.Size(0), int64(n), -1, q.Size(3))
			o = s.Reshape(s.Attention(rows, k, v, biasFor(s, a.bias, q), 0, p), q.Shape()...)
		default:
			o = s.Attention(q, k, v, biasFor(s, a.bias, q), 0, p)
		}
		for i, branch := range b.Branch {
			project := func(p bindings.Tensor) (bindings.Tensor, bindings.Tensor) {
				return ownHeads(s, b.Block, K, p, n), ownHeads(s, b.Block, V, p, n)
			}
			if in.Cache != nil {
				project = in.Cache.projected(s, b.index, i, project)
			}
			o = s.Add(o, branch.Attend(s, q, project))
		}
		return b.Linear(O).Forward(s, joinHeads(s, o))
	})
}

// Classify implements Model: it reads every row's last real token, whichever side is padded. Without a mask
// that is the last position.
func (m *LLaMA) Classify(s *bindings.Scope, in Input, out Output) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		last := m.pool(s, in, out)
		if c := m.hooks.Classifier; c != nil {
			return c.Forward(s, last)
		}
		return m.score.Forward(s, s.To(last, m.score.W.Value().DType())) // a method may keep its head in fp32 over a half base
	})
}

func (m *LLaMA) pool(s *bindings.Scope, in Input, out Output) bindings.Tensor {
	h := out.Hidden
	if m.hooks.Pool == FirstPosition {
		return s.Select(h, 1, 0)
	}
	if !in.Mask.Defined() || m.hooks.Pool == LastPosition {
		return s.Select(h, 1, h.Size(1)-1)
	}
	places := s.Arange(1, in.Mask.Size(1)+1, bindings.Int64, h.Device())
	last := s.ArgMax(s.Mul(places, s.To(in.Mask, bindings.Int64)), 1)
	index := s.To(s.AddScalar(s.Reshape(last, -1, 1, 1), float64(out.Virtual)), bindings.Int64)
	index = s.Expand(index, -1, 1, h.Size(2))
	return s.Squeeze(s.Gather(h, 1, index), 1)
}
