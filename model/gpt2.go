package model

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

const gpt2Prefix = "transformer."

// gpt2Family is GPT-2 (Radford et al. 2019). Its checkpoints hold queries, keys and values as one map, and all maps of the
// blocks transposed: methods see them as any other family's.
func gpt2Family() family {
	return family{
		name:  "gpt2",
		types: []string{"gpt2"},
		usual: Info{Vocab: 50257, Hidden: 768, Layers: 12, Heads: 12, KVHeads: 12, HeadDim: 64, FFN: 3072, MaxPositions: 1024},
		traits: Traits{Decoder: true, PreNorm: true, KeepsActivation: true, Blocks: gpt2Prefix + "h", Attention: "attn",
			Classifier: "score", Words: gpt2Prefix + "wte", LMHead: "lm_head"},
		maps: func(i Info) []Map {
			d := i.Hidden
			part := func(slot Slot, first int) Map {
				return Map{Slot: slot, Name: "attn.c_attn." + string(slot), In: d, Out: d, Bias: true, Shiftless: slot == K,
					Part: Part{Of: "attn.c_attn", First: first, Out: 3 * d}, Transposed: true}
			}
			return []Map{part(Q, 0), part(K, d), part(V, 2*d),
				{Slot: O, Name: "attn.c_proj", In: d, Out: d, Bias: true, Transposed: true},
				{Slot: Up, Name: "mlp.c_fc", In: d, Out: i.FFN, Bias: true, Transposed: true},
				{Slot: Down, Name: "mlp.c_proj", In: i.FFN, Out: d, Bias: true, Transposed: true},
			}
		},
		size: func(config []byte) (positions, vocab int, err error) {
			c, err := readGPT2Config(config)
			return c.Positions, c.Vocab, err
		},
		load: loadGPT2,
		config: func(i Info, labels int) map[string]any {
			c := map[string]any{"model_type": "gpt2", "vocab_size": i.Vocab, "n_positions": i.MaxPositions, "n_layer": i.Layers,
				"n_head": i.Heads, "n_embd": i.Hidden, "n_inner": i.FFN}
			if labels > 0 {
				c["num_labels"] = labels
			}
			return c
		},
		gguf:       []string{"gpt2"},
		ggufConfig: gpt2GGUFConfig,
	}
}

// gpt2Config is the part of a config.json that shapes the model.
type gpt2Config struct {
	Vocab            int     `json:"vocab_size"`
	Positions        int     `json:"n_positions"`
	Layers           int     `json:"n_layer"`
	Heads            int     `json:"n_head"`
	Hidden           int     `json:"n_embd"`
	Inner            *int    `json:"n_inner"` // nil: four times the hidden size
	Activation       string  `json:"activation_function"`
	ResidualDropout  float64 `json:"resid_pdrop"`
	EmbeddingDropout float64 `json:"embd_pdrop"`
	AttentionDropout float64 `json:"attn_pdrop"`
	NormEps          float64 `json:"layer_norm_epsilon"`
	InitRange        float64 `json:"initializer_range"`
	Tied             bool    `json:"tie_word_embeddings"`
	Scaled           bool    `json:"scale_attn_weights"`              // by 1/√head width
	ScaledByLayer    bool    `json:"scale_attn_by_inverse_layer_idx"` // by 1/(layer+1) too
	Cross            bool    `json:"add_cross_attention"`
}

// readGPT2Config reads a config.json with transformers' defaults.
func readGPT2Config(raw []byte) (gpt2Config, error) {
	c := gpt2Config{Vocab: 50257, Positions: 1024, Layers: 12, Heads: 12, Hidden: 768, Activation: "gelu_new", ResidualDropout: 0.1,
		EmbeddingDropout: 0.1, AttentionDropout: 0.1, NormEps: 1e-5, InitRange: 0.02, Tied: true, Scaled: true}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, err
	}
	if err := checkDims(dim{"vocab_size", c.Vocab}, dim{"n_positions", c.Positions}, dim{"n_layer", c.Layers}, dim{"n_head", c.Heads},
		dim{"n_embd", c.Hidden}); err != nil {
		return c, err
	}
	if c.Inner == nil {
		four := 4 * c.Hidden
		c.Inner = &four
	}
	if err := checkDims(dim{"n_inner", *c.Inner}); err != nil {
		return c, err
	}
	switch {
	case c.Layers > maxLayers:
		return c, fmt.Errorf("n_layer is %d, more than %d", c.Layers, maxLayers)
	case c.Hidden%c.Heads != 0:
		return c, fmt.Errorf("n_embd %d is not a multiple of the %d heads", c.Hidden, c.Heads)
	case c.Activation != "gelu_new" && c.Activation != "gelu_pytorch_tanh":
		return c, fmt.Errorf("activation_function %q is not supported (gelu_new)", c.Activation)
	case c.Cross:
		return c, fmt.Errorf("add_cross_attention is not supported")
	case !(c.NormEps > 0 && c.NormEps < 1):
		return c, fmt.Errorf("layer_norm_epsilon is %v", c.NormEps)
	case !(c.InitRange >= 0) || math.IsInf(c.InitRange, 0):
		return c, fmt.Errorf("initializer_range is %v", c.InitRange)
	}
	return c, c.checkDropout()
}

func (c *gpt2Config) checkDropout() error {
	for _, p := range []float64{c.ResidualDropout, c.EmbeddingDropout, c.AttentionDropout} {
		if !(p >= 0 && p < 1) {
			return fmt.Errorf("a dropout rate is %v, want 0 to below 1", p)
		}
	}
	return nil
}

// gpt2GGUFConfig writes a GGUF file's metadata as the config.json they were made from.
func gpt2GGUFConfig(g *files.GGUF, architecture string) ([]byte, error) {
	r := metaReader{g: g, architecture: architecture}
	c := map[string]any{"model_type": "gpt2", "activation_function": "gelu_new"}
	for key, name := range map[string]string{"embedding_length": "n_embd", "feed_forward_length": "n_inner", "block_count": "n_layer",
		"attention.head_count": "n_head", "context_length": "n_positions"} {
		c[name] = r.size(key, 0)
	}
	c["layer_norm_epsilon"] = r.number("attention.layer_norm_epsilon", 1e-5)
	if r.err != nil {
		return nil, r.err
	}
	if err := ggufTables(g, c); err != nil {
		return nil, err
	}
	return json.Marshal(c)
}

// gpt2Names reads a checkpoint's names, with or without the prefix, or a GGUF file's.
func gpt2Names(c *opened, i Info) hf.Request {
	if c.gguf != nil {
		return ggufRequest(i, map[string]string{
			"token_embd": gpt2Prefix + "wte", "position_embd": gpt2Prefix + "wpe", "output_norm": gpt2Prefix + "ln_f", "output": "lm_head",
			"attn_norm": "ln_1", "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn",
		}, false)
	}
	return hf.Request{
		Rename: func(name string) string {
			for _, own := range []string{"h.", "wte.", "wpe.", "ln_f."} {
				if strings.HasPrefix(name, own) {
					return gpt2Prefix + name
				}
			}
			return name
		},
		// Masks that old versions saved.
		Ignore: func(name string) bool {
			return strings.HasSuffix(name, ".attn.bias") || strings.HasSuffix(name, ".attn.masked_bias")
		},
	}
}

// loadGPT2 builds a GPT-2 from a checkpoint.
func loadGPT2(s *bindings.Scope, c *opened) (Model, error) {
	where := func(err error) error { return fmt.Errorf("%s: %w", c.where, err) }
	cfg, err := readGPT2Config(c.Config)
	if err == nil && c.Dropout != nil {
		cfg.ResidualDropout, cfg.EmbeddingDropout, cfg.AttentionDropout = *c.Dropout, *c.Dropout, *c.Dropout
		err = cfg.checkDropout()
	}
	if err != nil {
		return nil, where(err)
	}
	labels, freshHead, err := headLabels(c.Config, c.Options)
	if err != nil {
		return nil, where(err)
	}
	names := gpt2Names(c, (&gpt2{cfg: cfg}).Info())
	m := newGPT2(cfg, labels, holdsHead(c, names))
	if m.config, err = configMap(c.Config); err != nil {
		return nil, where(err)
	}
	m.finishConfig("GPT2", c.DType)
	if m.head != nil && m.score == nil {
		m.config["architectures"] = []string{"GPT2LMHeadModel"}
	}
	_, err = m.fill(s, c, m.withoutOtherHeads(names, cfg.Tied), freshHead, cfg.InitRange)
	return m, err
}

// gpt2 is GPT-2 with a language-model head or a sequence-classification head.
type gpt2 struct {
	cfg gpt2Config
	causal
	places *Param // [positions, hidden]
	blocks []*gpt2Block
	norm   layerNorm
}

type gpt2Block struct {
	*Block
	index             int
	scale             float64 // of attention's scores
	attnNorm, ffnNorm layerNorm
}

// newGPT2 declares the model's parameters; their tensors come from a checkpoint or from init.
func newGPT2(cfg gpt2Config, labels []string, withHead bool) *gpt2 {
	m := &gpt2{cfg: cfg}
	m.labels = labels
	info, d := m.Info(), int64(cfg.Hidden)
	norm := func(name string) layerNorm {
		return layerNorm{m.declareNorm(name+".weight", one, d), m.declareNorm(name+".bias", zero, d), cfg.NormEps}
	}
	m.hooks.Words = m.declareMatrix(gpt2Prefix+"wte.weight", int64(cfg.Vocab), d)
	m.places = m.declare(gpt2Prefix+"wpe.weight", normal, int64(cfg.Positions), d)
	for i := range cfg.Layers {
		b := &gpt2Block{Block: m.addBlock(info, i), index: i, scale: 1}
		if cfg.Scaled {
			b.scale = 1 / math.Sqrt(float64(info.HeadDim))
		}
		if cfg.ScaledByLayer {
			b.scale /= float64(i + 1)
		}
		b.attnNorm = norm(b.Name + ".ln_1")
		for _, mp := range info.Maps() {
			if mp.Slot == Up { // the norms stand where the model defines them, which decides the parameters' order
				b.ffnNorm = norm(b.Name + ".ln_2")
			}
			m.declareModule(b.Block, mp)
		}
		m.blocks = append(m.blocks, b)
	}
	m.norm = norm(gpt2Prefix + "ln_f")
	m.declareHeads(cfg.Hidden, int64(cfg.Vocab), cfg.Tied, withHead)
	return m
}

// Info implements Model.
func (m *gpt2) Info() Info {
	c := m.cfg
	return Info{Family: "gpt2", Vocab: c.Vocab, Hidden: c.Hidden, Layers: c.Layers, Heads: c.Heads, KVHeads: c.Heads,
		HeadDim: c.Hidden / c.Heads, FFN: *c.Inner, MaxPositions: c.Positions}.Complete()
}

// Forward implements Model. With in.Cache it computes the new tokens only and adds them to the cache.
func (m *gpt2) Forward(s *bindings.Scope, in Input) Output {
	m.hooks.Train = in.Train
	e, virtual := m.embedPrompt(s, in, 0)
	l := newLayout(s, in, virtual, m.hooks.MemoryLen(), computeDType(s, e), m.hooks.Pool != RealToken)
	l.kind = s.Sees(e, l.dtype, m.Info().HeadDim)
	h := s.In(func(s *bindings.Scope) bindings.Tensor {
		return dropout(s, s.Add(e, s.Embedding(m.places.Value(), l.positions(s))), m.cfg.EmbeddingDropout, in.Train)
	})
	h = m.through(s, in, h, len(m.blocks), func(i int, h bindings.Tensor) bindings.Tensor { return m.step(s, m.blocks[i], h, l, in) })
	if in.Cache != nil {
		in.Cache.advance(l)
	}
	h = m.norm.forward(s, h)
	keepState(in, h) // as transformers has it, the last state follows the final norm
	return Output{Hidden: h, Virtual: virtual}
}

// step is one block, its activations kept or, when in asks so, recomputed in the backward pass.
func (m *gpt2) step(s *bindings.Scope, b *gpt2Block, h bindings.Tensor, l *layout, in Input) bindings.Tensor {
	a := attention{index: b.index, scale: b.scale, dropout: rate(m.cfg.AttentionDropout, in.Train)}
	return a.step(s, in, b.Block, l, 0, []bindings.Tensor{h}, func(s *bindings.Scope, ts []bindings.Tensor, a attention) bindings.Tensor {
		return m.block(s, b, ts[0], a, rate(m.cfg.ResidualDropout, in.Train))
	})
}

func (m *gpt2) block(s *bindings.Scope, b *gpt2Block, x bindings.Tensor, a attention, p float64) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		join := func(s *bindings.Scope, h bindings.Tensor) bindings.Tensor { return s.Add(x, h) }
		attended := s.In(func(s *bindings.Scope) bindings.Tensor {
			h := b.attnNorm.forward(s, x)
			q, k := mappedHeads(s, b.Block, Q, h, m.cfg.Heads), mappedHeads(s, b.Block, K, h, m.cfg.Heads)
			return s.Dropout(a.apply(s, b.Block, q, k, mappedHeads(s, b.Block, V, h, m.cfg.Heads)), p)
		})
		x = s.Add(x, transform(s, b.AfterAttn, attended, join))
		f := s.In(func(s *bindings.Scope) bindings.Tensor {
			up := b.Linear(Up).Forward(s, b.ffnNorm.forward(s, x))
			return s.Dropout(b.Linear(Down).Forward(s, s.GELUTanh(up)), p)
		})
		return s.Add(x, transform(s, b.AfterFFN, f, join))
	})
}
