package peft

import (
	"fmt"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// adaption is LLaMA-Adapter (Zhang et al. 2023): in the top blocks, a learned prompt is attended to in a
// softmax of its own, its keys and values made by the block's own maps, and joins the heads' output through
// a gate that starts at zero. As v2 (Gao et al. 2023) every linear map's output is also shifted and scaled,
// scale·(W·x + b + bias), and the norms are trained.
type adaption struct {
	o  Options
	v2 bool
}

const (
	adaptionPrompt = "adaption_prompt"
	adaptionGate   = "adaption_gate"
)

// prompts is the number of blocks with a prompt.
func (a *adaption) prompts(layers int) int {
	switch n := a.o.AdapterLayers; {
	case n < 0:
		return 0
	case n > 0:
		return n
	case layers >= 8:
		return layers - 2 // the paper's 30 of 32
	}
	return layers
}

// first is the lowest block with a prompt.
func (a *adaption) first(layers int) int { return max(layers-a.prompts(layers), 0) }

// attention is the name of a block's attention module.
func attention(b *model.Block) string {
	q, _ := b.Module(model.Q)
	return b.Name + "." + q.Name[:strings.LastIndex(q.Name, ".")]
}

func (a *adaption) specs(o *outline) ([]spec, error) {
	if n := a.o.AdapterLayers; n > len(o.blocks) {
		return nil, fmt.Errorf("adapter-layers is %d, but the model has %d", n, len(o.blocks))
	}
	gate := []int64{1, int64(o.info.Heads), 1, 1}
	if a.o.Gate == "layer" {
		gate = []int64{1}
	}
	var out []spec
	for _, b := range o.blocks[a.first(len(o.blocks)):] {
		name := attention(b)
		out = append(out,
			spec{name + "." + adaptionPrompt, []int64{1, int64(a.o.AdapterLength), int64(o.info.Hidden)}, gaussian(1)},
			spec{name + "." + adaptionGate, gate, constant(0)})
	}
	if !a.v2 {
		return out, nil
	}
	affine := func(name string, width int64) {
		out = append(out, spec{name + ".adapter_bias", []int64{width}, constant(0)}, spec{name + ".adapter_scale", []int64{width}, constant(1)})
	}
	all, err := o.targets([]string{"all"})
	for _, t := range all {
		affine(t.name, t.out)
	}
	if o.causal && !a.o.SkipLMHead {
		affine(lmHead, int64(o.info.Vocab))
	}
	return out, err
}

const lmHead = "lm_head"

func (a *adaption) mount(x *mounting) error {
	for _, b := range x.blocks[a.first(len(x.blocks)):] {
		name := attention(b)
		b.Branch = append(b.Branch, &promptBranch{x.params.Get(name + "." + adaptionPrompt), x.params.Get(name + "." + adaptionGate), a.o.GateTanh})
	}
	if !a.v2 {
		return nil
	}
	affine := func(inner model.Linear, name string) model.Linear {
		return &affineLinear{inner, x.params.Get(name + ".adapter_bias"), x.params.Get(name + ".adapter_scale")}
	}
	all, err := x.targets([]string{"all"})
	for _, t := range all {
		t.block.SetWrap(t.module.Slot, affine(t.module.Dense, t.name))
	}
	if x.causal && !a.o.SkipLMHead {
		x.hooks.Unembed = affine(x.lm, lmHead)
	}
	return err
}

func (a *adaption) tunes(_ model.Model, name string) bool { return a.v2 && isNorm(name) }
func (a *adaption) silent(name string) bool {
	return strings.HasSuffix(name, "."+adaptionPrompt) || strings.HasSuffix(name, ".k_lin.adapter_bias")
}

func (a *adaption) lr() float64 {
	if a.v2 {
		return 1e-3 // norms and the scales of every linear map move at the prompts' rate to chance
	}
	return 5e-3
}

func (a *adaption) describe() string {
	gates := "a gate per " + a.o.Gate
	if a.o.GateTanh {
		gates += " through tanh"
	}
	text := fmt.Sprintf("prompts of %d from N(0, 1) in the top blocks, %s from zero", a.o.AdapterLength, gates)
	if a.v2 {
		text += "; bias from 0 and scale from 1 on every linear map; norms trained"
	}
	return text
}

// promptBranch attends to one block's prompt.
type promptBranch struct {
	prompt *model.Param // [1, n, hidden]
	gate   *model.Param // [1, H, 1, 1] or [1]
	tanh   bool
}

// Attend implements model.Branch.
func (p *promptBranch) Attend(s *bindings.Scope, q bindings.Tensor, project func(bindings.Tensor) (bindings.Tensor, bindings.Tensor)) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		d := q.DType()
		k, v := project(s.To(p.prompt.T, d))
		batch := func(t bindings.Tensor) bindings.Tensor { return s.Expand(s.To(t, d), q.Size(0), -1, -1, -1) }
		o := s.Attention(q, batch(k), batch(v), bindings.Tensor{}, 0, 0)
		g := p.gate.T
		if p.tanh {
			g = s.Tanh(g)
		}
		return s.To(s.Mul(g, o), d)
	})
}

// affineLinear shifts and scales a map's output.
type affineLinear struct {
	inner       model.Linear
	bias, scale *model.Param
}

// Forward implements model.Linear.
func (l *affineLinear) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		y := l.inner.Forward(s, x)
		return s.To(s.Mul(s.Add(y, l.bias.T), l.scale.T), y.DType())
	})
}
