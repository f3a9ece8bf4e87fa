package peft

import (
	"fmt"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// table is what LoRA has trained of a table: the token embeddings, or the language-model head.
type table struct {
	name   string // the module's
	lora   bool   // a low-rank update of its own
	whole  bool   // the weight itself, which embeddings and head no longer share
	tokens []int64
}

const (
	embeddingA  = ".lora_embedding_A"
	embeddingB  = ".lora_embedding_B"
	tokenRows   = ".token_adapter.trainable_tokens_delta"
	tableWeight = ".weight"
)

// tablesOf are the names of a model's tables, the head's "" where it has none, and whether they are one.
func tablesOf(m model.Model) (words, head string, tied bool) {
	words = strings.TrimSuffix(m.Hooks().Words.Name, tableWeight)
	if c, ok := m.(model.CausalLM); ok && c.LMHead() != nil {
		head, tied = m.Info().LMHead, c.LMHead() == m.Hooks().Words
	}
	return words, head, tied
}

// own is the model's parameter of the table.
func (t table) own(m model.Model) *model.Param {
	if _, head, _ := tablesOf(m); t.name == head {
		return m.(model.CausalLM).LMHead()
	}
	return m.Hooks().Words
}

// adds are the table's parameters. Tokens that a text lacks have no gradient.
func (t table) adds(x *Structure, rank int) (out []NewParam) {
	vocab, d, r := int64(x.Info.Vocab), int64(x.Info.Hidden), int64(rank)
	switch {
	case t.lora && t.name == x.Info.LMHead:
		out = append(out, NewParam{Name: t.name + loraA, Shape: []int64{r, d}, Init: KaimingUniform(int(d)), ZeroGrad: true},
			NewParam{Name: t.name + loraB, Shape: []int64{vocab, r}, Init: Constant(0)})
	case t.lora:
		out = append(out, NewParam{Name: t.name + embeddingA, Shape: []int64{r, vocab}, Init: Constant(0)},
			NewParam{Name: t.name + embeddingB, Shape: []int64{d, r}, Init: Gaussian(1), ZeroGrad: true})
	case t.whole:
		out = append(out, NewParam{Name: t.name + tableWeight, Shape: []int64{vocab, d}, Init: func(s *bindings.Scope, m model.Model, _ []int64) (bindings.Tensor, error) {
			return t.own(m).Stored(s, bindings.Float), nil
		}})
	}
	if n := int64(len(t.tokens)); n > 0 {
		out = append(out, NewParam{Name: t.name + tokenRows, Shape: []int64{n, d}, ZeroGrad: true, Init: func(s *bindings.Scope, m model.Model, _ []int64) (bindings.Tensor, error) {
			p := t.own(m)
			return s.Detach(p.Rows(s, s.Int64sOn(p.Device(), t.tokens, n), bindings.Float)), nil
		}})
	}
	return out
}

// attach puts the table's parameters to work.
func (t table) attach(x *Attachment, scale, dropout float64) {
	head, _ := x.LMHead.(lmHead)
	tied := head.m != nil && head.m.LMHead() == x.Hooks.Words
	rows := x.Param(t.name + tokenRows)
	if head.m == nil || t.name != x.Info.LMHead {
		x.Hooks.Embed = &embeddings{t: t, scale: scale, a: x.Param(t.name + embeddingA), b: x.Param(t.name + embeddingB), whole: x.Param(t.name + tableWeight), rows: rows}
		if tied && rows != nil {
			x.Hooks.Unembed = &tokenHead{x.LMHead, rows, t.tokens}
		}
		return
	}
	switch {
	case t.lora:
		x.Hooks.Unembed = &loraLinear{dense: &model.Dense{W: head.m.LMHead()}, train: &x.Hooks.Train, dropout: dropout, scale: scale,
			a: x.Param(t.name + loraA), b: x.Param(t.name + loraB)}
	case t.whole:
		x.Hooks.Unembed = &ownHead{x.Param(t.name + tableWeight)}
	case rows != nil:
		x.Hooks.Unembed = &tokenHead{x.LMHead, rows, t.tokens}
	}
}

// embeddings are token embeddings with an update, with rows of their own, or all of their own.
type embeddings struct {
	t                 table
	scale             float64
	a, b, whole, rows *model.Param
}

// Embed implements model.Embedding.
func (e *embeddings) Embed(s *bindings.Scope, ids bindings.Tensor, own func(*bindings.Scope) bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		switch {
		case e.whole != nil:
			return s.Embedding(e.whole.T, ids)
		case e.a != nil:
			h := s.Embedding(s.Transpose(e.a.T, 0, 1), ids)
			return s.AddLowRank(own(s), h, e.b.T, e.scale)
		}
		n := int64(len(e.t.tokens))
		hits := s.Compare(s.Unsqueeze(ids, -1), bindings.Equal, s.Int64sOn(ids.Device(), e.t.tokens, n)) // [B, S, n]
		rows := s.Embedding(e.rows.T, s.ArgMax(s.To(hits, bindings.Int64), -1))
		some := s.SumDim(s.To(hits, rows.DType()), -1, true) // 1 where the token is one of them
		return s.Add(s.Mul(own(s), s.AddScalar(s.Neg(some), 1)), s.Mul(rows, some))
	})
}

// tokenHead is a language-model head with trained rows.
type tokenHead struct {
	inner  model.Linear
	rows   *model.Param
	tokens []int64
}

// Forward implements model.Linear.
func (h *tokenHead) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		y := h.inner.Forward(s, x)
		scores := s.To(s.Linear(s.To(x, h.rows.T.DType()), h.rows.T, bindings.Tensor{}), y.DType())
		at := s.Int64sOn(y.Device(), h.tokens, int64(len(h.tokens)))
		return s.Scatter(y, -1, s.Expand(at, scores.Shape()...), scores)
	})
}

// ownHead is a language-model head of the method's.
type ownHead struct{ w *model.Param }

// Forward implements model.Linear.
func (h *ownHead) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		return s.To(s.Linear(s.To(x, h.w.T.DType()), h.w.T, bindings.Tensor{}), x.DType())
	})
}

// checkTokens refuses token ids that a vocabulary lacks, and any given twice.
func checkTokens(tokens []int64, vocab int) error {
	sorted := slices.Sorted(slices.Values(tokens))
	for i, id := range sorted {
		switch {
		case id < 0 || id >= int64(vocab):
			return fmt.Errorf("trainable_token_indices: token %d is not in a vocabulary of %d", id, vocab)
		case i > 0 && id == sorted[i-1]:
			return fmt.Errorf("trainable_token_indices: token %d is given twice", id)
		}
	}
	return nil
}
