package peft

import (
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// OFTOptions are the settings of oft beside its targets.
type OFTOptions struct {
	BlockSize int `yaml:"block-size" usage:"of oft and boft: inputs turned together (oft: 32, or the next smaller size that divides every map's inputs; boft: 4)"`
}

func (o *OFTOptions) complete() error { return checkCount("block-size", &o.BlockSize, 0) }

// oftMethod is orthogonal fine-tuning (Qiu et al. 2023) of inputs: W·Rᵀ·x with R of orthogonal blocks along the diagonal,
// the Cayley transform of a skew-symmetric matrix Q, whose inverse is a series cut off behind Q⁴: I + 2Q + 2Q² + 2Q³ + Q⁴.
func oftMethod() Definition {
	return Definition{
		Name:     "oft",
		Complete: func(o *Options) error { o.orTargets("q", "v"); return nil },
		New:      func(o Options) Tuner { return &oft{o: o, terms: oftTerms} },
		Dialects: []Dialect{DialectPeft},
	}
}

const (
	oftWeight = ".oft_R.weight"
	oftTerms  = 5 // of the series
	oftBlock  = 32
)

type oft struct {
	Common
	o     Options
	terms int
	// shape gives the rows and the block's size of a map's parameter, where files have it: one row stands for all blocks.
	shape func(t Target) (rows, size int)
}

// blocks are the rows and the block's size of every target.
func (v *oft) blocks(targets []Target) (func(t Target) (rows, size int), error) {
	if v.shape != nil {
		return v.shape, nil
	}
	size := v.o.BlockSize
	divides := func(n int) bool {
		for _, t := range targets {
			if t.In%n != 0 {
				return false
			}
		}
		return true
	}
	if size == 0 {
		for size = oftBlock; !divides(size); size-- {
		}
	}
	if !divides(size) || size < 2 {
		return nil, fmt.Errorf("block-size is %d, which does not divide the inputs of every map", size)
	}
	return func(t Target) (int, int) { return t.In / size, size }, nil
}

func (v *oft) Adds(x *Structure) ([]NewParam, error) {
	targets, err := v.o.targets(x)
	if err != nil {
		return nil, err
	}
	blocks, err := v.blocks(targets)
	if err != nil {
		return nil, err
	}
	var out []NewParam
	for _, t := range targets {
		rows, size := blocks(t)
		out = append(out, NewParam{Name: t.Name + oftWeight, Shape: []int64{int64(rows), int64(size * (size - 1) / 2)}, Init: Constant(0)})
	}
	return out, nil
}

func (v *oft) Attach(x *Attachment) error {
	targets, err := v.o.targets(x.Structure)
	if err != nil {
		return err
	}
	blocks, err := v.blocks(targets)
	if err != nil {
		return err
	}
	for _, t := range targets {
		_, size := blocks(t)
		q := x.Param(t.Name + oftWeight)
		t.Block.SetWrap(t.Slot, &oftLinear{dense: t.Dense, q: q, size: int64(size), terms: v.terms, turn: x.Memo(q)})
	}
	return nil
}

func (v *oft) Needs() Needs { return Needs{KeptOutputs: 2} }
func (v *oft) LR() float64  { return 1e-3 }

func (v *oft) Describe() string {
	return "rotations of inputs by blocks from none on " + v.o.where()
}

// Merge implements Merger.
func (v *oft) Merge(s *bindings.Scope, x *Attachment) ([]Merged, error) {
	targets, err := v.o.targets(x.Structure)
	var out []Merged
	for _, t := range targets {
		u, ok := t.Block.Linear(t.Slot).(*oftLinear)
		if !ok {
			return nil, fmt.Errorf("%s is not as it was attached", t.Name)
		}
		s.NoGrad(func() { // rows are turned back: W·Rᵀ
			r := s.Transpose(u.rotations(s), 1, 2)
			out = append(out, Merged{Target: t, Weight: turned(s, t.Dense.W.Stored(s, bindings.Float), r)})
		})
	}
	return out, err
}

// oftLinear is a map whose inputs are rotated.
type oftLinear struct {
	dense *model.Dense
	q     *model.Param // above the diagonal of Q, by block, or of one for all blocks
	size  int64
	terms int
	turn  *Memo
}

// Forward implements model.Linear.
func (l *oftLinear) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		r := l.turn.Get(s, bindings.Float, func(s *bindings.Scope) []bindings.Tensor { return []bindings.Tensor{l.rotations(s)} })[0]
		return l.dense.Forward(s, s.To(turned(s, s.To(x, r.DType()), r), x.DType()))
	})
}

// turned multiplies x [..., in] by the blocks r [blocks or 1, size, size] from the right.
func turned(s *bindings.Scope, x, r bindings.Tensor) bindings.Tensor {
	size := r.Size(-1)
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		parts := s.Transpose(s.Reshape(x, -1, x.Size(-1)/size, size), 0, 1) // [blocks, n, size]
		return s.Reshape(s.Transpose(s.MatMul(parts, r), 0, 1), x.Shape()...)
	})
}

// rotations are the blocks [rows, size, size].
func (l *oftLinear) rotations(s *bindings.Scope) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		n := int(l.size)
		place, sign, unit := make([]int64, n*n), make([]float32, n*n), make([]float32, n*n)
		next := int64(0)
		for i := range n {
			unit[i*n+i] = 1
			for j := i + 1; j < n; j++ {
				place[i*n+j], place[j*n+i] = next, next
				sign[i*n+j], sign[j*n+i] = 1, -1
				next++
			}
		}
		dev := l.q.T.Device()
		onDevice := func(v []float32, shape ...int64) bindings.Tensor {
			return s.ToDevice(s.FromFloat32s(v, shape...), bindings.Float, dev)
		}
		flat := s.Mul(s.IndexSelect(l.q.T, 1, s.Int64sOn(dev, place, int64(n*n))), onDevice(sign, int64(n*n)))
		q := s.Reshape(flat, -1, l.size, l.size)
		r := s.Add(onDevice(unit, l.size, l.size), s.MulScalar(q, 0))
		if l.terms < 2 {
			return r
		}
		r = s.Add(r, s.MulScalar(q, 2))
		if l.terms < 3 {
			return r
		}
		power := s.MatMul(q, q)
		r = s.Add(r, s.MulScalar(power, 2))
		for range l.terms - 4 {
			power = s.MatMul(power, q)
			r = s.Add(r, s.MulScalar(power, 2))
		}
		return s.Add(r, s.MatMul(power, q)) // the last term counts half
	})
}
