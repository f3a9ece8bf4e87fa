package train

import (
	"fmt"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
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
	scope  *bindings.Scope // owns the state
	m, v   []bindings.Tensor
	count  []int             // Adam's steps taken, per parameter
	steps  []bindings.Tensor // the same as libtorch wants it: fp32 scalars on the parameters' device
	fresh  bool              // no step taken: sgd's momentum starts with the first gradient
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
	o := &Optimizer{cfg: cfg, params: params, scope: s.NewScope(), fresh: true, count: make([]int, len(params))}
	zeros := func(p *model.Param) bindings.Tensor {
		return o.scope.Zeros(p.T.Shape(), p.T.DType(), p.T.Device())
	}
	switch cfg.Name {
	case "adam", "adamw":
		for _, p := range params {
			o.m, o.v = append(o.m, zeros(p)), append(o.v, zeros(p))
			o.steps = append(o.steps, o.scope.Scalar(0, bindings.Float, p.T.Device()))
		}
	case "sgd":
		if cfg.Momentum != 0 {
			for _, p := range params {
				o.m = append(o.m, zeros(p))
			}
		}
	default:
		o.scope.Close()
		return nil, fmt.Errorf("optimizer %q is not known (%s)", cfg.Name, strings.Join(optimizers(), ", "))
	}
	return o, nil
}

// Step applies the gradients the parameters hold and removes them. A parameter without a gradient, such as
// one a batch did not use, keeps its value and state.
func (o *Optimizer) Step(s *bindings.Scope, lr float64) {
	s = s.Child()
	defer s.Close()
	if o.cfg.WeightDecay == 0 || o.cfg.NoDecay == nil {
		o.step(s, lr, o.cfg.WeightDecay, func(string) bool { return true })
	} else {
		o.step(s, lr, 0, o.cfg.NoDecay)
		o.step(s, lr, o.cfg.WeightDecay, func(name string) bool { return !o.cfg.NoDecay(name) })
	}
	o.fresh = false
	o.ZeroGrad(s)
}

// step is Step for the parameters of some names.
func (o *Optimizer) step(s *bindings.Scope, lr, weightDecay float64, of func(name string) bool) {
	var params, grads, m, v, steps []bindings.Tensor
	for i, p := range o.params {
		if !of(p.Name) {
			continue
		}
		g := s.Grad(p.T)
		if !g.Defined() {
			continue
		}
		params, grads = append(params, p.T), append(grads, g)
		if len(o.m) > 0 {
			m = append(m, o.m[i])
		}
		if len(o.v) > 0 {
			o.count[i]++
			v, steps = append(v, o.v[i]), append(steps, o.steps[i])
		}
	}
	if len(params) == 0 {
		return
	}
	switch o.cfg.Name {
	case "sgd":
		s.SGDStep(params, grads, m, lr, o.cfg.Momentum, weightDecay, o.fresh)
	default:
		s.AddAll(steps, 1)
		s.AdamStep(params, grads, m, v, steps, bindings.AdamOptions{
			LR: lr, Beta1: o.cfg.Beta1, Beta2: o.cfg.Beta2, Eps: o.cfg.Eps, WeightDecay: weightDecay, Decoupled: o.cfg.Name == "adamw",
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

// Gradients is the gradients there are, with the names of their parameters, owned by s.
func (o *Optimizer) Gradients(s *bindings.Scope) (grads []bindings.Tensor, names []string) {
	for _, p := range o.params {
		if g := s.Grad(p.T); g.Defined() {
			grads, names = append(grads, g), append(names, p.Name)
		}
	}
	return grads, names
}

// state lists the optimizer's tensors under the names they are saved as.
func (o *Optimizer) state() []hf.Named {
	var out []hf.Named
	for i, p := range o.params {
		if len(o.m) > 0 {
			out = append(out, hf.Named{Name: p.Name + "/m", Tensor: o.m[i]})
		}
		if len(o.v) > 0 {
			out = append(out, hf.Named{Name: p.Name + "/v", Tensor: o.v[i]})
		}
	}
	return out
}

// Close frees the state.
func (o *Optimizer) Close() { o.scope.Close() }
