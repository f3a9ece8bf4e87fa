package run

import (
	"context"
	"errors"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train"
	"gopeft/train/data"
)

// cachedModel is a model whose hidden states were computed before: a batch's ids are rows of them, and a row is
// the one state that the classification head reads.
type cachedModel struct {
	model.Model
	states bindings.Tensor // [examples, hidden] fp32
}

// Forward implements model.Model.
func (m *cachedModel) Forward(s *bindings.Scope, in model.Input) model.Output {
	return model.Output{Hidden: s.In(func(s *bindings.Scope) bindings.Tensor {
		return s.Unsqueeze(s.IndexSelect(m.states, 0, s.Reshape(in.IDs, -1)), 1)
	})}
}

// cacheFeatures runs the frozen model once over all data and lets the trainer go on with what the head reads.
func (r *run) cacheFeatures(ctx context.Context, s *bindings.Scope) error {
	r.ui.Note("the frozen model is run once, with its dropout off; all epochs train the head on what it gave (--cache-features)")
	parts := []**train.Part{&r.data.train, &r.data.val, &r.data.test}
	total := 0
	for _, p := range parts {
		if *p != nil {
			total += len((*p).Lengths)
		}
	}
	c := &cachedModel{Model: r.model}
	c.states = r.model.Scope().Empty([]int64{int64(total), int64(r.model.Info().Hidden)}, bindings.Float, r.on.Device)
	from := 0
	if r.on.Group.Size() > 1 {
		r.model.Scope().Fill(c.states, 0) // where another process computes
	}
	for _, p := range parts {
		if *p == nil {
			continue
		}
		if err := r.fillStates(ctx, s, *p, c.states, from, total); err != nil {
			return cancelled(ctx, err)
		}
		*p = cachedPart(*p, from)
		from += len((*p).Lengths)
	}
	r.trainer.Model, r.trainer.Data = c, r.data.train
	return r.on.Group.SumTensor(c.states)
}

// fillStates computes the state that the head reads of every example of p, example i into row from+i.
func (r *run) fillStates(ctx context.Context, s *bindings.Scope, p *train.Part, states bindings.Tensor, from, total int) error {
	batches, err := train.EvalOrder(p.Lengths, r.trainer.Config.EvalBatch, 0, r.on).Epoch(0)
	if err != nil {
		return err
	}
	progress := func(done, _ int) { r.ui.Progress("features", from+done, total, "") }
	return r.on.EachBatch(ctx, s, p, batches, progress, func(s *bindings.Scope, b data.Batch) (keep func(i int)) {
		s.Inference(func() {
			var out model.Output
			s.Autocast(r.on.Device, r.on.Precision.DType, func() { out = r.model.Forward(s, train.Input(s, b, r.on.Device)) })
			at := s.Int64sOn(r.on.Device, headRows(r.model, b), int64(b.Rows))
			read := s.To(s.IndexSelect(s.Reshape(out.Hidden, -1, out.Hidden.Size(-1)), 0, at), bindings.Float)
			keep = func(i int) {
				for k, example := range batches[i] {
					s.Copy(s.Narrow(states, 0, int64(from+example), 1), s.Narrow(read, 0, int64(k), 1))
				}
			}
		})
		return keep
	})
}

// cancelled is the error of an interrupted wait, as the caller of Run knows it.
func cancelled(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, context.Canceled) { // of this process, or of another
		return errors.Join(ErrInterrupted, err)
	}
	return err
}

// headRows are the places, in a batch's states as [rows·width, hidden], that Classify reads: an encoder's first
// token, a decoder's last real one.
func headRows(m model.Model, b data.Batch) []int64 {
	decoder := m.Info().Decoder
	at := make([]int64, b.Rows)
	for i := range at {
		at[i] = int64(i * b.Width)
		if !decoder {
			continue
		}
		for k, real := range b.Mask[i*b.Width : (i+1)*b.Width] {
			if real != 0 {
				at[i] = int64(i*b.Width + k)
			}
		}
	}
	return at
}

// cachedPart is p with every example as one id: its row among the states, those of p from the row from on.
func cachedPart(p *train.Part, from int) *train.Part {
	c := *p
	c.Collate = func(examples []int) (data.Batch, error) {
		b, err := p.Collate(examples)
		if err != nil {
			return b, err
		}
		b.Width, b.IDs, b.Mask = 1, make([]int64, b.Rows), nil
		for k, i := range examples {
			b.IDs[k] = int64(from + i)
		}
		return b, nil
	}
	return &c
}
