package train

import (
	"context"
	"slices"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/train/classic"
	"gopeft/train/data"
)

// Features is the method that trains no transformer: classic classifiers on frozen features.
const Features = "features"

// The ways to pool.
const (
	PoolFirst = "cls"
	PoolMean  = "mean"
	PoolLast  = "last"
)

// DefaultPool is how the features of a family are pooled where nothing is said: a decoder's first token has seen nothing
// of the text behind it.
func DefaultPool(decoder bool) string {
	if decoder {
		return PoolLast
	}
	return PoolFirst
}

// CheckPool refuses what is no way to pool; "" is the family's.
func CheckPool(how string) error {
	if !slices.Contains([]string{"", PoolFirst, PoolMean, PoolLast}, how) {
		return Usage("--pool %q is not known (cls, mean, last)", how)
	}
	return nil
}

// Pool reduces hidden states [B, S, d] to one vector per row, in fp32: the first real token ("cls"), the last one ("last")
// or the mean over the real tokens ("mean"). Padding stands behind the text.
func Pool(s *bindings.Scope, how string, in model.Input, out model.Output) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		switch {
		case how == PoolFirst:
			return s.To(s.Select(out.Hidden, 1, int64(out.Virtual)), bindings.Float)
		case how == PoolLast && !in.Mask.Defined():
			return s.To(s.Select(out.Hidden, 1, -1), bindings.Float)
		case how == PoolLast:
			rows, width := out.Hidden.Size(0), out.Hidden.Size(1)
			at := s.AddScalar(s.SumDim(in.Mask, 1, false), float64(out.Virtual-1))
			at = s.Add(at, s.MulScalar(s.Arange(0, rows, bindings.Int64, out.Hidden.Device()), float64(width)))
			flat := s.Reshape(out.Hidden, rows*width, -1)
			return s.To(s.IndexSelect(flat, 0, s.To(at, bindings.Int64)), bindings.Float)
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
	Pool      string // "cls", "mean" or "last"; "": the family's
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
	if o.Pool == "" {
		o.Pool = DefaultPool(m.Info().Decoder)
	}
	err = o.On.EachBatch(ctx, s, p, batches, o.Progress, func(s *bindings.Scope, b data.Batch) (keep func(i int)) {
		s.Inference(func() {
			in := Input(s, b, o.On.Device)
			in.HiddenOnly = true
			in.Pooled = o.Pool == PoolFirst && o.On.Without.Use(LeverPooling) && m.Hooks().Pool == model.RealToken // which would pool another position
			var out model.Output
			s.Autocast(o.On.Device, o.On.Precision.DType, func() { out = m.Forward(s, in) })
			rows := Pool(s, o.Pool, in, out).Float32s()
			keep = func(i int) {
				for k, example := range batches[i] {
					copy(x.Data[example*dim:], rows[k*dim:(k+1)*dim])
				}
			}
		})
		return keep
	})
	if err != nil {
		return x, err
	}
	return x, o.On.Group.SumFloat32s(s, x.Data)
}
