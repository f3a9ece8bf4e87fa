package peft

import (
	"errors"
	"fmt"
	"math"

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

	LoRAInit     string   `yaml:"lora-init" usage:"of lora: begin with a part of the weights, which the base gives up: pissa, pissa_niter_N or olora (default: with a B of zeros)"`
	RankPattern  []string `yaml:"rank-pattern" usage:"of lora: ranks of some maps as NAME=RANK, the first that fits; NAME is a regular expression over the end of a map's name"`
	AlphaPattern []string `yaml:"alpha-pattern" usage:"of lora: the same for alpha"`
	AddTokens    []string `yaml:"add-tokens" usage:"of lora: new tokens, whose embeddings are trained: a list, or a file with one on each line"`
	NewTokens    []int64  `yaml:"-"` // their ids
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
	if err := checkStart(o.LoRAInit); err != nil {
		return err
	}
	_, err := o.perModule()
	return err
}

// loraMethod adds a low-rank update to linear maps: W·x + scale·B·A·dropout(x) with scale α/r (Hu et al. 2021), or
// α/√r (rsLoRA, Kalajdzievski 2023).
func loraMethod() Definition {
	return Definition{
		Name:     "lora",
		Complete: func(o *Options) error { o.orTargets("q", "v"); return nil },
		New:      newLoRA,
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

// Ends of the names of LoRA's parameters, behind that of the map they change.
const (
	loraA = ".lora_A.weight"
	loraB = ".lora_B.weight"
	loraM = ".lora_magnitude_vector"
)

type lora struct {
	Common
	o Options
	// perModule overrides rank and alpha by module name.
	perModule func(name string) (rank int, alpha float64)
	tables    []table // token embeddings and language-model head, where files have something of them
}

// changes are the tables of which it trains something.
func (l *lora) changes(x *Structure) ([]table, error) {
	if len(l.o.NewTokens) == 0 {
		return l.tables, nil
	}
	return newTables(x, l.o.NewTokens)
}

func newLoRA(o Options) Tuner {
	l := &lora{o: o}
	l.perModule, _ = o.perModule() // complete has read the patterns
	return l
}

func (l *lora) rankAlpha(name string) (int, float64) {
	if l.perModule != nil {
		return l.perModule(name)
	}
	return l.o.Rank, l.o.Alpha
}

func (l *lora) Adds(x *Structure) ([]NewParam, error) {
	targets, err := l.o.targets(x)
	if err != nil {
		return nil, err
	}
	tables, err := l.changes(x)
	if err != nil {
		return nil, err
	}
	if err := l.o.fitting(namesOf(targets, tables)); err != nil {
		return nil, err
	}
	var added []NewParam
	for i, t := range targets {
		name, first, out := t.span()
		if first > 0 {
			continue // with the first of its module
		}
		rank, _ := l.rankAlpha(name)
		r, rows := int64(rank), int64(out)
		factors := []NewParam{
			{Name: name + loraA, Shape: []int64{r, int64(t.In)}, Init: KaimingUniform(t.In), ZeroGrad: true},
			{Name: name + loraB, Shape: []int64{rows, r}, Init: Constant(0)},
		}
		module := moduleAhead(targets[i:])
		if l.o.LoRAInit != "" {
			x := &start{kind: l.o.LoRAInit, module: module, name: name, in: t.In, out: out, rank: rank, scale: l.scale(name)}
			if factors, err = x.adds(); err != nil {
				return nil, err
			}
		}
		added = append(added, factors...)
		if l.o.DoRA {
			added = append(added, NewParam{Name: name + loraM, Shape: []int64{rows}, Init: rowNorms(module)})
		}
	}
	for _, t := range tables {
		rank, _ := l.rankAlpha(t.name)
		added = append(added, t.adds(x, rank)...)
	}
	return added, nil
}

// namesOf are those of the modules that are changed as one, and of tables.
func namesOf(targets []Target, tables []table) (names []string) {
	for _, t := range targets {
		if name, first, _ := t.span(); first == 0 {
			names = append(names, name)
		}
	}
	for _, t := range tables {
		names = append(names, t.name)
	}
	return names
}

// moduleAhead are the targets that are of the same module as the first of them.
func moduleAhead(targets []Target) []Target {
	name, _, _ := targets[0].span()
	for i, t := range targets {
		if other, _, _ := t.span(); other != name {
			return targets[:i]
		}
	}
	return targets
}

// weightOf is the weight of a module of such targets, [out, in] in fp32.
func weightOf(s *bindings.Scope, module []Target) bindings.Tensor {
	if len(module) == 1 {
		return module[0].Dense.W.Stored(s, bindings.Float)
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		var ws []bindings.Tensor
		for _, t := range module {
			ws = append(ws, t.Dense.W.Stored(s, bindings.Float))
		}
		return s.Cat(0, ws...)
	})
}

// rowNorms are the norms of the rows of a module's weight: DoRA's magnitudes that change nothing.
func rowNorms(module []Target) Init {
	return func(s *bindings.Scope, _ model.Model, _ []int64) (bindings.Tensor, error) {
		return norms(s, weightOf(s, module)), nil
	}
}

// norms are the L2 norms of w's rows.
func norms(s *bindings.Scope, w bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor { return s.Sqrt(s.SumDim(s.Mul(w, w), 1, false)) })
}

func (l *lora) Attach(x *Attachment) error {
	targets, err := l.o.targets(x.Structure)
	for _, t := range targets {
		name, first, _ := t.span()
		u := &loraLinear{
			dense: t.Dense, train: &x.Hooks.Train, dropout: l.o.LoRADropout, scale: l.scale(name), first: int64(first), rows: int64(t.Out),
			a: x.Param(name + loraA), b: x.Param(name + loraB), m: x.Param(name + loraM),
			a0: x.Param(name + startA), b0: x.Param(name + startB),
		}
		u.norm, u.squares = x.Memo(u.a, u.b, t.Dense.W), x.Memo(t.Dense.W)
		t.Block.SetWrap(t.Slot, u)
	}
	tables, failed := l.changes(x.Structure)
	for _, t := range tables {
		t.attach(x, l.scale(t.name), l.o.LoRADropout)
	}
	return errors.Join(err, failed)
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
	return Needs{StoredWeights: l.o.LoRAInit != ""}
}

func (l *lora) LR() float64 { return 1e-3 }

func (l *lora) Describe() string {
	scale := "α/r"
	if l.o.RSLoRA {
		scale = "α/√r"
	}
	begins := "A Kaiming-uniform, B zero"
	if l.o.LoRAInit != "" {
		begins = "A and B as " + l.o.LoRAInit + " takes them out of the weights"
	}
	text := fmt.Sprintf("r %d, α %g, scale %s, on %s; %s", l.o.Rank, l.o.Alpha, scale, l.o.where(), begins)
	if l.o.DoRA {
		text += "; DoRA, magnitudes from the weights"
	}
	return text
}

// Merge implements Merger.
func (l *lora) Merge(s *bindings.Scope, x *Attachment) ([]Merged, error) {
	tables, err := l.changes(x.Structure)
	if err == nil && len(tables) > 0 {
		err = fmt.Errorf("it changes %s, which merging leaves as it is", tables[0].name)
	}
	if err != nil {
		return nil, err
	}
	targets, err := l.o.targets(x.Structure)
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
	a0, b0  *model.Param // what the base gives up, negative: b0·a0; nil for nothing
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
		if l.m == nil && !dropped {
			a, up := l.factors(s)
			return l.dense.ForwardLowRank(s, x, a, up, l.scale)
		}
		up := l.own(s, l.b)
		u := s.To(x, l.a.T.DType())
		if dropped {
			u = s.Dropout(u, l.dropout)
		}
		none := bindings.Tensor{}
		h := s.Linear(u, l.a.T, none)
		y := l.base(s, l.dense, x)
		if l.m == nil {
			return s.AddLowRank(y, h, up, l.scale)
		}
		update := s.MulScalar(s.Linear(h, up, none), l.scale)
		bias := l.dense.B.Value()
		plain := y
		switch {
		case dropped: // the directions see the dropped input, as in peft
			plain = l.base(s, &model.Dense{W: l.dense.W}, s.To(u, x.DType()))
		case bias.Defined():
			plain = s.Sub(y, bias)
		}
		ratio := s.Div(l.own(s, l.m), l.weightNorm(s))
		delta := s.Add(s.Mul(s.AddScalar(ratio, -1), plain), s.Mul(ratio, update))
		return s.To(s.Add(y, delta), y.DType())
	})
}

// base is a map of the base's weight less what that gives up.
func (l *loraLinear) base(s *bindings.Scope, dense *model.Dense, x bindings.Tensor) bindings.Tensor {
	if l.a0 == nil {
		return dense.Forward(s, x)
	}
	return dense.ForwardLowRank(s, x, l.a0.T, l.own(s, l.b0), l.scale)
}

// factors are A [r, in] and B [out, r], or [2r, in] and [out, 2r] together with what the base gives up.
func (l *loraLinear) factors(s *bindings.Scope) (a, b bindings.Tensor) {
	if l.a0 == nil {
		return l.a.T, l.own(s, l.b)
	}
	return s.Cat(0, l.a.T, l.a0.T), s.Cat(1, l.own(s, l.b), l.own(s, l.b0))
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
		a, up := l.factors(s)
		byRow := func(x bindings.Tensor) bindings.Tensor {
			return s.SumDim(s.Mul(s.To(x, bindings.Float), up), 1, false)
		}
		crossed := byRow(s.Transpose((&model.Dense{W: l.dense.W}).Forward(s, a), 0, 1))
		update := byRow(s.MatMul(up, s.MatMul(a, s.Transpose(a, 0, 1))))
		return s.Sqrt(s.Add(squares, s.Add(s.MulScalar(crossed, 2*l.scale), s.MulScalar(update, l.scale*l.scale))))
	})
}

// weight is W + scale·B·A in fp32.
func (l *loraLinear) weight(s *bindings.Scope) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		a, b := l.factors(s)
		return s.Add(l.dense.W.Stored(s, bindings.Float), s.MulScalar(s.MatMul(b, a), l.scale))
	})
}
