package peft

import (
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// bitfitMethod trains biases alone (Ben Zaken et al. 2022): copies of the model's own and, on linear maps that have
// none, new ones that start at zero.
func bitfitMethod() Definition {
	return Definition{Name: "bitfit", New: func(Options) Tuner { return &bitfit{} }}
}

type bitfit struct{ Common }

func (b *bitfit) Adds(x *Structure) ([]NewParam, error) {
	var out []NewParam
	for _, t := range b.without(x) {
		out = append(out, NewParam{Name: t.Name + ".bias", Shape: []int64{int64(t.Out)}, Init: Constant(0), ZeroGrad: t.Shiftless})
	}
	return out, nil
}

// without lists the linear maps that have no bias.
func (b *bitfit) without(x *Structure) []Target {
	var out []Target
	for _, t := range x.AllTargets() {
		if !t.Bias {
			out = append(out, t)
		}
	}
	return out
}

func (b *bitfit) Attach(x *Attachment) error {
	for _, t := range b.without(x.Structure) {
		t.Block.SetWrap(t.Slot, &biased{&model.Dense{W: t.Dense.W}, x.Param(t.Name + ".bias")})
	}
	return nil
}

func (b *bitfit) Trains(_ model.Model, p *model.Param) bool {
	return strings.HasSuffix(p.Name, ".bias")
}

func (b *bitfit) LR() float64 { return 2e-3 }
func (b *bitfit) Describe() string {
	return "biases, from the checkpoint's values, zero where it has none"
}

// Merge implements Merger.
func (b *bitfit) Merge(s *bindings.Scope, x *Attachment) ([]Merged, error) {
	var out []Merged
	for _, t := range b.without(x.Structure) {
		out = append(out, Merged{t, t.Dense.W.Stored(s, t.Dense.W.T.DType()), s.Detach(x.Param(t.Name + ".bias").T)})
	}
	return out, nil
}

// biased is a linear map with a bias of fp32 over weights of any dtype.
type biased struct {
	plain *model.Dense
	b     *model.Param
}

// Forward implements model.Linear.
func (l *biased) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		y := l.plain.Forward(s, x)
		return s.To(s.Add(y, l.b.T), y.DType())
	})
}
