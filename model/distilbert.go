package model

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
)

// distilBERTFamily is DistilBERT, and BERT as far as a DistilBERT computes it: without token types and pooler.
func distilBERTFamily() family {
	return family{
		name:   "distilbert",
		types:  []string{"distilbert", "bert"},
		usual:  Info{Vocab: 30522, Hidden: 768, Layers: 6, Heads: 12, KVHeads: 12, HeadDim: 64, FFN: 3072, MaxPositions: 512},
		traits: Traits{Blocks: distilPrefix + "transformer.layer", Attention: "attention", Classifier: "classifier", Words: distilPrefix + "embeddings.word_embeddings"},
		maps: func(i Info) []Map {
			d := i.Hidden
			return []Map{
				{Slot: Q, Name: "attention.q_lin", In: d, Out: d, Bias: true},
				{Slot: K, Name: "attention.k_lin", In: d, Out: d, Bias: true, Shiftless: true},
				{Slot: V, Name: "attention.v_lin", In: d, Out: d, Bias: true},
				{Slot: O, Name: "attention.out_lin", In: d, Out: d, Bias: true},
				{Slot: Up, Name: "ffn.lin1", In: d, Out: i.FFN, Bias: true},
				{Slot: Down, Name: "ffn.lin2", In: i.FFN, Out: d, Bias: true},
			}
		},
		size: func(config []byte) (positions, vocab int, err error) {
			c := struct {
				MaxPositions int `json:"max_position_embeddings"`
				Vocab        int `json:"vocab_size"`
			}{512, 30522}
			if err := json.Unmarshal(config, &c); err != nil {
				return 0, 0, err
			}
			return c.MaxPositions, c.Vocab, checkDims(dim{"max_position_embeddings", c.MaxPositions}, dim{"vocab_size", c.Vocab})
		},
		load: loadDistilBERT,
		config: func(i Info, labels int) map[string]any {
			return map[string]any{"model_type": "distilbert", "vocab_size": i.Vocab, "max_position_embeddings": i.MaxPositions, "n_layers": i.Layers,
				"n_heads": i.Heads, "dim": i.Hidden, "hidden_dim": i.FFN, "num_labels": labels}
		},
	}
}

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

// distilBERTConfig reads a DistilBERT's config.json with transformers' defaults.
func distilBERTConfig(config []byte) (DistilBERTConfig, error) {
	c := struct {
		Vocab             int     `json:"vocab_size"`
		MaxPositions      int     `json:"max_position_embeddings"`
		Layers            int     `json:"n_layers"`
		Heads             int     `json:"n_heads"`
		Dim               int     `json:"dim"`
		FFN               int     `json:"hidden_dim"`
		Activation        string  `json:"activation"`
		Dropout           float64 `json:"dropout"`
		AttentionDropout  float64 `json:"attention_dropout"`
		ClassifierDropout float64 `json:"seq_classif_dropout"`
		PadToken          int     `json:"pad_token_id"`
		LayerNormEps      float64 `json:"layer_norm_eps"` // not transformers': of a BERT that was saved as a DistilBERT
		InitRange         float64 `json:"initializer_range"`
		Sinusoidal        bool    `json:"sinusoidal_pos_embds"`
	}{30522, 512, 6, 12, 768, 3072, "gelu", 0.1, 0.1, 0.2, 0, 1e-12, 0.02, false}
	err := json.Unmarshal(config, &c)
	return DistilBERTConfig{c.Vocab, c.MaxPositions, c.Layers, c.Heads, c.Dim, c.FFN, c.Activation, c.Dropout, c.AttentionDropout,
		c.ClassifierDropout, c.PadToken, c.LayerNormEps, c.InitRange, c.Sinusoidal}, err
}

// bertConfig reads a BERT's config.json with transformers' defaults, and how many token types the model has.
func bertConfig(config []byte) (_ DistilBERTConfig, types int, err error) {
	c := struct {
		Vocab            int      `json:"vocab_size"`
		MaxPositions     int      `json:"max_position_embeddings"`
		Layers           int      `json:"num_hidden_layers"`
		Heads            int      `json:"num_attention_heads"`
		Dim              int      `json:"hidden_size"`
		FFN              int      `json:"intermediate_size"`
		Activation       string   `json:"hidden_act"`
		Dropout          float64  `json:"hidden_dropout_prob"`
		AttentionDropout float64  `json:"attention_probs_dropout_prob"`
		Classifier       *float64 `json:"classifier_dropout"`
		PadToken         int      `json:"pad_token_id"`
		LayerNormEps     float64  `json:"layer_norm_eps"`
		InitRange        float64  `json:"initializer_range"`
		TokenTypes       int      `json:"type_vocab_size"`
		Positions        string   `json:"position_embedding_type"`
	}{30522, 512, 12, 12, 768, 3072, "gelu", 0.1, 0.1, nil, 0, 1e-12, 0.02, 2, "absolute"}
	if err = json.Unmarshal(config, &c); err == nil && c.Positions != "absolute" {
		err = fmt.Errorf("position_embedding_type %q is not supported (absolute)", c.Positions)
	}
	if err == nil {
		err = checkDims(dim{"type_vocab_size", c.TokenTypes})
	}
	if c.Classifier == nil {
		c.Classifier = &c.Dropout
	}
	return DistilBERTConfig{c.Vocab, c.MaxPositions, c.Layers, c.Heads, c.Dim, c.FFN, c.Activation, c.Dropout, c.AttentionDropout,
		*c.Classifier, c.PadToken, c.LayerNormEps, c.InitRange, false}, c.TokenTypes, err
}

// complete puts o's dropout in place of the config's and says what no model can be built of.
func (c *DistilBERTConfig) complete(o Options) error {
	if err := checkDims(dim{"vocab_size", c.Vocab}, dim{"max_position_embeddings", c.MaxPositions}, dim{"the number of layers", c.Layers},
		dim{"the number of heads", c.Heads}, dim{"the hidden size", c.Dim}, dim{"the feed-forward size", c.FFN}); err != nil {
		return err
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

// json is the config.json of a model that transformers loads as DistilBERT.
func (c DistilBERTConfig) json() map[string]any {
	m := map[string]any{
		"model_type": "distilbert", "architectures": []string{"DistilBertModel"},
		"vocab_size": c.Vocab, "max_position_embeddings": c.MaxPositions, "n_layers": c.Layers, "n_heads": c.Heads, "dim": c.Dim,
		"hidden_dim": c.FFN, "activation": c.Activation, "dropout": c.Dropout, "attention_dropout": c.AttentionDropout,
		"seq_classif_dropout": c.ClassifierDropout, "pad_token_id": c.PadToken, "initializer_range": c.InitRange,
		"sinusoidal_pos_embds": c.SinusoidalPositions, "tie_weights_": true, "torch_dtype": "float32",
	}
	if c.LayerNormEps != 1e-12 {
		m["layer_norm_eps"] = c.LayerNormEps // transformers computes with 1e-12 whatever this says
	}
	return m
}

const distilPrefix = "distilbert."

// distilBERTNames reads a checkpoint's names, with or without the prefix.
func distilBERTNames() hf.Request {
	return hf.Request{
		Rename: func(name string) string {
			if strings.HasPrefix(name, "embeddings.") || strings.HasPrefix(name, "transformer.") {
				return distilPrefix + name
			}
			return name
		},
		// The masked-language-model head, and a buffer that old versions saved.
		Ignore: func(name string) bool {
			return strings.HasPrefix(name, "vocab_") || name == distilPrefix+"embeddings.position_ids"
		},
	}
}

// bertNames reads a BERT's names. The pooler and the heads on it are left out.
func bertNames() hf.Request {
	rename := strings.NewReplacer(
		"encoder.layer.", "transformer.layer.", ".attention.self.query.", ".attention.q_lin.", ".attention.self.key.", ".attention.k_lin.",
		".attention.self.value.", ".attention.v_lin.", ".attention.output.dense.", ".attention.out_lin.",
		".attention.output.LayerNorm.", ".sa_layer_norm.", ".intermediate.dense.", ".ffn.lin1.", ".output.dense.", ".ffn.lin2.",
		".output.LayerNorm.", ".output_layer_norm.")
	norms := strings.NewReplacer(".gamma", ".weight", ".beta", ".bias") // as converted from TensorFlow
	return hf.Request{
		Rename: func(name string) string {
			name = strings.TrimPrefix(name, "bert.")
			if !strings.HasPrefix(name, "embeddings.") && !strings.HasPrefix(name, "encoder.") {
				return "bert_" + name // nothing of DistilBERT's is called so
			}
			return distilPrefix + norms.Replace(rename.Replace(name))
		},
		Ignore: func(name string) bool {
			return strings.HasPrefix(name, "bert_") || name == distilPrefix+"embeddings.position_ids"
		},
	}
}

// loadDistilBERT builds the model of a DistilBERT's or a BERT's checkpoint. The first of a BERT's token types joins the
// positions.
func loadDistilBERT(s *bindings.Scope, c *opened) (Model, error) {
	where := func(err error) error { return fmt.Errorf("%s: %w", c.where, err) }
	cfg, err := distilBERTConfig(c.Config)
	names, types, bert := distilBERTNames(), 0, hf.ModelType(c.Config) == "bert"
	if bert {
		names = bertNames()
		cfg, types, err = bertConfig(c.Config)
	}
	if err != nil {
		return nil, where(err)
	}
	if err := cfg.complete(c.Options); err != nil {
		return nil, where(err)
	}
	labels, freshHead, err := headLabels(c.Config, c.Options)
	if err != nil {
		return nil, where(err)
	}
	m := newDistilBERT(cfg, labels)
	if m.config = cfg.json(); len(labels) > 0 {
		m.config["architectures"] = []string{"DistilBertForSequenceClassification"}
		m.setLabels(labels)
	}
	if !c.Classify { // a head in the file has no use
		ignore := names.Ignore
		names.Ignore = func(name string) bool {
			return ignore(name) || strings.HasPrefix(name, "pre_classifier.") || strings.HasPrefix(name, "classifier.")
		}
	}
	var more []hf.Want
	if bert {
		m.loadedFrom = "bert"
		more = []hf.Want{{Name: distilPrefix + "embeddings.token_type_embeddings.weight", Shape: []int64{int64(types), int64(cfg.Dim)}}}
	}
	return m, s.Run(func(s *bindings.Scope) error {
		rest, err := m.fill(s, c, names, freshHead, cfg.InitRange, more...)
		if err == nil && bert && rest[0].Defined() {
			m.places.file = nil // what is written is not in the file
			s.AddInPlace(m.places.T, s.Select(rest[0], 0, 0), 1)
		}
		return err
	})
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

type distilBlock struct {
	*Block
	attnNorm, ffnNorm layerNorm
}

// newDistilBERT declares the model's parameters; their tensors come from a checkpoint or from init.
func newDistilBERT(cfg DistilBERTConfig, labels []string) *DistilBERT {
	m := &DistilBERT{cfg: cfg}
	m.labels = labels
	info, d := m.Info(), int64(cfg.Dim)
	norm := func(name string) layerNorm {
		return layerNorm{m.declareNorm(name+".weight", one, d), m.declareNorm(name+".bias", zero, d), cfg.LayerNormEps}
	}
	m.words = m.declareMatrix(distilPrefix+"embeddings.word_embeddings.weight", int64(cfg.Vocab), d)
	m.hooks.Words = m.words
	m.places = m.declare(distilPrefix+"embeddings.position_embeddings.weight", normal, int64(cfg.MaxPositions), d)
	m.norm = norm(distilPrefix + "embeddings.LayerNorm")
	for i := range cfg.Layers {
		b := &distilBlock{Block: m.addBlock(info, i)}
		for _, mp := range info.Maps() {
			m.declareModule(b.Block, mp)
			if mp.Slot == O { // the norms stand where the model defines them, which decides the parameters' order
				b.attnNorm = norm(b.Name + ".sa_layer_norm")
			}
		}
		b.ffnNorm = norm(b.Name + ".output_layer_norm")
		m.blocks = append(m.blocks, b)
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
	return Info{Family: "distilbert", Vocab: c.Vocab, Hidden: c.Dim, Layers: c.Layers, Heads: c.Heads, KVHeads: c.Heads,
		HeadDim: c.Dim / c.Heads, FFN: c.FFN, MaxPositions: c.MaxPositions, LoadedFrom: m.loadedFrom}.Complete()
}

// Forward implements Model.
func (m *DistilBERT) Forward(s *bindings.Scope, in Input) Output {
	m.hooks.Train = in.Train
	h := m.embed(s, in)
	virtual := m.hooks.PromptLen()
	pad := &padding{scope: s, mask: extendMask(s, in.Mask, virtual)}
	h = m.through(s, in, h, len(m.blocks), func(i int, h bindings.Tensor) bindings.Tensor {
		read := everywhere
		if in.Pooled && in.States == nil && i == len(m.blocks)-1 {
			read, virtual = m.pooledAt(virtual, h.Size(1)), 0
		}
		return m.step(s, m.blocks[i], h, pad, in, read)
	})
	keepState(in, h)
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
		e := withPrompt(s, m.hooks.Prompt, m.embedTokens(s, in.IDs))
		var places bindings.Tensor
		if in.Positions.Defined() {
			places = s.Embedding(m.places.Value(), in.Positions)
		} else {
			places = s.Narrow(m.places.Value(), 0, 0, e.Size(1))
		}
		return dropout(s, m.norm.forward(s, s.Add(e, places)), m.cfg.Dropout, in.Train)
	})
}

// step is one block, its activations kept or, when in asks so, recomputed in the backward pass.
func (m *DistilBERT) step(s *bindings.Scope, b *distilBlock, h bindings.Tensor, pad *padding, in Input, read int) bindings.Tensor {
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
func (m *DistilBERT) block(s *bindings.Scope, b *distilBlock, all bindings.Tensor, a attention, dropout float64, read int) bindings.Tensor {
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
		join := func(s *bindings.Scope, h bindings.Tensor) bindings.Tensor { return b.attnNorm.forward(s, s.Add(h, x)) }
		y := b.attnNorm.afterAdd(s, transform(s, b.AfterAttn, attended, join), x, 0)
		f := s.In(func(s *bindings.Scope) bindings.Tensor {
			up, down := b.Linear(Up).Forward(s, y), b.Linear(Down)
			if m.cfg.Activation == "relu" {
				return down.Forward(s, s.ReLU(up))
			}
			return gelu(s, down, up)
		})
		if len(b.AfterFFN) > 0 { // transforms come after the sublayer's own dropout
			join := func(s *bindings.Scope, h bindings.Tensor) bindings.Tensor { return b.ffnNorm.forward(s, s.Add(h, y)) }
			f, dropout = transform(s, b.AfterFFN, s.Dropout(f, dropout), join), 0
		}
		return b.ffnNorm.afterAdd(s, f, y, dropout)
	})
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
