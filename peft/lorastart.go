package peft

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// How LoRA's factors begin, where not with a B of zeros: as a part of the weight that the base gives up, so that nothing is
// changed at the start. The base stays as it is: what it gives up is subtracted beside it, by a pair of factors that are kept
// with the adapter and not trained. Together with these an adapter is a plain LoRA of twice the rank, and saved as one.

const (
	startPissa  = "pissa"        // the largest singular values and their vectors (Meng et al. 2024)
	startPissaN = "pissa_niter_" // the same, approached by so many iterations from a random start (Halko et al. 2011)
	startOLoRA  = "olora"        // the first columns and rows of a QR decomposition (Büyükakyüz 2024)
)

// Ends of the names of the factors that are subtracted: A as it began, and the negative of B as it began.
const (
	startA = ".lora_A.start"
	startB = ".lora_B.start"
)

// checkStart refuses a start that is not known.
func checkStart(name string) error {
	if n, ok := strings.CutPrefix(name, startPissaN); ok {
		if count, err := strconv.Atoi(n); err == nil && count >= 0 && count <= 1000 {
			return nil
		}
		return fmt.Errorf("lora-init %q: want a number of iterations, 0 to 1000, behind %s", name, startPissaN)
	}
	switch name {
	case "", startPissa, startOLoRA:
		return nil
	}
	return fmt.Errorf("lora-init %q is not known (%s, %sN, %s)", name, startPissa, startPissaN, startOLoRA)
}

// start makes a module's first factors, once for all that begin with them.
type start struct {
	kind    string
	module  []Target // its maps
	name    string
	in, out int
	rank    int
	scale   float64
	a, b    []float32
}

// adds are the factors that are trained, and those that are subtracted.
func (x *start) adds() ([]NewParam, error) {
	if most := min(x.in, x.out); x.rank > most {
		return nil, fmt.Errorf("lora-init %s: the rank of %s is %d, and no more than %d are there", x.kind, x.name, x.rank, most)
	}
	a, b := []int64{int64(x.rank), int64(x.in)}, []int64{int64(x.out), int64(x.rank)}
	of := func(isB bool, sign float64) Init {
		return func(s *bindings.Scope, m model.Model, shape []int64) (bindings.Tensor, error) {
			x.make(s)
			v := x.a
			if isB {
				v = x.b
			}
			return s.ToDevice(s.MulScalar(s.FromFloat32s(v, shape...), sign), bindings.Float, device(m)), nil
		}
	}
	return []NewParam{
		{Name: x.name + loraA, Shape: a, Init: of(false, 1)}, {Name: x.name + loraB, Shape: b, Init: of(true, 1)},
		{Name: x.name + startA, Shape: a, Init: of(false, 1), Frozen: true}, {Name: x.name + startB, Shape: b, Init: of(true, -1), Frozen: true},
	}, nil
}

// make computes the factors, with scale·B·A the part of the weight.
func (x *start) make(s *bindings.Scope) {
	if x.a != nil {
		return
	}
	s = s.Child()
	defer s.Close()
	s.NoGrad(func() {
		// On the CPU, as all first weights: they are the same on any device.
		w, r := s.ToDevice(weightOf(s, x.module), bindings.Float, bindings.CPU), int64(x.rank)
		if x.kind == startOLoRA {
			q, upper := s.QR(w)
			x.a, x.b = s.Contiguous(s.Narrow(upper, 0, 0, r)).Float32s(), s.Contiguous(s.Narrow(q, 1, 0, r)).Float32s()
			return
		}
		u, sigma, v := x.singular(s, w)
		root := s.Sqrt(s.MulScalar(s.Narrow(sigma, 0, 0, r), 1/x.scale))
		x.a = s.Contiguous(s.Transpose(s.Mul(s.Narrow(v, 1, 0, r), root), 0, 1)).Float32s()
		x.b = s.Contiguous(s.Mul(s.Narrow(u, 1, 0, r), root)).Float32s()
	})
}

// singular are w's largest singular values and vectors: exactly, or those of w within a space that iterations have found.
func (x *start) singular(s *bindings.Scope, w bindings.Tensor) (u, sigma, v bindings.Tensor) {
	n, approached := strings.CutPrefix(x.kind, startPissaN)
	if !approached {
		return s.SVD(w)
	}
	iterations, _ := strconv.Atoi(n) // checkStart has read it
	wT := s.Transpose(w, 0, 1)
	space, _ := s.QR(s.MatMul(w, s.Normal([]int64{w.Size(1), int64(x.rank)}, 0, 1, bindings.Float, bindings.CPU)))
	for range iterations {
		space, _ = s.QR(s.MatMul(wT, space))
		space, _ = s.QR(s.MatMul(w, space))
	}
	u, sigma, v = s.SVD(s.MatMul(s.Transpose(space, 0, 1), w))
	return s.MatMul(space, u), sigma, v
}

// joinedAlpha is the alpha with which a LoRA of twice the rank has the same scale.
func joinedAlpha(alpha float64, rsLoRA bool) float64 {
	if rsLoRA {
		return alpha * math.Sqrt2
	}
	return 2 * alpha
}

// joined gives a factor together with the one that is subtracted, as the plain LoRA has it; other parameters as they are.
func (a *method) joined(s *bindings.Scope, p *model.Param) bindings.Tensor {
	for _, f := range []struct {
		end, start string
		dim        int
	}{{loraA, startA, 0}, {loraB, startB, 1}} {
		if name, ok := strings.CutSuffix(p.Name, f.end); ok {
			if first := a.params.Get(name + f.start); first != nil {
				return s.Cat(f.dim, s.Detach(p.T), first.T)
			}
		}
	}
	return p.T
}
