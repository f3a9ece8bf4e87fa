package model

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// llamaFamily is LLaMA with Mistral, which adds a sliding window, and Qwen2, which adds biases on queries, keys and values.
func llamaFamily() family {
	return family{
		name:  "llama",
		types: []string{"llama", "mistral", "qwen2"},
		usual: Info{Vocab: 32000, Hidden: 768, Layers: 12, Heads: 12, KVHeads: 12, HeadDim: 64, FFN: 2048, MaxPositions: 2048},
		traits: Traits{Decoder: true, Rotary: true, PreNorm: true, Blocks: llamaPrefix + "layers", Attention: "self_attn",
			Classifier: "score", Words: llamaPrefix + "embed_tokens", LMHead: "lm_head"},
		maps: func(i Info) []Map {
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
		},
		size: func(config []byte) (positions, vocab int, err error) {
			c, err := llamaConfig(config)
			return c.Rope.reach(c.MaxPositions), c.Vocab, err
		},
		load: loadLLaMA,
		config: func(i Info, labels int) map[string]any {
			c := map[string]any{"model_type": "llama", "vocab_size": i.Vocab, "max_position_embeddings": i.MaxPositions, "num_hidden_layers": i.Layers,
				"num_attention_heads": i.Heads, "num_key_value_heads": i.KVHeads, "hidden_size": i.Hidden, "intermediate_size": i.FFN,
				"tie_word_embeddings": false}
			if i.HeadDim > 0 {
				c["head_dim"] = i.HeadDim
			}
			if labels > 0 {
				c["num_labels"] = labels
			}
			return c
		},
		gguf:       []string{"llama", "qwen2"},
		ggufConfig: llamaGGUFConfig,
	}
}

// llamaConfig reads a config.json with transformers' defaults.
func llamaConfig(raw []byte) (decoderConfig, error) {
	j := decoderJSON{Vocab: 32000, Hidden: 4096, FFN: 11008, Layers: 32, Heads: 32, MaxPositions: 2048, NormEps: 1e-6, Theta: 10000,
		InitRange: 0.02, Activation: "silu", PartialRotary: 1}
	window := 0
	switch hf.ModelType(raw) {
	case "mistral":
		eight := 8
		window = 4096
		j.FFN, j.KVHeads, j.MaxPositions = 14336, &eight, 131072
	case "qwen2":
		window = 4096
		j.Vocab, j.FFN, j.MaxPositions, j.WindowFrom = 151936, 22016, 32768, 28
	}
	j.Window = &window
	if err := json.Unmarshal(raw, &j); err != nil {
		return decoderConfig{}, err
	}
	c, err := j.config()
	if err != nil {
		return c, err
	}
	if j.Activation != "silu" && j.Activation != "swish" {
		return c, fmt.Errorf("hidden_act %q is not supported (silu)", j.Activation)
	}
	switch j.ModelType {
	case "mistral":
		c.Windows, err = j.windows(func(int) bool { return true })
	case "qwen2":
		c.QKVBias = true
		c.Windows, err = j.windows(func(layer int) bool { return j.UseWindow && layer >= j.WindowFrom })
	default:
		c.QKVBias, c.OutBias, c.MLPBias = j.AttentionBias, j.AttentionBias, j.MLPBias
		c.Windows = make([]int, c.Layers)
	}
	return c, err
}

// llamaGGUFConfig writes a GGUF file's metadata as the config.json they were made from.
func llamaGGUFConfig(g *files.GGUF, architecture string) ([]byte, error) {
	c, err := ggufDecoder(g, architecture)
	if err != nil {
		return nil, err
	}
	has := func(tensor string) bool { _, ok := g.Lookup(tensor); return ok }
	c["model_type"], c["hidden_act"] = architecture, "silu"
	qkv := has("blk.0.attn_q.bias")
	c["attention_bias"], c["mlp_bias"] = qkv, has("blk.0.ffn_up.bias")
	if architecture == "llama" && qkv && !has("blk.0.attn_output.bias") {
		c["model_type"] = "qwen2" // a LLaMA with biases on queries, keys and values alone is what that type means
	}
	return json.Marshal(c)
}

const llamaPrefix = "model."

// llamaNames reads a checkpoint's names, with or without the prefix, or a GGUF file's.
func llamaNames(c *opened, i Info) hf.Request {
	if c.gguf != nil {
		_, architecture, _ := familyOfGGUF(c.gguf) // which llamaGGUFConfig has read
		return ggufRequest(i, map[string]string{
			"token_embd": llamaPrefix + "embed_tokens", "output_norm": llamaPrefix + "norm", "output": "lm_head",
			"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
		}, architecture == "llama")
	}
	return hf.Request{
		Rename: func(name string) string {
			for _, own := range []string{"layers.", "embed_tokens.", "norm."} {
				if strings.HasPrefix(name, own) {
					return llamaPrefix + name
				}
			}
			return name
		},
		Ignore: func(name string) bool { return strings.HasSuffix(name, ".rotary_emb.inv_freq") },
	}
}

// loadLLaMA builds a decoder from a checkpoint. One without a head for its task has none of it.
func loadLLaMA(s *bindings.Scope, c *opened) (Model, error) {
	where := func(err error) error { return fmt.Errorf("%s: %w", c.where, err) }
	cfg, err := llamaConfig(c.Config)
	if err != nil {
		return nil, where(err)
	}
	if c.Dropout != nil {
		if cfg.AttentionDropout = *c.Dropout; !(*c.Dropout >= 0 && *c.Dropout < 1) {
			return nil, fmt.Errorf("dropout is %v, want 0 to below 1", *c.Dropout)
		}
	}
	labels, freshHead, err := headLabels(c.Config, c.Options)
	if err != nil {
		return nil, where(err)
	}
	names := llamaNames(c, (&LLaMA{cfg: cfg}).Info())
	withHead := c.Weights == nil || slices.ContainsFunc(c.Weights.Entries(), func(e files.Entry) bool {
		return names.Rename(e.Name) == "lm_head.weight"
	})
	m := newLLaMA(cfg, labels, withHead)
	if m.config, err = configMap(c.Config); err != nil {
		return nil, where(err)
	}
	m.finishConfig(c.DType)
	ignore := names.Ignore
	names.Ignore = func(name string) bool {
		// Heads of another task, an alias of the embedding table, and tables that old versions saved.
		return ignore(name) || (m.score == nil && strings.HasPrefix(name, "score.")) || ((m.score != nil || cfg.Tied) && name == "lm_head.weight")
	}
	_, err = m.fill(s, c, names, freshHead, cfg.InitRange)
	return m, err
}

// finishConfig makes the loaded config one of the model as it is now, with weights of dtype d.
func (m *LLaMA) finishConfig(d bindings.DType) {
	class := map[any]string{"mistral": "Mistral", "qwen2": "Qwen2"}[m.config["model_type"]]
	if class == "" {
		class = "Llama"
	}
	task := "ForCausalLM"
	switch {
	case m.score != nil:
		task = "ForSequenceClassification"
		m.setLabels(m.labels)
	case m.head == nil:
		task = "Model"
	}
	m.config["architectures"] = []string{class + task}
	delete(m.config, "dtype")
	m.config["torch_dtype"] = torchDType(d)
}

// LLaMA is the decoder of Touvron et al. 2023 (pre-norm blocks with RMSNorm, rotary positions, grouped-query
// attention, SwiGLU) with a language-model head or a sequence-classification head ("score", on the last real
// token). Mistral's sliding window and Qwen2's biases are settings of it.
type LLaMA struct {
	cfg    decoderConfig
	base   // weights, hooks, labels, language-model head: shared with the other families
	words  *Param
	blocks []*llamaBlock
	norm   rmsNorm
	score  *Dense // nil without a classification head
}

type llamaBlock struct {
	*Block
	index             int
	attnNorm, ffnNorm rmsNorm
}

// newLLaMA declares the model's parameters; their tensors come from a checkpoint or from init. Without
// withHead, and without labels, the model has no head at all and gives hidden states only.
func newLLaMA(cfg decoderConfig, labels []string, withHead bool) *LLaMA {
	m := &LLaMA{cfg: cfg}
	m.labels = labels
	info, d := m.Info(), int64(cfg.Hidden)
	norm := func(name string) rmsNorm { return rmsNorm{m.declareNorm(name+".weight", one, d), cfg.NormEps} }
	m.words = m.declareMatrix(llamaPrefix+"embed_tokens.weight", int64(cfg.Vocab), d)
	m.hooks.Words = m.words
	for i := range cfg.Layers {
		b := &llamaBlock{Block: m.addBlock(info, i), index: i}
		for _, mp := range info.Maps() {
			m.declareModule(b.Block, mp)
		}
		b.attnNorm = norm(b.Name + ".input_layernorm")
		b.ffnNorm = norm(b.Name + ".post_attention_layernorm")
		m.blocks = append(m.blocks, b)
	}
	m.norm = norm(llamaPrefix + "norm")
	switch {
	case len(labels) > 0:
		m.score = m.declareMap("score", Map{In: cfg.Hidden, Out: len(labels)})
		m.headNames = []string{"score"}
	case cfg.Tied:
		m.head = m.words
	case withHead:
		m.head = m.declareMatrix("lm_head.weight", int64(cfg.Vocab), d)
	}
	return m
}

// Info implements Model.
func (m *LLaMA) Info() Info {
	c := m.cfg
	i := Info{Family: "llama", Vocab: c.Vocab, Hidden: c.Hidden, Layers: c.Layers, Heads: c.Heads, KVHeads: c.KVHeads,
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

// rope is how positions turn queries and keys.
func (m *LLaMA) rope() Rope { return m.cfg.Rope }

// LMHead implements CausalLM.
func (m *LLaMA) LMHead() *Param { return m.head }

// Logits implements CausalLM.
func (m *LLaMA) Logits(s *bindings.Scope, hidden bindings.Tensor) bindings.Tensor {
	if u := m.hooks.Unembed; u != nil {
		return u.Forward(s, hidden)
	}
	if m.head == nil {
		panic(&bindings.OpError{Op: "logits", Args: []string{hidden.String()}, Message: "the model has no language-model head"})
	}
	return (&Dense{W: m.head}).Forward(s, hidden)
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
		virtual = m.hooks.PromptLen()
	}
	h := withPrompt(s, prompt, m.embedTokens(s, in.IDs))
	l := newLayout(s, m.cfg.Rope, m.cfg.HeadDim, in, virtual, m.hooks.MemoryLen(), computeDType(s, h), m.hooks.Pool != RealToken)
	l.kind = s.Sees(h, l.dtype, m.cfg.HeadDim)
	h = m.through(s, in, h, len(m.blocks), func(i int, h bindings.Tensor) bindings.Tensor { return m.step(s, m.blocks[i], h, l, in) })
	if in.Cache != nil {
		in.Cache.advance(l)
	}
	h = m.norm.forward(s, h)
	keepState(in, h) // as transformers has it, the last state follows the final norm
	return Output{Hidden: h, Virtual: virtual}
}

// step is one block, its activations kept or, when in asks so, recomputed in the backward pass.
func (m *LLaMA) step(s *bindings.Scope, b *llamaBlock, h bindings.Tensor, l *layout, in Input) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		var memory []bindings.Tensor
		if in.Cache == nil || in.Cache.tokens == 0 {
			memory = memories(s, b.Memory)
		}
		see := l.sees(in.Cache.extra(b.index, memory), m.cfg.Windows[b.index])
		kept := append([]bindings.Tensor{h, l.cos, l.sin, see.bias, see.by.Starts, see.by.Ends}, memory...)
		return checkpointed(s, in, kept, func(s *bindings.Scope, ts []bindings.Tensor) bindings.Tensor {
			see := see
			see.bias, see.by.Starts, see.by.Ends = ts[3], ts[4], ts[5]
			a := attention{sight: see, memory: ts[6:], cache: in.Cache, index: b.index, dropout: rate(m.cfg.AttentionDropout, in.Train)}
			return m.block(s, b, ts[0], ts[1], ts[2], a)
		})
	})
}

func (m *LLaMA) block(s *bindings.Scope, b *llamaBlock, x, cos, sin bindings.Tensor, a attention) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		join := func(s *bindings.Scope, h bindings.Tensor) bindings.Tensor { return s.Add(x, h) }
		x = s.Add(x, transform(s, b.AfterAttn, m.attend(s, b, b.attnNorm.forward(s, x), cos, sin, a), join))
		f := s.In(func(s *bindings.Scope) bindings.Tensor {
			h := b.ffnNorm.forward(s, x)
			gate, up := b.Linear(Gate).Forward(s, h), b.Linear(Up).Forward(s, h)
			return swiGLU(s, b.Linear(Down), gate, up)
		})
		return s.Add(x, transform(s, b.AfterFFN, f, join))
	})
}

// attend is rotary grouped-query attention.
func (m *LLaMA) attend(s *bindings.Scope, b *llamaBlock, x, cos, sin bindings.Tensor, a attention) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		q := mappedHeads(s, b.Block, Q, x, m.cfg.Heads)
		k := mappedHeads(s, b.Block, K, x, m.cfg.KVHeads)
		v := mappedHeads(s, b.Block, V, x, m.cfg.KVHeads)
		cos, sin := s.To(cos, q.DType()), s.To(sin, q.DType())
		q, k = s.RotateBoth(q, k, cos, sin)
		if b.Spread {
			k, v = spread(s, k, m.cfg.Heads), spread(s, v, m.cfg.Heads)
		}
		return a.apply(s, b.Block, q, k, v)
	})
}

// Classify implements Model: it reads every row's last real token. Without a mask that is the last position.
func (m *LLaMA) Classify(s *bindings.Scope, in Input, out Output) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		last := lastState(s, m.hooks.Pool, in.Mask, out)
		if c := m.hooks.Classifier; c != nil {
			return c.Forward(s, last)
		}
		return m.score.Forward(s, s.To(last, m.score.W.Value().DType())) // a method may keep its head in fp32 over a half base
	})
}
