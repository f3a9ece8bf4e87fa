package train

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/train/dist"
)

// OptimizerConfig names an optimizer and its constants; the zero constants are PyTorch's defaults.
type OptimizerConfig struct {
	Name        string // "adam", "adamw" or "sgd"
	WeightDecay float64
	Beta1       float64 // 0: 0.9
	Beta2       float64 // 0: 0.999
	Eps         float64 // 0: 1e-8
	Momentum    float64 // of sgd
	// NoDecay names the parameters that weight decay leaves alone; nil: none.
	NoDecay func(name string) bool
	// Factor is what Step's learning rate is multiplied by for a parameter; nil: 1.
	Factor func(p *model.Param) float64
	// Group are the processes of which each holds the state of its part of every parameter, and updates that; nil: this one
	// alone holds and updates all.
	Group *dist.Group
	// Composed computes Adam's steps of plain operations, not in one fused pass.
	Composed bool
}

// BiasOrNorm reports whether a parameter is a bias or a normalization's weight, which transformers' Trainer does not
// decay.
func BiasOrNorm(name string) bool {
	name = strings.ToLower(name)
	return strings.Contains(name, "bias") || strings.Contains(name, "norm")
}

// Optimizer holds the state of every trainable parameter, in their order.
type Optimizer struct {
	cfg    OptimizerConfig
	params []*model.Param
	parts  []part          // of the parameters, which take their steps apart
	scope  *bindings.Scope // owns the state
	m, v   []bindings.Tensor
	count  []int             // Adam's steps taken, per parameter
	steps  []bindings.Tensor // the same as libtorch wants it: fp32 scalars on the parameters' device
	fresh  bool              // no step taken: sgd's momentum starts with the first gradient
	owned  []bindings.Tensor // of the gradients, this process's, for the coming step; nil: parameters have them whole
}

// part is the parameters that are stepped alike.
type part struct {
	factor, weightDecay float64
	of                  []int // in order
}

// partsOf sorts parameters into parts: by their factors in the order that these come in, those that do not decay first.
func partsOf(cfg OptimizerConfig, params []*model.Param) (parts []part) {
	for i, p := range params {
		next := part{factor: 1, weightDecay: cfg.WeightDecay}
		if cfg.Factor != nil {
			next.factor = cfg.Factor(p)
		}
		if cfg.NoDecay != nil && cfg.NoDecay(p.Name) {
			next.weightDecay = 0
		}
		n := slices.IndexFunc(parts, func(x part) bool { return x.factor == next.factor && x.weightDecay == next.weightDecay })
		if n < 0 {
			n, parts = len(parts), append(parts, next)
		}
		parts[n].of = append(parts[n].of, i)
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(a.weightDecay, b.weightDecay) })
	return parts
}

func optimizers() []string { return []string{"adam", "adamw", "sgd"} }

// NewOptimizer makes an optimizer for params. Close frees its state.
func NewOptimizer(s *bindings.Scope, cfg OptimizerConfig, params []*model.Param) (*Optimizer, error) {
	if cfg.Beta1 == 0 {
		cfg.Beta1 = 0.9
	}
	if cfg.Beta2 == 0 {
		cfg.Beta2 = 0.999
	}
	if cfg.Eps == 0 {
		cfg.Eps = 1e-8
	}
	o := &Optimizer{cfg: cfg, params: params, parts: partsOf(cfg, params), scope: s.NewScope(), fresh: true, count: make([]int, len(params))}
	zeros := func(i int) bindings.Tensor {
		p, shape := params[i], params[i].T.Shape()
		if cfg.Group != nil {
			shape = []int64{o.span(s, i, cfg.Group.Rank()).n}
		}
		return o.scope.Zeros(shape, p.T.DType(), p.T.Device())
	}
	switch cfg.Name {
	case "adam", "adamw":
		for i, p := range params {
			o.m, o.v = append(o.m, zeros(i)), append(o.v, zeros(i))
			o.steps = append(o.steps, o.scope.Scalar(0, bindings.Float, p.T.Device()))
		}
	case "sgd":
		if cfg.Momentum != 0 {
			for i := range params {
				o.m = append(o.m, zeros(i))
			}
		}
	default:
		o.scope.Close()
		return nil, fmt.Errorf("optimizer %q is not known (%s)", cfg.Name, strings.Join(optimizers(), ", "))
	}
	return o, nil
}

// Step applies the gradients the parameters hold and removes them. A parameter without a gradient, such as
// one a batch did not use, keeps its value and state. Processes that share the state then have each other's parts.
func (o *Optimizer) Step(s *bindings.Scope, lr float64) error {
	s = s.Child()
	defer s.Close()
	for _, part := range o.parts {
		o.step(s, lr*part.factor, part)
	}
	o.fresh = false
	err := o.spread(s)
	o.owned = nil
	o.ZeroGrad(s)
	return err
}

// step is Step for a part of the parameters.
func (o *Optimizer) step(s *bindings.Scope, lr float64, part part) {
	var params, grads, m, v, steps []bindings.Tensor
	for _, i := range part.of {
		p := o.params[i]
		g := o.gradient(s, i)
		if !g.Defined() {
			continue
		}
		if len(o.v) > 0 {
			o.count[i]++
		}
		t := p.T
		if o.cfg.Group != nil {
			own := o.span(s, i, o.cfg.Group.Rank())
			if own.n == 0 {
				continue
			}
			if t = own.of(s, t); o.owned == nil {
				g = own.of(s, g)
			}
		}
		params, grads = append(params, t), append(grads, g)
		if len(o.m) > 0 {
			m = append(m, o.m[i])
		}
		if len(o.v) > 0 {
			v, steps = append(v, o.v[i]), append(steps, o.steps[i])
		}
	}
	if len(params) == 0 {
		return
	}
	switch o.cfg.Name {
	case "sgd":
		s.SGDStep(params, grads, m, lr, o.cfg.Momentum, part.weightDecay, o.fresh)
	default:
		s.AddAll(steps, 1)
		s.AdamStep(params, grads, m, v, steps, bindings.AdamOptions{
			LR: lr, Beta1: o.cfg.Beta1, Beta2: o.cfg.Beta2, Eps: o.cfg.Eps, WeightDecay: part.weightDecay, Decoupled: o.cfg.Name == "adamw",
			Composed: o.cfg.Composed,
		})
	}
}

// setCounts sets the steps taken, per parameter.
func (o *Optimizer) setCounts(s *bindings.Scope, counts []int) {
	copy(o.count, counts)
	for i, steps := range o.steps {
		s.Fill(steps, float64(o.count[i]))
	}
}

// ZeroGrad removes every gradient.
func (o *Optimizer) ZeroGrad(s *bindings.Scope) {
	for _, p := range o.params {
		s.SetGrad(p.T, bindings.Tensor{})
	}
}

// Gradients is the gradients there are, or this process's parts of them, with the names of their parameters, owned by s.
func (o *Optimizer) Gradients(s *bindings.Scope) (grads []bindings.Tensor, names []string) {
	for i, p := range o.params {
		if g := o.gradient(s, i); g.Defined() {
			grads, names = append(grads, g), append(names, p.Name)
		}
	}
	return grads, names
}

// gradient is parameter i's gradient, or the part of it.
func (o *Optimizer) gradient(s *bindings.Scope, i int) bindings.Tensor {
	if o.owned != nil {
		return o.owned[i]
	}
	return s.Grad(o.params[i].T)
}

// state lists the optimizer's tensors under the names they are saved as.
func (o *Optimizer) state() []hf.Named {
	var out []hf.Named
	for i, p := range o.params {
		for k, moments := range [][]bindings.Tensor{o.m, o.v} {
			if len(moments) > 0 {
				out = append(out, hf.Named{Name: p.Name + [...]string{"/m", "/v"}[k], Tensor: moments[i]})
			}
		}
	}
	return out
}

// span is some elements of a parameter, laid flat.
type span struct{ from, n int64 }

// of are the span's elements of t, in t's memory. Nothing is recorded for autograd.
func (x span) of(s *bindings.Scope, t bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		return s.Narrow(s.Reshape(s.Detach(t), -1), 0, x.from, x.n)
	})
}

// spanUnit is what spans begin at multiples of, so that an element is computed in the same place of a vector as in whole.
const spanUnit = 64

// span is the part of a parameter that is a process's: of one that they share what it holds.
func (o *Optimizer) span(s *bindings.Scope, i, rank int) span {
	if p := o.params[i]; p.Shared() {
		return partOf(s, p, rank)
	}
	elements, unit := o.params[i].T.Numel(), int64(o.cfg.Group.Size())*spanUnit
	most := (elements + unit - 1) / unit * spanUnit
	from := min(elements, int64(rank)*most)
	return span{from, min(elements, from+most) - from}
}

// partOf is what a process holds of a parameter that they share.
func partOf(s *bindings.Scope, p *model.Param, rank int) span {
	from, n := p.Part(s, rank)
	return span{from, n}
}

// spreadBytes is how much of the updated parameters travels at a time.
const spreadBytes = 25 << 20

// spread gives each process the parts of the parameters that others have updated.
func (o *Optimizer) spread(s *bindings.Scope) error {
	if o.cfg.Group == nil {
		return nil
	}
	for owner := range o.cfg.Group.Size() {
		var parts []bindings.Tensor
		bytes := int64(0)
		send := func() error {
			err := o.send(s, owner, parts)
			parts, bytes = nil, 0
			return err
		}
		for i, p := range o.params {
			x := o.span(s, i, owner)
			if x.n == 0 || p.Shared() || !o.gradient(s, i).Defined() {
				continue
			}
			part := x.of(s, p.T)
			if len(parts) > 0 && (part.DType() != parts[0].DType() || bytes+part.Bytes() > spreadBytes) {
				if err := send(); err != nil {
					return err
				}
			}
			parts, bytes = append(parts, part), bytes+part.Bytes()
		}
		if err := send(); err != nil {
			return err
		}
	}
	return nil
}

// send gives the others a process's parts, which are of one dtype.
func (o *Optimizer) send(s *bindings.Scope, from int, parts []bindings.Tensor) error {
	if len(parts) == 0 {
		return nil
	}
	return s.Run(func(s *bindings.Scope) error {
		elements := int64(0)
		for _, part := range parts {
			elements += part.Numel()
		}
		flat := s.Empty([]int64{elements}, parts[0].DType(), parts[0].Device())
		each := func(fn func(here, there bindings.Tensor)) {
			at := int64(0)
			for _, part := range parts {
				fn(part, s.Narrow(flat, 0, at, part.Numel()))
				at += part.Numel()
			}
		}
		mine := o.cfg.Group.Rank() == from
		if mine {
			each(func(here, there bindings.Tensor) { s.Copy(there, here) })
		}
		err := o.cfg.Group.Broadcast(from, flat)
		if err == nil && !mine {
			each(func(here, there bindings.Tensor) { s.Copy(here, there) })
		}
		return err
	})
}

// whole gathers tensor n of the state, laid out as its parameter. All processes call it.
func (o *Optimizer) whole(s *bindings.Scope, n int) (bindings.Tensor, error) {
	i, part := o.param(n), o.state()[n].Tensor
	p := o.params[i].T
	return gathered(s, o.cfg.Group, p, part, func(rank int) span { return o.span(s, i, rank) })
}

// gathered makes a tensor like another of the parts that processes have of it.
func gathered(s *bindings.Scope, g *dist.Group, like, part bindings.Tensor, of func(rank int) span) (bindings.Tensor, error) {
	t := s.Empty(like.Shape(), like.DType(), like.Device())
	for owner := range g.Size() {
		x := of(owner)
		if x.n == 0 {
			continue
		}
		view := x.of(s, t)
		if owner == g.Rank() {
			s.Copy(view, part)
		}
		if err := g.Broadcast(owner, view); err != nil {
			return t, err
		}
	}
	return t, nil
}

// take makes this process's part of tensor n of the state what it is in whole.
func (o *Optimizer) take(s *bindings.Scope, n int, whole bindings.Tensor) {
	if x := o.span(s, o.param(n), o.cfg.Group.Rank()); x.n > 0 {
		s.Copy(o.state()[n].Tensor, x.of(s, whole))
	}
}

// param is the parameter that tensor n of the state is of.
func (o *Optimizer) param(n int) int {
	if len(o.v) > 0 {
		return n / 2 // its m, its v
	}
	return n
}

// Close frees the state.
func (o *Optimizer) Close() { o.scope.Close() }
