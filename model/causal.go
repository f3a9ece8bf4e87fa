package model

import (
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// causal is what decoders have in common beside their blocks: a prompt before the tokens, and a language-model head or a
// sequence-classification head ("score", on the last real token).
type causal struct {
	base         // weights, hooks, labels: shared with encoders
	score *Dense // nil without a classification head

	logitScale, logitCap float64 // of decoderConfig
}

// declareHeads declares the head for the labels, or a language model's, which tied is the embedding table, in case there is
// one: without withHead, and without labels, the model gives hidden states only.
func (m *causal) declareHeads(hidden int, vocab int64, tied, withHead bool) {
	switch {
	case len(m.labels) > 0:
		m.score = m.declareMap("score", Map{In: hidden, Out: len(m.labels)})
		m.headNames = []string{"score"}
	case tied:
		m.head = m.hooks.Words
	case withHead:
		m.head = m.declareMatrix("lm_head.weight", vocab, int64(hidden))
	}
}

// holdsHead reports whether a checkpoint, whose names are read by names, has a language-model head of its own; one without
// weights is given one.
func holdsHead(c *opened, names hf.Request) bool {
	return c.Weights == nil || slices.ContainsFunc(c.Weights.Entries(), func(e files.Entry) bool {
		return names.Rename(e.Name) == "lm_head.weight"
	})
}

// withoutOtherHeads leaves out of what is read heads of another task, and an alias of the embedding table.
func (m *causal) withoutOtherHeads(names hf.Request, tied bool) hf.Request {
	ignore := names.Ignore
	names.Ignore = func(name string) bool {
		return ignore(name) || (m.score == nil && strings.HasPrefix(name, "score.")) || ((m.score != nil || tied) && name == "lm_head.weight")
	}
	return names
}

// finishConfig makes the loaded config one of the model as it is now, with weights of dtype d. class is what the names of
// transformers' classes begin with.
func (m *causal) finishConfig(class string, d bindings.DType) {
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

// embedPrompt gives the embeddings of in's tokens, times a factor, with the prompt before them, which is virtual tokens
// long: none where the cache holds its keys and values already.
func (m *causal) embedPrompt(s *bindings.Scope, in Input, factor float64) (h bindings.Tensor, virtual int) {
	prompt := m.hooks.Prompt
	if in.Cache != nil && in.Cache.tokens > 0 {
		prompt = nil
	}
	if prompt != nil {
		virtual = prompt.Len()
	}
	return withPrompt(s, prompt, scaled(s, m.embedTokens(s, in.IDs), factor)), virtual
}

// LMHead implements CausalLM.
func (m *causal) LMHead() *Param { return m.head }

// Logits implements CausalLM.
func (m *causal) Logits(s *bindings.Scope, hidden bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		var y bindings.Tensor
		switch u := m.hooks.Unembed; {
		case u != nil:
			y = u.Forward(s, hidden)
		case m.head != nil:
			y = (&Dense{W: m.head}).Forward(s, hidden)
		default:
			panic(&bindings.OpError{Op: "logits", Args: []string{hidden.String()}, Message: "the model has no language-model head"})
		}
		return softCap(s, scaled(s, y, m.logitScale), m.logitCap)
	})
}

// BareLogits implements CausalLM.
func (m *causal) BareLogits() bool { return m.logitScale == 0 && m.logitCap == 0 }

// scaled is x times a factor, 0 for none, in x's dtype.
func scaled(s *bindings.Scope, x bindings.Tensor, factor float64) bindings.Tensor {
	if factor == 0 || factor == 1 {
		return x
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor { return s.Mul(x, s.Scalar(factor, x.DType(), x.Device())) })
}

// softCap bends x to between -limit and limit (Gemma 2); a limit of 0 leaves it.
func softCap(s *bindings.Scope, x bindings.Tensor, limit float64) bindings.Tensor {
	if limit == 0 {
		return x
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		return s.MulScalar(s.Tanh(s.MulScalar(x, 1/limit)), limit)
	})
}

// Classify implements Model: it reads every row's last real token. Without a mask that is the last position.
func (m *causal) Classify(s *bindings.Scope, in Input, out Output) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		last := lastState(s, m.hooks.Pool, in.Mask, out)
		if c := m.hooks.Classifier; c != nil {
			return c.Forward(s, last)
		}
		return m.score.Forward(s, s.To(last, m.score.W.Value().DType())) // a method may keep its head in fp32 over a half base
	})
}
