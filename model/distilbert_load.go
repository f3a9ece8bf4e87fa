package model

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
)

// loadDistilBERT builds a DistilBERT from its own checkpoint, with or without the "distilbert." prefix.
func loadDistilBERT(s *bindings.Scope, c *hf.Checkpoint, o Options) (*DistilBERT, error) {
	raw := struct {
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
		InitRange         float64 `json:"initializer_range"`
		Sinusoidal        bool    `json:"sinusoidal_pos_embds"`
		LayerNormEps      float64 `json:"layer_norm_eps"` // not transformers': a BERT checkpoint may differ, see distilConfig
	}{30522, 512, 6, 12, 768, 3072, "gelu", 0.1, 0.1, 0.2, 0, 0.02, false, 1e-12} // transformers' defaults
	if err := json.Unmarshal(c.Config, &raw); err != nil {
		return nil, fmt.Errorf("%s/config.json: %w", c.Path, err)
	}
	cfg := DistilBERTConfig{
		Vocab: raw.Vocab, MaxPositions: raw.MaxPositions, Layers: raw.Layers, Heads: raw.Heads, Dim: raw.Dim, FFN: raw.FFN,
		Activation: raw.Activation, Dropout: raw.Dropout, AttentionDropout: raw.AttentionDropout, ClassifierDropout: raw.ClassifierDropout,
		PadToken: raw.PadToken, InitRange: raw.InitRange, LayerNormEps: raw.LayerNormEps, SinusoidalPositions: raw.Sinusoidal,
	}
	return openDistilBERT(s, c, o, cfg, hf.Request{
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
	}, nil)
}

// loadBERT builds a DistilBERT from a BERT checkpoint: the first row of token_type_embeddings joins the
// positions, the pooler and the heads on it are left out.
func loadBERT(s *bindings.Scope, c *hf.Checkpoint, o Options) (*DistilBERT, error) {
	raw := struct {
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
		InitRange        float64  `json:"initializer_range"`
		LayerNormEps     float64  `json:"layer_norm_eps"`
		TokenTypes       int      `json:"type_vocab_size"`
		Positions        string   `json:"position_embedding_type"`
	}{30522, 512, 12, 12, 768, 3072, "gelu", 0.1, 0.1, nil, 0, 0.02, 1e-12, 2, "absolute"}
	if err := json.Unmarshal(c.Config, &raw); err != nil {
		return nil, fmt.Errorf("%s/config.json: %w", c.Path, err)
	}
	if raw.Positions != "absolute" {
		return nil, fmt.Errorf("%s/config.json: position_embedding_type %q is not supported (absolute)", c.Path, raw.Positions)
	}
	if err := checkDims(dim{"type_vocab_size", raw.TokenTypes}); err != nil {
		return nil, fmt.Errorf("%s/config.json: %w", c.Path, err)
	}
	cfg := DistilBERTConfig{
		Vocab: raw.Vocab, MaxPositions: raw.MaxPositions, Layers: raw.Layers, Heads: raw.Heads, Dim: raw.Dim, FFN: raw.FFN,
		Activation: raw.Activation, Dropout: raw.Dropout, AttentionDropout: raw.AttentionDropout, ClassifierDropout: raw.Dropout,
		PadToken: raw.PadToken, InitRange: raw.InitRange, LayerNormEps: raw.LayerNormEps,
	}
	if raw.Classifier != nil {
		cfg.ClassifierDropout = *raw.Classifier
	}
	rename := strings.NewReplacer(
		"encoder.layer.", "transformer.layer.", ".attention.self.query.", ".attention.q_lin.", ".attention.self.key.", ".attention.k_lin.",
		".attention.self.value.", ".attention.v_lin.", ".attention.output.dense.", ".attention.out_lin.",
		".attention.output.LayerNorm.", ".sa_layer_norm.", ".intermediate.dense.", ".ffn.lin1.", ".output.dense.", ".ffn.lin2.",
		".output.LayerNorm.", ".output_layer_norm.")
	norms := strings.NewReplacer(".gamma", ".weight", ".beta", ".bias") // as converted from TensorFlow
	types := hf.Want{Name: distilPrefix + "embeddings.token_type_embeddings.weight", Shape: []int64{int64(raw.TokenTypes), int64(cfg.Dim)}}
	return openDistilBERT(s, c, o, cfg, hf.Request{
		Rename: func(name string) string {
			name = strings.TrimPrefix(name, "bert.")
			if !strings.HasPrefix(name, "embeddings.") && !strings.HasPrefix(name, "encoder.") {
				return "bert_" + name // the pooler and the heads on it: nothing of DistilBERT's is called so
			}
			return distilPrefix + norms.Replace(rename.Replace(name))
		},
		Ignore: func(name string) bool {
			return strings.HasPrefix(name, "bert_") || name == distilPrefix+"embeddings.position_ids"
		},
	}, &types)
}

// openDistilBERT checks the config, builds the model and fills it. types, if any, is the token-type table
// whose first row joins the positions.
func openDistilBERT(s *bindings.Scope, c *hf.Checkpoint, o Options, cfg DistilBERTConfig, r hf.Request, types *hf.Want) (*DistilBERT, error) {
	where := func(err error) error { return fmt.Errorf("%s/config.json: %w", c.Path, err) }
	if err := checkDims(dim{"vocab_size", cfg.Vocab}, dim{"max_position_embeddings", cfg.MaxPositions}, dim{"the number of layers", cfg.Layers},
		dim{"the number of heads", cfg.Heads}, dim{"the hidden size", cfg.Dim}, dim{"the feed-forward size", cfg.FFN}); err != nil {
		return nil, where(err)
	}
	if cfg.Dim%cfg.Heads != 0 {
		return nil, where(fmt.Errorf("the hidden size %d is not a multiple of the %d heads", cfg.Dim, cfg.Heads))
	}
	if cfg.Activation != "gelu" && cfg.Activation != "relu" {
		return nil, where(fmt.Errorf("activation %q is not supported (gelu, relu)", cfg.Activation))
	}
	if o.Dropout != nil {
		cfg.Dropout, cfg.AttentionDropout, cfg.ClassifierDropout = *o.Dropout, *o.Dropout, *o.Dropout
	}
	for _, p := range []float64{cfg.Dropout, cfg.AttentionDropout, cfg.ClassifierDropout} {
		if p < 0 || p >= 1 || math.IsNaN(p) {
			return nil, where(fmt.Errorf("a dropout rate is %v, want 0 to below 1", p))
		}
	}
	labels, fresh, err := headLabels(c.Config, o)
	if err != nil {
		return nil, where(err)
	}
	m := newDistilBERT(cfg, labels)
	m.config = distilConfig(cfg)
	if len(labels) > 0 {
		m.setLabels(labels)
	} else {
		m.config["architectures"] = []string{"DistilBertModel"}
	}
	r.Wants, r.DType, r.Device, r.Copy = m.wants(fresh), o.DType, o.Device, o.Copy
	if !o.Classify { // a head in the file has no use
		ignore := r.Ignore
		r.Ignore = func(name string) bool {
			return ignore(name) || strings.HasPrefix(name, "pre_classifier.") || strings.HasPrefix(name, "classifier.")
		}
	}
	if types != nil {
		m.loadedFrom = "bert"
		r.Wants = append(r.Wants, *types)
	}
	return m, s.Run(func(s *bindings.Scope) error {
		extra, err := m.fill(s, c, r, cfg.InitRange)
		if err == nil && types != nil && extra[0].Defined() {
			m.places.file = nil // what is written is not in the file
			s.AddInPlace(m.places.T, s.Select(extra[0], 0, 0), 1)
		}
		return err
	})
}

// distilConfig is the config.json of a model that transformers loads as DistilBERT.
func distilConfig(c DistilBERTConfig) map[string]any {
	m := map[string]any{
		"model_type": "distilbert", "architectures": []string{"DistilBertForSequenceClassification"},
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
