package train_test

import (
	"gopeft/bindings"
	"gopeft/bindings/bindingstest"
	"gopeft/model"
	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/data"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLogitsOfATrainedHeadExistInChunks(t *testing.T) {
	const vocab, hidden, width = 1 << 17, 8, 150 // 128 rows of logits make a chunk
	bindingstest.Do(t, func(s *bindings.Scope) error {
		s.Seed(4)
		built, err := model.New(s, []byte(`{"model_type": "llama", "vocab_size": 131072, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
			"num_attention_heads": 2, "initializer_range": 0.5}`), model.Options{})
		if err != nil {
			return err
		}
		m := built.(model.CausalLM)
		head := &spyHead{inner: m.LMHead().Value(), scale: s.Uniform([]int64{vocab}, 0.5, 1.5, bindings.Float, bindings.CPU)}
		s.SetRequiresGrad(head.scale, true)
		words := m.Hooks().Words.T
		s.SetRequiresGrad(words, true)
		m.Hooks().Unembed = head
		seqs := make([]data.Sequence, 2)
		for i := range seqs {
			for j := range width {
				seqs[i].IDs = append(seqs[i].IDs, int64((j*j*977+i)%vocab))
			}
			seqs[i].Targets = seqs[i].IDs
		}
		b, err := data.CollateCausal(seqs, data.CollateOptions{})
		if err != nil {
			return err
		}
		in := func(s *bindings.Scope) model.Input {
			return model.Input{IDs: s.FromInt64s(b.IDs, int64(b.Rows), int64(b.Width)), Train: true}
		}
		grads := func(loss func(s *bindings.Scope) bindings.Tensor) (out []bindings.Tensor) {
			_ = s.Run(func(c *bindings.Scope) error {
				l := loss(c)
				c.Backward(l)
				out = append(out, c.MoveTo(s, c.Detach(l)))
				return nil
			})
			for _, p := range []bindings.Tensor{head.scale, words} {
				out = append(out, s.Clone(s.Grad(p)))
				s.SetGrad(p, bindings.Tensor{})
			}
			return out
		}
		got := grads(func(s *bindings.Scope) bindings.Tensor { return train.Causal{}.Measure(s, m, b, in(s)).Loss })
		if want := []int64{128, 128, 42, 42, 128, 128}; !cmp.Equal(slices.Sorted(slices.Values(head.rows)), slices.Sorted(slices.Values(want))) {
			t.Errorf("rows of logits made at once: %v, want %v", head.rows, want)
		}
		head.rows = nil
		whole := grads(func(s *bindings.Scope) bindings.Tensor {
			return train.Causal{WholeLogits: true}.Measure(s, m, b, in(s)).Loss
		})
		if want := []int64{2 * (width - 1)}; !slices.Equal(head.rows, want) {
			t.Errorf("rows of logits made at once without chunks: %v, want %v", head.rows, want)
		}
		want := grads(func(s *bindings.Scope) bindings.Tensor {
			logits := m.Logits(s, m.Forward(s, in(s)).Hidden)
			flat := s.Reshape(s.Narrow(logits, 1, 0, width-1), -1, vocab)
			targets := s.FromInt64s(slices.Concat(seqs[0].IDs[1:], seqs[1].IDs[1:]), 2*(width-1))
			return s.CrossEntropy(flat, targets, data.IgnoreTarget, false)
		})
		for i, name := range []string{"loss", "scale's gradient", "embeddings' gradient"} {
			largest := s.MaxAll(s.Abs(want[i])).Item()
			modeltest.Close(t, name, got[i], want[i], 1e-5*max(largest, 1e-3))
			modeltest.Close(t, name+" without chunks", whole[i], want[i], 1e-5*max(largest, 1e-3))
			s.Free(got[i])
			s.Free(whole[i])
			s.Free(want[i])
		}
		s.SetRequiresGrad(words, false)
		return m.Close()
	})
}

// spyHead is a head with a scale of its own that notes how many rows it maps at once.
type spyHead struct {
	inner bindings.Tensor
	scale bindings.Tensor
	rows  []int64
}

func (h *spyHead) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	h.rows = append(h.rows, x.Size(0))
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		return s.Mul(s.Linear(x, h.inner, bindings.Tensor{}), h.scale)
	})
}
