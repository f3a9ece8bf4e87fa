package model

import (
	"fmt"

	"gopeft/bindings"
)

// robertaFamily is RoBERTa with XLM-R and CamemBERT, which are RoBERTas of other texts.
func robertaFamily() family {
	return family{
		name:   "roberta",
		types:  []string{"roberta", "xlm-roberta", "camembert"},
		usual:  Info{Vocab: 50265, Hidden: 768, Layers: 12, Heads: 12, KVHeads: 12, HeadDim: 64, FFN: 3072, MaxPositions: 512},
		traits: Traits{Blocks: "roberta.encoder.layer", Attention: "attention", Classifier: "classifier.out_proj"},
		maps:   bertMaps,
		size: func(config []byte) (positions, vocab int, err error) {
			c, err := robertaConfig(config)
			if err != nil {
				return 0, 0, err
			}
			return c.MaxPositions, c.Vocab, checkDims(dim{"vocab_size", c.Vocab})
		},
		load: loadRoBERTa,
		config: func(i Info, labels int) map[string]any {
			c := bertJSON("roberta", i, labels)
			c["max_position_embeddings"], c["pad_token_id"], c["type_vocab_size"] = i.MaxPositions+2, 1, 1
			return c
		},
	}
}

// robertaConfig reads a config.json with transformers' defaults. The first row of the table of positions that is read is the
// one behind the padding token's id.
func robertaConfig(config []byte) (encoderConfig, error) {
	d := encoderJSON{50265, 512, 12, 12, 768, 3072, "gelu", 0.1, 0.1, nil, 1, 1e-12, 0.02, 2, "absolute", false}
	c, err := d.read(config)
	switch {
	case err != nil:
		return c, err
	case c.PadToken < 0 || c.PadToken > 1<<24:
		return c, fmt.Errorf("pad_token_id is %d, which positions are counted from", c.PadToken)
	}
	c.Unread = c.PadToken + 1
	if c.MaxPositions -= c.Unread; c.MaxPositions < 1 {
		return c, fmt.Errorf("max_position_embeddings is %d, which leaves none behind pad_token_id %d", c.MaxPositions+c.Unread, c.PadToken)
	}
	return c, nil
}

// loadRoBERTa builds the model of a RoBERTa's checkpoint.
func loadRoBERTa(s *bindings.Scope, c *opened) (Model, error) {
	cfg, labels, freshHead, err := c.encoder(robertaConfig(c.Config))
	if err != nil {
		return nil, err
	}
	m := newRoBERTa(cfg, labels)
	if m.config, err = configMap(c.Config); err != nil {
		return nil, fmt.Errorf("%s: %w", c.where, err)
	}
	classes := map[any]string{"roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
	m.finishConfig(classes[m.config["model_type"]], c.DType)
	names := encoderNames("roberta", c.Classify, "encoder", "pooler")
	ignore := names.Ignore
	names.Ignore = func(name string) bool {
		return ignore(name) || name == "roberta.pooler.dense.weight" || name == "roberta.pooler.dense.bias"
	}
	_, err = m.fill(s, c, names, freshHead, cfg.InitRange)
	return m, err
}

// newRoBERTa declares the encoder of Liu et al. 2019, with labels its classification head: dropout → dense → tanh → dropout →
// out_proj on the first token, <s>.
func newRoBERTa(cfg encoderConfig, labels []string) *encoder {
	m := &encoder{cfg: cfg, info: cfg.info("roberta")}
	m.labels = labels
	m.declareEncoder("attention.output.LayerNorm", "output.LayerNorm")
	m.positions = m.countedFromPadding
	if len(labels) == 0 {
		return m
	}
	dense, out := m.declareHead("classifier.dense", cfg.Dim), m.declareHead("classifier.out_proj", len(labels))
	m.headNames = []string{"classifier"}
	m.classify = func(s *bindings.Scope, h bindings.Tensor, train bool) bindings.Tensor {
		h = s.Tanh(dense.forwardAs(s, dropout(s, h, cfg.ClassifierDropout, train)))
		return out.Forward(s, dropout(s, h, cfg.ClassifierDropout, train))
	}
	return m
}

// countedFromPadding numbers the tokens that are not padding from the row behind the padding token's id on, virtual ones
// first; padding has the row of its id.
func (m *encoder) countedFromPadding(s *bindings.Scope, ids bindings.Tensor, virtual int) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		pad := int64(m.cfg.PadToken)
		real := s.To(s.CompareScalar(ids, bindings.NotEqual, float64(pad)), bindings.Int64)
		if virtual > 0 {
			real = s.Cat(1, s.Full([]int64{ids.Size(0), int64(virtual)}, 1, bindings.Int64, ids.Device()), real)
		}
		return s.To(s.AddScalar(s.Mul(s.CumSum(real, 1), real), float64(pad)), bindings.Int64)
	})
}
