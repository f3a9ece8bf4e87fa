package peft

import (
	"fmt"
	"math"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// lora adds a low-rank update to linear maps: W·x + scale·B·A·dropout(x) with scale α/r (Hu et al. 2021), or
// α/√r (rsLoRA, Kalajdzievski 2023). With DoRA (Liu et al. 2024) the updated weight's rows are rescaled to
// learned magnitudes, m·(W + scale·B·A)/‖W + scale·B·A‖, the norm taken as a constant in the backward pass.
type lora struct {
	plain
	o Options
	// perModule overrides rank and alpha by module name, as adapter files may.
	perModule func(name string) (rank int, alpha float64)
}

func (l *lora) rankAlpha(name string) (int, float64) {
	if l.perModule != nil {
		return l.perModule(name)
	}
	return l.o.Rank, l.o.Alpha
}

func (l *lora) specs(o *outline) ([]spec, error) {
	targets, err := o.targets(l.o.Targets)
	var out []spec
	for _, t := range targets {
		rank, _ := l.rankAlpha(t.name)
		r := int64(rank)
		out = append(out,
			spec{t.name + ".lora_A.weight", []int64{r, t.in}, kaiming(t.in)},
			spec{t.name + ".lora_B.weight", []int64{t.out, r}, constant(0)})
		if l.o.DoRA {
			out = append(out, spec{t.name + ".lora_magnitude_vector", []int64{t.out}, rowNorms(t.module)})
		}
	}
	return out, err
}

// rowNorms are the norms of the rows of a map's weight: DoRA's magnitudes that change nothing.
func rowNorms(m model.Module) initialiser {
	return func(s *bindings.Scope, _ model.Model, _ []int64) (bindings.Tensor, error) {
		return norms(s, s.To(m.Dense.W.T, bindings.Float)), nil
	}
}

// norms are the L2 norms of w's rows.
func norms(s *bindings.Scope, w bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor { return s.Sqrt(s.SumDim(s.Mul(w, w), 1, false)) })
}

func (l *lora) mount(x *mounting) error {
	targets, err := x.targets(l.o.Targets)
	for _, t := range targets {
		rank, alpha := l.rankAlpha(t.name)
		u := &loraLinear{
			dense: t.module.Dense, train: &x.hooks.Train, dropout: l.o.LoRADropout, scale: alpha / float64(rank),
			a: x.params.Get(t.name + ".lora_A.weight"), b: x.params.Get(t.name + ".lora_B.weight"),
			m: x.params.Get(t.name + ".lora_magnitude_vector"),
		}
		u.norm = x.memo(u.a, u.b, t.module.Dense.W)
		if l.o.RSLoRA {
			u.scale = alpha / math.Sqrt(float64(rank))
		}
		t.block.SetWrap(t.module.Slot, u)
	}
	return err
}

func (l *lora) silent(name string) bool { return strings.HasSuffix(name, ".lora_A.weight") }
func (l *lora) lr() float64             { return 1e-3 }

func (l *lora) describe() string {
	scale := "α/r"
	if l.o.RSLoRA {
		scale = "α/√r"
	}
	text := fmt.Sprintf("r %d, α %g, scale %s, on %s; A Kaiming-uniform, B zero", l.o.Rank, l.o.Alpha, scale, strings.Join(l.o.Targets, " "))
	if l.o.DoRA {
		text += "; DoRA, magnitudes from the weights"
	}
	return text
}

// loraLinear is an updated map.
type loraLinear struct {
	dense   *model.Dense
	a, b, m *model.Param // m is nil without DoRA
	scale   float64
	dropout float64
	train   *bool
	norm    *memo
}

// Forward implements model.Linear. The update is computed in the parameters' fp32, or under autocast.
func (l *loraLinear) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	dropped := *l.train && l.dropout > 0
	if l.m == nil && !dropped {
		return s.LinearLowRank(x, l.dense.W.Value(), l.dense.B.Value(), l.a.T, l.b.T, l.scale)
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		u := s.To(x, l.a.T.DType())
		if dropped {
			u = s.Dropout(u, l.dropout)
		}
		none := bindings.Tensor{}
		update := s.MulScalar(s.Linear(s.Linear(u, l.a.T, none), l.b.T, none), l.scale)
		if l.m == nil {
			y := l.dense.Forward(s, x)
			return s.To(s.Add(y, update), y.DType())
		}
		y := l.dense.Forward(s, x)
		bias := l.dense.B.Value()
		plain := y
		switch {
		case dropped: // the directions see the dropped input, as in peft
			plain = s.Linear(s.To(u, l.dense.W.Value().DType()), l.dense.W.Value(), none)
		case bias.Defined():
			plain = s.Sub(y, bias)
		}
		ratio := s.Div(l.m.T, l.weightNorm(s))
		delta := s.Add(s.Mul(s.AddScalar(ratio, -1), plain), s.Mul(ratio, update))
		return s.To(s.Add(y, delta), y.DType())
	})
}

// weightNorm is ‖W + scale·B·A‖ by row, a constant to autograd.
func (l *loraLinear) weightNorm(s *bindings.Scope) bindings.Tensor {
	return l.norm.get(s, bindings.Float, func(s *bindings.Scope) (ts []bindings.Tensor) {
		s.NoGrad(func() { ts = []bindings.Tensor{norms(s, l.weight(s))} })
		return ts
	})[0]
}

// weight is W + scale·B·A in fp32.
func (l *loraLinear) weight(s *bindings.Scope) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		return s.Add(s.To(l.dense.W.T, bindings.Float), s.MulScalar(s.MatMul(l.b.T, l.a.T), l.scale))
	})
}
