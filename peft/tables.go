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
	grows  int // rows of tokens that come behind the model's vocabulary
}

const (
	embeddingA  = ".lora_embedding_A"
	embeddingB  = ".lora_embedding_B"
	tokenRows   = ".token_adapter.trainable_tokens_delta"
	tableWeight = ".weight"
)

// newTables are the tables of a model of that structure in which new tokens have rows.
func newTables(x *Structure, tokens []int64) ([]table, error) {
	grows, err := checkTokens(tokens, x.Info.Vocab)
	out := []table{{name: x.Info.Words, tokens: tokens, grows: grows}}
	if x.HasLMHead && !x.Tied {
		out = append(out, table{name: x.Info.LMHead, tokens: tokens, grows: grows})
	}
	return out, err
}

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
			return t.firstRows(s, m), nil
		}})
	}
	return out
}

// firstRows are the model's rows of the tokens [n, hidden], and of those that it has none of the mean of all of its rows.
func (t table) firstRows(s *bindings.Scope, m model.Model) bindings.Tensor {
	p, vocab := t.own(m), int64(m.Info().Vocab)
	known, isNew := make([]int64, len(t.tokens)), make([]float32, len(t.tokens))
	for i, id := range t.tokens {
		if known[i] = id; id >= vocab {
			known[i], isNew[i] = 0, 1
		}
	}
	n := int64(len(t.tokens))
	rows := s.Detach(p.Rows(s, s.Int64sOn(p.Device(), known, n), bindings.Float))
	if t.grows == 0 {
		return rows
	}
	mean := s.MulScalar(s.SumDim(p.Stored(s, bindings.Float), 0, true), 1/float64(vocab))
	fresh := s.ToDevice(s.FromFloat32s(isNew, n, 1), bindings.Float, p.Device())
	return s.Add(s.Mul(rows, s.AddScalar(s.Neg(fresh), 1)), s.Mul(s.Detach(mean), fresh))
}

// attach puts the table's parameters to work.
func (t table) attach(x *Attachment, scale, dropout float64) {
	head, _ := x.LMHead.(lmHead)
	tied := head.m != nil && head.m.LMHead() == x.Hooks.Words
	rows := x.Param(t.name + tokenRows)
	x.Hooks.NewTokens = t.grows
	if head.m == nil || t.name != x.Info.LMHead {
		x.Hooks.Embed = &embeddings{t: t, scale: scale, a: x.Param(t.name + embeddingA), b: x.Param(t.name + embeddingB), whole: x.Param(t.name + tableWeight), rows: rows}
		if tied && rows != nil {
			x.Hooks.Unembed = &tokenHead{x.LMHead, rows, t}
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
		x.Hooks.Unembed = &tokenHead{x.LMHead, rows, t}
	}
}

// embeddings are token embeddings with an update, with rows of their own, or all of their own.
type embeddings struct {
	t                 table
	scale             float64
	a, b, whole, rows *model.Param
}

// Embed implements model.Embedding.
func (e *embeddings) Embed(s *bindings.Scope, ids bindings.Tensor, own func(*bindings.Scope, bindings.Tensor) bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		switch {
		case e.whole != nil:
			return s.Embedding(e.whole.T, ids)
		case e.a != nil:
			h := s.Embedding(s.Transpose(e.a.T, 0, 1), ids)
			return s.AddLowRank(own(s, ids), h, e.b.T, e.scale)
		}
		n := int64(len(e.t.tokens))
		hits := s.Compare(s.Unsqueeze(ids, -1), bindings.Equal, s.Int64sOn(ids.Device(), e.t.tokens, n)) // [B, S, n]
		rows := s.Embedding(e.rows.T, s.ArgMax(s.To(hits, bindings.Int64), -1))
		some := s.SumDim(s.To(hits, rows.DType()), -1, true) // 1 where the token is one of them
		if e.t.grows > 0 {                                   // ids that the model has no rows for are looked up as the first
			others := s.AddScalar(s.Neg(s.SumDim(s.To(hits, bindings.Int64), -1, false)), 1)
			ids = s.Mul(ids, s.To(others, bindings.Int64))
		}
		return s.Add(s.Mul(own(s, ids), s.AddScalar(s.Neg(some), 1)), s.Mul(rows, some))
	})
}

// tokenHead is a language-model head with trained rows.
type tokenHead struct {
	inner model.Linear
	rows  *model.Param
	t     table
}

// Forward implements model.Linear.
func (h *tokenHead) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		y := h.inner.Forward(s, x)
		if h.t.grows > 0 {
			shape := y.Shape()
			shape[len(shape)-1] = int64(h.t.grows)
			y = s.Cat(-1, y, s.Zeros(shape, y.DType(), y.Device()))
		}
		scores := s.To(s.Linear(s.To(x, h.rows.T.DType()), h.rows.T, bindings.Tensor{}), y.DType())
		at := s.Int64sOn(y.Device(), h.t.tokens, int64(len(h.t.tokens)))
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

// checkTokens refuses token ids that a vocabulary lacks, and any given twice. Those right behind the vocabulary are new ones;
// it tells how many.
func checkTokens(tokens []int64, vocab int) (grows int, err error) {
	sorted := slices.Sorted(slices.Values(tokens))
	for i, id := range sorted {
		switch {
		case i > 0 && id == sorted[i-1]:
			return 0, fmt.Errorf("trainable_token_indices: token %d is given twice", id)
		case id == int64(vocab+grows):
			grows++
		case id < 0 || id >= int64(vocab):
			return 0, fmt.Errorf("trainable_token_indices: token %d is not in a vocabulary of %d", id, vocab)
		}
	}
	return grows, nil
}
