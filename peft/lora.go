package peft

import (
	"fmt"
	"math"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// LoRAOptions are the settings of lora and dora.
type LoRAOptions struct {
	Rank        int     `yaml:"rank" usage:"of lora: rank (8)"`
	Alpha       float64 `yaml:"alpha" usage:"of lora: the update is scaled by alpha/rank (2·rank)"`
	LoRADropout float64 `yaml:"lora-dropout" usage:"of lora: dropout before the update (0)"`
	RSLoRA      bool    `yaml:"rslora" usage:"of lora: scale by alpha/√rank"`
	DoRA        bool    `yaml:"dora" usage:"of lora: learn magnitudes apart from directions"`
}

func (o *LoRAOptions) complete() error {
	if err := checkCount("rank", &o.Rank, 8); err != nil {
		return err
	}
	if err := checkFactor("alpha", o.Alpha); err != nil {
		return err
	}
	if !(o.LoRADropout >= 0 && o.LoRADropout < 1) {
		return fmt.Errorf("lora-dropout is %v, want 0 to below 1", o.LoRADropout)
	}
	if o.Alpha == 0 {
		o.Alpha = 2 * float64(o.Rank)
	}
	return nil
}

// loraMethod adds a low-rank update to linear maps: W·x + scale·B·A·dropout(x) with scale α/r (Hu et al. 2021), or
// α/√r (rsLoRA, Kalajdzievski 2023).
func loraMethod() Definition {
	return Definition{
		Name:     "lora",
		Complete: func(o *Options) error { o.orTargets("q", "v"); return nil },
		New:      func(o Options) Tuner { return &lora{o: o} },
		Dialects: []Dialect{DialectPeft},
	}
}

// doraMethod is LoRA whose updated weight's rows are rescaled to learned magnitudes (Liu et al. 2024),
// m·(W + scale·B·A)/‖W + scale·B·A‖, the norm taken as a constant in the backward pass.
func doraMethod() Definition {
	d := loraMethod()
	d.Name = "dora"
	d.Complete = func(o *Options) error {
		o.DoRA = true
		o.orTargets("q", "v")
		return nil
	}
	return d
}

type lora struct {
	Common
	o Options
	// perModule overrides rank and alpha by module name, as adapter files may.
	perModule func(name string) (rank int, alpha float64)
	tables    []table // token embeddings and language-model head, where files have something of them
}

func (l *lora) rankAlpha(name string) (int, float64) {
	if l.perModule != nil {
		return l.perModule(name)
	}
	return l.o.Rank, l.o.Alpha
}

func (l *lora) Adds(x *Structure) ([]NewParam, error) {
	targets, err := x.Targets(l.o.Targets...)
	var out []NewParam
	for i, t := range targets {
		name, first, width := t.span()
		if first > 0 {
			continue // with the first of its module
		}
		rank, _ := l.rankAlpha(name)
		r, rows := int64(rank), int64(width)
		out = append(out,
			NewParam{Name: name + ".lora_A.weight", Shape: []int64{r, int64(t.In)}, Init: KaimingUniform(t.In), ZeroGrad: true},
			NewParam{Name: name + ".lora_B.weight", Shape: []int64{rows, r}, Init: Constant(0)})
		if l.o.DoRA {
			out = append(out, NewParam{Name: name + ".lora_magnitude_vector", Shape: []int64{rows}, Init: rowNorms(name, targets[i:])})
		}
	}
	for _, t := range l.tables {
		rank, _ := l.rankAlpha(t.name)
		out = append(out, t.adds(x, rank)...)
	}
	return out, err
}

// rowNorms are the norms of the rows of a module's weight, of which the targets' first are the maps: DoRA's magnitudes that
// change nothing.
func rowNorms(module string, targets []Target) Init {
	return func(s *bindings.Scope, _ model.Model, _ []int64) (bindings.Tensor, error) {
		return s.In(func(s *bindings.Scope) bindings.Tensor {
			var ns []bindings.Tensor
			for _, t := range targets {
				if name, _, _ := t.span(); name != module {
					break
				}
				ns = append(ns, norms(s, t.Dense.W.Stored(s, bindings.Float)))
			}
			return s.Cat(0, ns...)
		}), nil
	}
}

// norms are the L2 norms of w's rows.
func norms(s *bindings.Scope, w bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor { return s.Sqrt(s.SumDim(s.Mul(w, w), 1, false)) })
}

func (l *lora) Attach(x *Attachment) error {
	targets, err := x.Targets(l.o.Targets...)
	for _, t := range targets {
		name, first, _ := t.span()
		u := &loraLinear{
			dense: t.Dense, train: &x.Hooks.Train, dropout: l.o.LoRADropout, scale: l.scale(name), first: int64(first), rows: int64(t.Out),
			a: x.Param(name + ".lora_A.weight"), b: x.Param(name + ".lora_B.weight"), m: x.Param(name + ".lora_magnitude_vector"),
		}
		u.norm, u.squares = x.Memo(u.a, u.b, t.Dense.W), x.Memo(t.Dense.W)
		t.Block.SetWrap(t.Slot, u)
	}
	for _, t := range l.tables {
		t.attach(x, l.scale(t.name), l.o.LoRADropout)
	}
	return err
}

// scale is what a module's update is multiplied by.
func (l *lora) scale(name string) float64 {
	rank, alpha := l.rankAlpha(name)
	if l.o.RSLoRA {
		return alpha / math.Sqrt(float64(rank))
	}
	return alpha / float64(rank)
}

// Needs: DoRA multiplies the map's output and the update by factors that are trained, and takes its norms of the
// weights as stored.
func (l *lora) Needs() Needs {
	if l.o.DoRA {
		return Needs{KeptOutputs: 2, StoredWeights: true}
	}
	return Needs{}
}

func (l *lora) LR() float64 { return 1e-3 }

func (l *lora) Describe() string {
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

// Merge implements Merger.
func (l *lora) Merge(s *bindings.Scope, x *Attachment) ([]Merged, error) {
	if len(l.tables) > 0 {
		return nil, fmt.Errorf("it changes %s, which merging leaves as it is", l.tables[0].name)
	}
	targets, err := x.Targets(l.o.Targets...)
	var out []Merged
	for _, t := range targets {
		u, ok := t.Block.Linear(t.Slot).(*loraLinear)
		if !ok {
			return nil, fmt.Errorf("%s is not as it was attached", t.Name)
		}
		var w bindings.Tensor
		s.NoGrad(func() {
			w = u.weight(s)
			if u.m != nil {
				w = s.Mul(s.Unsqueeze(s.Div(u.own(s, u.m), norms(s, w)), 1), w)
			}
		})
		out = append(out, Merged{Target: t, Weight: w})
	}
	return out, err
}

// loraLinear is an updated map.
type loraLinear struct {
	dense   *model.Dense
	a, b, m *model.Param // m is nil without DoRA
	scale   float64
	dropout float64
	train   *bool
	norm    *Memo
	squares *Memo // of a quantised map: the squared norms of its rows

	first, rows int64 // of b and m that are the map's; 0 rows: all
}

// own are the rows of b or m that are the map's.
func (l *loraLinear) own(s *bindings.Scope, p *model.Param) bindings.Tensor {
	if l.rows == 0 || p.T.Size(0) == l.rows {
		return p.T
	}
	return s.Narrow(p.T, 0, l.first, l.rows)
}

// Forward implements model.Linear. The update is computed in the parameters' fp32, or under autocast.
func (l *loraLinear) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	dropped := *l.train && l.dropout > 0
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		up := l.own(s, l.b)
		if l.m == nil && !dropped {
			return l.dense.ForwardLowRank(s, x, l.a.T, up, l.scale)
		}
		u := s.To(x, l.a.T.DType())
		if dropped {
			u = s.Dropout(u, l.dropout)
		}
		none := bindings.Tensor{}
		h := s.Linear(u, l.a.T, none)
		y := l.dense.Forward(s, x)
		if l.m == nil {
			return s.AddLowRank(y, h, up, l.scale)
		}
		update := s.MulScalar(s.Linear(h, up, none), l.scale)
		bias := l.dense.B.Value()
		plain := y
		switch {
		case dropped: // the directions see the dropped input, as in peft
			plain = (&model.Dense{W: l.dense.W}).Forward(s, s.To(u, x.DType()))
		case bias.Defined():
			plain = s.Sub(y, bias)
		}
		ratio := s.Div(l.own(s, l.m), l.weightNorm(s))
		delta := s.Add(s.Mul(s.AddScalar(ratio, -1), plain), s.Mul(ratio, update))
		return s.To(s.Add(y, delta), y.DType())
	})
}

// weightNorm is ‖W + scale·B·A‖ by row, a constant to autograd.
func (l *loraLinear) weightNorm(s *bindings.Scope) bindings.Tensor {
	return l.norm.Get(s, bindings.Float, func(s *bindings.Scope) (ts []bindings.Tensor) {
		s.NoGrad(func() {
			if l.dense.W.Quantised() {
				ts = []bindings.Tensor{l.quantisedNorm(s)}
				return
			}
			ts = []bindings.Tensor{norms(s, l.weight(s))}
		})
		return ts
	})[0]
}

// quantisedNorm is the norm without the weight: ‖W + cBA‖² = ‖W‖² + 2c·Σ(WAᵀ∘B) + c²·Σ(B(AAᵀ)∘B), all by row.
func (l *loraLinear) quantisedNorm(s *bindings.Scope) bindings.Tensor {
	squares := l.squares.Get(s, bindings.Float, func(s *bindings.Scope) []bindings.Tensor {
		n := norms(s, l.dense.W.Stored(s, bindings.Float))
		return []bindings.Tensor{s.Mul(n, n)}
	})[0]
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		up := l.own(s, l.b)
		byRow := func(x bindings.Tensor) bindings.Tensor {
			return s.SumDim(s.Mul(s.To(x, bindings.Float), up), 1, false)
		}
		crossed := byRow(s.Transpose((&model.Dense{W: l.dense.W}).Forward(s, l.a.T), 0, 1))
		update := byRow(s.MatMul(up, s.MatMul(l.a.T, s.Transpose(l.a.T, 0, 1))))
		return s.Sqrt(s.Add(squares, s.Add(s.MulScalar(crossed, 2*l.scale), s.MulScalar(update, l.scale*l.scale))))
	})
}

// weight is W + scale·B·A in fp32.
func (l *loraLinear) weight(s *bindings.Scope) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		return s.Add(l.dense.W.Stored(s, bindings.Float), s.MulScalar(s.MatMul(l.own(s, l.b), l.a.T), l.scale))
	})
}
