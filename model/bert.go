package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"gopeft/bindings"
	"gopeft/model/hf/files"
)

// bertFamily is BERT with token types, pooler and a classification head on it.
func bertFamily() family {
	return family{
		name:   "bert",
		types:  []string{"bert"},
		usual:  Info{Vocab: 30522, Hidden: 768, Layers: 12, Heads: 12, KVHeads: 12, HeadDim: 64, FFN: 3072, MaxPositions: 512},
		traits: Traits{Blocks: "bert.encoder.layer", Attention: "attention", Classifier: "classifier"},
		maps:   bertMaps,
		size:   func(config []byte) (positions, vocab int, err error) { return encoderSize(config, 512, 30522) },
		load:   loadBERT,
		config: func(i Info, labels int) map[string]any { return bertJSON("bert", i, labels) },
	}
}

// bertMaps are the maps of a block as BERT and the models made after it call them.
func bertMaps(i Info) []Map {
	return encoderMaps(i, "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
		"intermediate.dense", "output.dense")
}

// bertJSON is the config.json of a model of i's sizes.
func bertJSON(modelType string, i Info, labels int) map[string]any {
	return map[string]any{"model_type": modelType, "vocab_size": i.Vocab, "max_position_embeddings": i.MaxPositions, "num_hidden_layers": i.Layers,
		"num_attention_heads": i.Heads, "hidden_size": i.Hidden, "intermediate_size": i.FFN, "num_labels": labels}
}

// bertConfig reads a BERT's config.json with transformers' defaults.
func bertConfig(config []byte) (encoderConfig, error) {
	c := encoderJSON{30522, 512, 12, 12, 768, 3072, "gelu", 0.1, 0.1, nil, 0, 1e-12, 0.02, 2, "absolute", false}
	return c.read(config)
}

// encoderJSON is what the config.json of BERT and of the models made after it holds.
type encoderJSON struct {
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
	Decoder          bool     `json:"is_decoder"`
}

// read puts what config says over the defaults in c, and refuses what encoders here do not compute.
func (c encoderJSON) read(config []byte) (encoderConfig, error) {
	err := json.Unmarshal(config, &c)
	switch {
	case err != nil:
	case c.Positions != "absolute":
		err = fmt.Errorf("position_embedding_type %q is not supported (absolute)", c.Positions)
	case c.Decoder:
		err = errors.New("is_decoder is not supported: it is read as an encoder, which sees all of a text")
	default:
		err = checkDims(dim{"type_vocab_size", c.TokenTypes})
	}
	if c.Classifier == nil {
		c.Classifier = &c.Dropout
	}
	return encoderConfig{Vocab: c.Vocab, MaxPositions: c.MaxPositions, Layers: c.Layers, Heads: c.Heads, Dim: c.Dim, FFN: c.FFN,
		Activation: c.Activation, Dropout: c.Dropout, AttentionDropout: c.AttentionDropout, ClassifierDropout: *c.Classifier,
		PadToken: c.PadToken, LayerNormEps: c.LayerNormEps, InitRange: c.InitRange, TokenTypes: c.TokenTypes, DropsAttention: true}, err
}

// loadBERT builds the model of a BERT's checkpoint.
func loadBERT(s *bindings.Scope, c *opened) (Model, error) {
	cfg, labels, freshHead, err := c.encoder(bertConfig(c.Config))
	if err != nil {
		return nil, err
	}
	names := encoderNames("bert", c.Classify, "encoder", "pooler")
	pooled := c.Weights != nil && slices.ContainsFunc(c.Weights.Entries(), func(e files.Entry) bool {
		return names.Rename(e.Name) == "bert.pooler.dense.weight"
	})
	m := newBERT(cfg, labels, pooled)
	if m.config, err = configMap(c.Config); err != nil {
		return nil, fmt.Errorf("%s: %w", c.where, err)
	}
	m.finishConfig("Bert", c.DType)
	_, err = m.fill(s, c, names, freshHead, cfg.InitRange)
	return m, err
}

// newBERT declares the encoder of Devlin et al. 2019, with labels its classification head: pooler → tanh → dropout →
// classifier on [CLS]. A pooler that the checkpoint has is the model's, frozen as its blocks are; else it begins anew, as a
// part of the head.
func newBERT(cfg encoderConfig, labels []string, pooled bool) *encoder {
	m := &encoder{cfg: cfg, info: cfg.info("bert")}
	m.labels = labels
	m.declareEncoder("attention.output.LayerNorm", "output.LayerNorm")
	var pooler *Dense
	if pooled || len(labels) > 0 {
		pooler = m.declareHead("bert.pooler.dense", cfg.Dim)
	}
	if len(labels) == 0 {
		return m
	}
	out := m.declareHead("classifier", len(labels))
	if m.headNames = []string{"classifier"}; !pooled {
		m.headNames = []string{"bert.pooler", "classifier"}
	}
	m.classify = func(s *bindings.Scope, h bindings.Tensor, train bool) bindings.Tensor {
		h = s.Tanh(pooler.forwardAs(s, h))
		return out.forwardAs(s, dropout(s, h, cfg.ClassifierDropout, train))
	}
	return m
}

// finishConfig makes the loaded config one of the model as it is now, with weights of dtype d; class is what transformers'
// names of the family's classes begin with.
func (m *encoder) finishConfig(class string, d bindings.DType) {
	task := "Model"
	if len(m.labels) > 0 {
		task = "ForSequenceClassification"
		m.setLabels(m.labels)
	}
	m.config["architectures"] = []string{class + task}
	delete(m.config, "dtype")
	m.config["torch_dtype"] = torchDType(d)
}
