package peft

import (
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// BOFTOptions are the settings of boft beside its targets and the size of its blocks.
type BOFTOptions struct {
	Butterflies int `yaml:"butterflies" usage:"of boft: rotations by blocks one after another, each of inputs twice as far apart (1)"`
}

func (o *BOFTOptions) complete() error {
	if o.Butterflies > 20 {
		return fmt.Errorf("butterflies is %d, want 1 to 20", o.Butterflies)
	}
	return checkCount("butterflies", &o.Butterflies, 1)
}

// boftMethod is orthogonal fine-tuning by butterflies (Liu et al. 2024): s∘(W·Rᵀ)·x with a factor s per output and R a
// product of rotations by blocks, each between a permutation and its inverse. A block is the Cayley transform
// (I-Q)(I+Q)⁻¹ of the skew-symmetric Q = (M-Mᵀ)/2.
func boftMethod() Definition {
	return Definition{
		Name:     "boft",
		Complete: func(o *Options) error { o.orTargets("q", "v"); return nil },
		New:      func(o Options) Tuner { return &boft{o: o} },
		Dialects: []Dialect{DialectPeft},
	}
}

const (
	boftR     = ".boft_R"
	boftS     = ".boft_s"
	boftBlock = 4
)

type boft struct {
	Common
	o Options
	// size is what a map's blocks have, where files tell it; nil: what the options say.
	size func(t Target) int
}

// block is the size of a map's blocks.
func (v *boft) block(t Target) (int, error) {
	size := v.o.BlockSize
	if v.size != nil {
		size = v.size(t)
	}
	if size == 0 {
		size = boftBlock
	}
	n := v.o.Butterflies
	switch span := size << (n - 1); {
	case t.In%size != 0:
		return 0, fmt.Errorf("block-size is %d, which does not divide the %d inputs of %s", size, t.In, t.Name)
	case n > 1 && (size%2 != 0 || t.In%span != 0):
		return 0, fmt.Errorf("butterflies is %d, for which blocks of %d must be of an even size and %d divide the %d inputs of %s", n, size, span, t.In, t.Name)
	}
	return size, nil
}

func (v *boft) Adds(x *Structure) ([]NewParam, error) {
	targets, err := v.o.targets(x)
	var out []NewParam
	for _, t := range targets {
		size, err := v.block(t)
		if err != nil {
			return nil, err
		}
		h := int64(size)
		out = append(out, NewParam{Name: t.Name + boftR, Shape: []int64{int64(v.o.Butterflies), int64(t.In) / h, h, h}, Init: Constant(0)},
			NewParam{Name: t.Name + boftS, Shape: []int64{int64(t.Out), 1}, Init: Constant(1)})
	}
	return out, err
}

func (v *boft) Attach(x *Attachment) error {
	targets, err := v.o.targets(x.Structure)
	for _, t := range targets {
		size, err := v.block(t)
		if err != nil {
			return err
		}
		r := x.Param(t.Name + boftR)
		l := &boftLinear{dense: t.Dense, r: r, s: x.Param(t.Name + boftS), size: int64(size), turn: x.Memo(r)}
		for level := range v.o.Butterflies {
			l.levels = append(l.levels, butterfly(t.In, size, level))
		}
		t.Block.SetWrap(t.Slot, l)
	}
	return err
}

// order is where inputs are taken from, and where they go back to; none of both at the first level, which leaves them.
type order struct{ from, back []int64 }

// butterfly is the order of n inputs at a level: of each run of 2^level blocks the halves of blocks at even places, then
// those at odd ones.
func butterfly(n, size, level int) (o order) {
	if level == 0 {
		return o
	}
	half, run := size/2, size<<level
	o.back = make([]int64, n)
	for start := 0; start < n; start += run {
		for parity := range 2 {
			for at := parity * half; at < run; at += 2 * half {
				for i := range half {
					o.back[start+at+i] = int64(len(o.from))
					o.from = append(o.from, int64(start+at+i))
				}
			}
		}
	}
	return o
}

func (v *boft) Needs() Needs { return Needs{KeptOutputs: 3} }
func (v *boft) LR() float64  { return 1e-3 }
func (v *boft) Describe() string {
	return fmt.Sprintf("%d rotations of inputs by blocks from none, and factors of ones, on %s", v.o.Butterflies, v.o.where())
}

// Merge implements Merger.
func (v *boft) Merge(s *bindings.Scope, x *Attachment) ([]Merged, error) {
	targets, err := v.o.targets(x.Structure)
	var out []Merged
	for _, t := range targets {
		u, ok := t.Block.Linear(t.Slot).(*boftLinear)
		if !ok {
			return nil, fmt.Errorf("%s is not as it was attached", t.Name)
		}
		s.NoGrad(func() { // rows are turned back: W·Rᵀ
			w := t.Dense.W.Stored(s, bindings.Float)
			for level, r := range u.rotations(s) {
				w = u.turned(s, w, s.Transpose(r, 1, 2), level)
			}
			out = append(out, Merged{Target: t, Weight: s.Mul(w, u.s.T)})
		})
	}
	return out, err
}

// boftLinear is a map whose inputs are rotated level by level, and whose outputs are scaled.
type boftLinear struct {
	dense  *model.Dense
	r, s   *model.Param
	size   int64
	levels []order
	turn   *Memo
}

// Forward implements model.Linear.
func (l *boftLinear) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		blocks := l.turn.Get(s, bindings.Float, l.rotations)
		u := s.To(x, bindings.Float)
		for level := len(blocks) - 1; level >= 0; level-- {
			u = l.turned(s, u, blocks[level], level)
		}
		y := s.Mul((&model.Dense{W: l.dense.W}).Forward(s, s.To(u, x.DType())), s.Reshape(l.s.T, -1))
		if b := l.dense.B.Value(); b.Defined() {
			y = s.Add(y, b)
		}
		return s.To(y, x.DType())
	})
}

// turned multiplies x [..., in] by a level's blocks [blocks, size, size] from the right, between its order and back.
func (l *boftLinear) turned(s *bindings.Scope, x, blocks bindings.Tensor, level int) bindings.Tensor {
	o := l.levels[level]
	if o.from == nil {
		return turned(s, x, blocks)
	}
	pick := func(s *bindings.Scope, x bindings.Tensor, order []int64) bindings.Tensor {
		return s.IndexSelect(x, -1, s.Int64sOn(x.Device(), order, int64(len(order))))
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		return pick(s, turned(s, pick(s, x, o.back), blocks), o.from)
	})
}

// rotations are the blocks [blocks, size, size] of each level.
func (l *boftLinear) rotations(s *bindings.Scope) (levels []bindings.Tensor) {
	n := l.size
	eye := make([]float32, n*n)
	for i := range n {
		eye[i*n+i] = 1
	}
	unit := s.ToDevice(s.FromFloat32s(eye, n, n), bindings.Float, l.r.T.Device())
	for level := range l.levels {
		m := s.Select(l.r.T, 0, int64(level))
		q := s.MulScalar(s.Sub(m, s.Transpose(m, 1, 2)), 0.5)
		levels = append(levels, s.SolveRight(s.Add(unit, q), s.Sub(unit, q)))
	}
	return levels
}
