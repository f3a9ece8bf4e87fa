package model

import (
	"encoding/json"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
)

// distilBERTFamily is DistilBERT, and where it is asked for BERT as far as a DistilBERT computes it: without token types
// and pooler.
func distilBERTFamily() family {
	return family{
		name:   "distilbert",
		types:  []string{"distilbert"},
		asked:  []string{"bert"},
		usual:  Info{Vocab: 30522, Hidden: 768, Layers: 6, Heads: 12, KVHeads: 12, HeadDim: 64, FFN: 3072, MaxPositions: 512},
		traits: Traits{Blocks: distilPrefix + "transformer.layer", Attention: "attention", Classifier: "classifier", Words: distilPrefix + "embeddings.word_embeddings"},
		maps: func(i Info) []Map {
			return encoderMaps(i, "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "ffn.lin1", "ffn.lin2")
		},
		size: func(config []byte) (positions, vocab int, err error) { return encoderSize(config, 512, 30522) },
		load: loadDistilBERT,
		config: func(i Info, labels int) map[string]any {
			return map[string]any{"model_type": "distilbert", "vocab_size": i.Vocab, "max_position_embeddings": i.MaxPositions, "n_layers": i.Layers,
				"n_heads": i.Heads, "dim": i.Hidden, "hidden_dim": i.FFN, "num_labels": labels}
		},
	}
}

// distilBERTConfig reads a DistilBERT's config.json with transformers' defaults.
func distilBERTConfig(config []byte) (encoderConfig, error) {
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
	}{30522, 512, 6, 12, 768, 3072, "gelu", 0.1, 0.1, 0.2, 0, 1e-12, 0.02}
	err := json.Unmarshal(config, &c)
	return encoderConfig{Vocab: c.Vocab, MaxPositions: c.MaxPositions, Layers: c.Layers, Heads: c.Heads, Dim: c.Dim, FFN: c.FFN,
		Activation: c.Activation, Dropout: c.Dropout, AttentionDropout: c.AttentionDropout, ClassifierDropout: c.ClassifierDropout,
		PadToken: c.PadToken, LayerNormEps: c.LayerNormEps, InitRange: c.InitRange}, err
}

// distilBERT is the config.json of a model that transformers loads as DistilBERT.
func (c *encoderConfig) distilBERT() map[string]any {
	m := map[string]any{
		"model_type": "distilbert", "architectures": []string{"DistilBertModel"},
		"vocab_size": c.Vocab, "max_position_embeddings": c.MaxPositions, "n_layers": c.Layers, "n_heads": c.Heads, "dim": c.Dim,
		"hidden_dim": c.FFN, "activation": c.Activation, "dropout": c.Dropout, "attention_dropout": c.AttentionDropout,
		"seq_classif_dropout": c.ClassifierDropout, "pad_token_id": c.PadToken, "initializer_range": c.InitRange,
		"sinusoidal_pos_embds": false, "tie_weights_": true, "torch_dtype": "float32",
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

// bertAsDistilBERT reads a BERT's names as a DistilBERT's. The pooler and the heads on it are left out.
func bertAsDistilBERT() hf.Request {
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
	cfg, err := distilBERTConfig(c.Config)
	names, types, bert := distilBERTNames(), 0, hf.ModelType(c.Config) == "bert"
	if bert {
		names = bertAsDistilBERT()
		cfg, err = bertConfig(c.Config)
		types, cfg.TokenTypes, cfg.DropsAttention = cfg.TokenTypes, 0, false
	}
	cfg, labels, freshHead, err := c.encoder(cfg, err)
	if err != nil {
		return nil, err
	}
	m := newDistilBERT(cfg, labels)
	if m.config = cfg.distilBERT(); len(labels) > 0 {
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
		m.info.LoadedFrom = "bert"
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

// newDistilBERT declares the encoder of Sanh et al. 2019 (no token types), with labels its classification head:
// pre_classifier → ReLU → dropout → classifier on [CLS].
func newDistilBERT(cfg encoderConfig, labels []string) *encoder {
	m := &encoder{cfg: cfg, info: cfg.info("distilbert")}
	m.labels = labels
	m.declareEncoder("sa_layer_norm", "output_layer_norm")
	if len(labels) == 0 {
		return m
	}
	pre, out := m.declareHead("pre_classifier", cfg.Dim), m.declareHead("classifier", len(labels))
	m.headNames = []string{"pre_classifier", "classifier"}
	m.classify = func(s *bindings.Scope, h bindings.Tensor, train bool) bindings.Tensor {
		return out.Forward(s, dropout(s, s.ReLU(pre.forwardAs(s, h)), cfg.ClassifierDropout, train))
	}
	return m
}
