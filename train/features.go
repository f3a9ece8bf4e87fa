package train

import (
	"context"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train/classic"
	"gopeft/train/data"
)

// Features is the method that trains no transformer: classic classifiers on frozen features.
const Features = "features"

// Pool reduces hidden states [B, S, d] to one vector per row, in fp32: the first real token ("cls") or the
// mean over the real tokens ("mean").
func Pool(s *bindings.Scope, how string, in model.Input, out model.Output) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		if how == "cls" {
			return s.To(s.Select(out.Hidden, 1, int64(out.Virtual)), bindings.Float)
		}
		h := s.To(s.From(out.Hidden, 1, int64(out.Virtual)), bindings.Float)
		if !in.Mask.Defined() {
			return s.MeanDim(h, 1, false)
		}
		mask := s.Unsqueeze(s.To(in.Mask, bindings.Float), -1)
		return s.Div(s.SumDim(s.Mul(h, mask), 1, false), s.SumDim(mask, 1, false))
	})
}

// FeatureOptions are how features are computed.
type FeatureOptions struct {
	Pool      string // "cls" or "mean"
	Batch     int
	MaxTokens int // most tokens of a batch, padding included; 0: no bound
	On        Machine
	Progress  func(done, total int)
}

// ComputeFeatures runs the model over token sequences and pools its last hidden states: one row each, in order.
func ComputeFeatures(ctx context.Context, s *bindings.Scope, m model.Model, ids [][]int64, pad int64, o FeatureOptions) (classic.Matrix, error) {
	p := ClassificationPart(ids, make([]int, len(ids)), pad)
	dim := m.Info().Hidden
	x := classic.Matrix{Rows: len(ids), Cols: dim, Data: make([]float32, len(ids)*dim)}
	batches, err := EvalOrder(p.Lengths, o.Batch, o.MaxTokens, o.On).Epoch(0)
	if err != nil {
		return x, err
	}
	err = o.On.EachBatch(ctx, s, p, batches, o.Progress, func(s *bindings.Scope, i int, b data.Batch) {
		s.Inference(func() {
			in := Input(s, b, o.On.Device)
			in.Pooled = o.Pool == "cls" && o.On.Without.Use(LeverPooling) && m.Hooks().Pool == model.RealToken // which would pool another position
			var out model.Output
			s.Autocast(o.On.Device, o.On.Precision.DType, func() { out = m.Forward(s, in) })
			rows := Pool(s, o.Pool, in, out).Float32s()
			for k, example := range batches[i] {
				copy(x.Data[example*dim:], rows[k*dim:(k+1)*dim])
			}
		})
	})
	if err != nil {
		return x, err
	}
	return x, o.On.Group.SumFloat32s(s, x.Data)
}
