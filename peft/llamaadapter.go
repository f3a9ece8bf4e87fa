package peft

import (
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// LLaMAAdapterOptions are the settings of llama-adapter and llama-adapter-v2.
type LLaMAAdapterOptions struct {
	AdapterLayers int    `yaml:"adapter-layers" usage:"of llama-adapter: blocks with prompts, counted from the top (all but 2; in shallow models all; v2: -1 for none)"`
	AdapterLength int    `yaml:"adapter-length" usage:"of llama-adapter: prompt length (10)"`
	Gate          string `yaml:"gate" usage:"of llama-adapter: one gate per head, or per layer (head)"`
	GateTanh      bool   `yaml:"gate-tanh" usage:"of llama-adapter: squash gates by tanh, as the paper's code does"`
	SkipLMHead    bool   `yaml:"skip-lm-head" usage:"of llama-adapter-v2: leave the language-model head alone, so that the rest can be merged"`
}

// AdaptionOptions are further settings of llama-adapter: what other libraries compute otherwise. What gopeft trains has
// none of them.
type AdaptionOptions struct {
	OutputBiasTwice bool   `yaml:"output-bias-twice" usage:"of llama-adapter: behind a prompt, add the output map's bias twice, as the peft library does"`
	PromptMaps      string `yaml:"prompt-maps" usage:"of llama-adapter-v2: maps of the prompts' keys and values: own, adapted (lit-llama, litgpt) or interleaved (later litgpt)"`
}

// Values of PromptMaps: with an adapted map's shift and scale, or so as litgpt reads them since its maps hold all
// queries, then keys, then values, while it takes them for heads in turn.
const (
	mapsOwn         = "own"
	mapsAdapted     = "adapted"
	mapsInterleaved = "interleaved"
)

func (o *AdaptionOptions) complete() error {
	return choose("prompt-maps", &o.PromptMaps, mapsOwn, mapsAdapted, mapsInterleaved)
}

func (o *LLaMAAdapterOptions) complete() error {
	if o.AdapterLayers < -1 || o.AdapterLayers > 1<<20 {
		return fmt.Errorf("adapter-layers is %d, want a positive number", o.AdapterLayers)
	}
	if err := checkCount("adapter-length", &o.AdapterLength, 10); err != nil {
		return err
	}
	return choose("gate", &o.Gate, "head", "layer")
}

const ownSoftmax = "its prompts have a softmax of their own"

// llamaAdapterMethod is LLaMA-Adapter (Zhang et al. 2023): in the top blocks, a learned prompt is attended to in a
// softmax of its own, its keys and values made by the block's own maps, and joins the heads' output through a gate
// that starts at zero.
func llamaAdapterMethod() Definition {
	return Definition{
		Name: "llama-adapter",
		Complete: func(o *Options) error {
			if o.AdapterLayers < 0 {
				return fmt.Errorf("adapter-layers is %d, want a positive number", o.AdapterLayers)
			}
			return nil
		},
		New:         func(o Options) Tuner { return &llamaAdapter{o: o} },
		Dialects:    []Dialect{DialectPeft, DialectLitLLaMA, DialectLLaMAFile},
		Unmergeable: ownSoftmax,
	}
}

// llamaAdapterV2Method is its second version (Gao et al. 2023): every linear map's output is also shifted and scaled,
// scale·(W·x + b + bias), and the norms are trained.
func llamaAdapterV2Method() Definition {
	return Definition{Name: "llama-adapter-v2", New: func(o Options) Tuner { return &llamaAdapter{o: o, v2: true} }}
}

type llamaAdapter struct {
	Common
	o  Options
	v2 bool
}

const (
	adaptionPrompt = "adaption_prompt"
	adaptionGate   = "adaption_gate"
	affineBias     = ".adapter_bias"
	affineScale    = ".adapter_scale"
)

// prompts is the number of blocks with a prompt.
func (a *llamaAdapter) prompts(layers int) int {
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
func (a *llamaAdapter) first(layers int) int { return max(layers-a.prompts(layers), 0) }

func (a *llamaAdapter) Adds(x *Structure) ([]NewParam, error) {
	if n := a.o.AdapterLayers; n > len(x.Blocks) {
		return nil, fmt.Errorf("adapter-layers is %d, but the model has %d", n, len(x.Blocks))
	}
	gate := []int64{1, int64(x.Info.Heads), 1, 1}
	if a.o.Gate == "layer" {
		gate = []int64{1}
	}
	var out []NewParam
	for _, b := range x.Blocks[a.first(len(x.Blocks)):] {
		name := x.attention(b)
		out = append(out,
			NewParam{Name: name + "." + adaptionPrompt, Shape: []int64{1, int64(a.o.AdapterLength), int64(x.Info.Hidden)}, Init: Gaussian(1), ZeroGrad: true},
			NewParam{Name: name + "." + adaptionGate, Shape: gate, Init: Constant(0)})
	}
	if !a.v2 {
		return out, nil
	}
	affine := func(name string, width int, shiftless bool) {
		out = append(out,
			NewParam{Name: name + affineBias, Shape: []int64{int64(width)}, Init: Constant(0), ZeroGrad: shiftless},
			NewParam{Name: name + affineScale, Shape: []int64{int64(width)}, Init: Constant(1)})
	}
	for _, t := range x.AllTargets() {
		affine(t.Name, t.Out, t.Shiftless)
	}
	if x.HasLMHead && !a.o.SkipLMHead {
		affine(x.Info.LMHead, x.Info.Vocab, false)
	}
	return out, nil
}

func (a *llamaAdapter) Attach(x *Attachment) error {
	for _, b := range x.Blocks[a.first(len(x.Blocks)):] {
		name := x.attention(b)
		branch := &promptBranch{prompt: x.Param(name + "." + adaptionPrompt), gate: x.Param(name + "." + adaptionGate), tanh: a.o.GateTanh}
		if a.v2 && a.o.PromptMaps != mapsOwn {
			branch.maps = a.promptMaps(x, b)
		}
		b.Branch = append(b.Branch, branch)
		if o, ok := b.Module(model.O); ok && a.o.OutputBiasTwice && !a.v2 && o.Dense.B != nil {
			b.SetWrap(model.O, &biasTwice{o.Dense})
		}
	}
	if !a.v2 {
		return nil
	}
	affine := func(inner model.Linear, name string) model.Linear {
		return &affineLinear{inner, x.Param(name + affineBias), x.Param(name + affineScale)}
	}
	for _, t := range x.AllTargets() {
		t.Block.SetWrap(t.Slot, affine(t.Dense, t.Name))
	}
	if x.HasLMHead && !a.o.SkipLMHead {
		x.Hooks.Unembed = affine(x.LMHead, x.Info.LMHead)
	}
	return nil
}

func (a *llamaAdapter) Trains(_ model.Model, p *model.Param) bool { return a.v2 && p.Norm }

func (a *llamaAdapter) Needs() Needs {
	if a.v2 {
		return Needs{KeptOutputs: 1}
	}
	return Needs{}
}

func (a *llamaAdapter) LR() float64 {
	if a.v2 {
		return 1e-3 // norms and the scales of every linear map move at the prompts' rate to chance
	}
	return 5e-3
}

func (a *llamaAdapter) Describe() string {
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

// Merge implements Merger: of v2 without prompts.
func (a *llamaAdapter) Merge(s *bindings.Scope, x *Attachment) ([]Merged, error) {
	switch {
	case a.prompts(len(x.Blocks)) > 0:
		return nil, errors.New(ownSoftmax + " (train with adapter-layers -1 to do without prompts)")
	case x.Param(x.Info.LMHead+affineBias) != nil:
		return nil, errors.New("its bias on the language-model head has no place in a checkpoint (train with skip-lm-head)")
	}
	var out []Merged
	for _, t := range x.AllTargets() {
		scale, bias := s.Detach(x.Param(t.Name+affineScale).T), s.Detach(x.Param(t.Name+affineBias).T)
		if b := t.Dense.B; b != nil {
			bias = s.Add(bias, s.To(s.Detach(b.T), bindings.Float))
		}
		w := s.Mul(t.Dense.W.Stored(s, bindings.Float), s.Unsqueeze(scale, 1))
		out = append(out, Merged{t, w, s.Mul(scale, bias)})
	}
	return out, nil
}

// promptBranch attends to one block's prompt.
type promptBranch struct {
	prompt *model.Param // [1, n, hidden]
	gate   *model.Param // [1, H, 1, 1] or [1]
	tanh   bool
	// maps gives the prompt's keys and values [1, Hkv, n, D] where the block's own maps do not.
	maps func(s *bindings.Scope, prompt bindings.Tensor) (k, v bindings.Tensor)
}

// promptMaps are the maps of a block's prompt with their shifts and scales.
func (a *llamaAdapter) promptMaps(x *Attachment, b *model.Block) func(*bindings.Scope, bindings.Tensor) (k, v bindings.Tensor) {
	i := x.Info
	adapted := func(slot model.Slot) model.Linear { return b.Linear(slot) }
	heads := func(s *bindings.Scope, t bindings.Tensor) bindings.Tensor { // [1, n, Hkv, D] to [1, Hkv, n, D]
		return s.Transpose(t, 1, 2)
	}
	if a.o.PromptMaps == mapsAdapted {
		return func(s *bindings.Scope, prompt bindings.Tensor) (k, v bindings.Tensor) {
			part := func(slot model.Slot) bindings.Tensor {
				return heads(s, s.Reshape(adapted(slot).Forward(s, prompt), 1, prompt.Size(1), int64(i.KVHeads), -1))
			}
			return part(model.K), part(model.V)
		}
	}
	group := int64(i.Heads / i.KVHeads)
	return func(s *bindings.Scope, prompt bindings.Tensor) (k, v bindings.Tensor) {
		var all []bindings.Tensor
		for _, slot := range []model.Slot{model.Q, model.K, model.V} {
			all = append(all, adapted(slot).Forward(s, prompt))
		}
		t := s.Reshape(s.Cat(2, all...), 1, prompt.Size(1), int64(i.KVHeads), group+2, -1)
		return heads(s, s.Select(t, 3, group)), heads(s, s.Select(t, 3, group+1))
	}
}

// Attend implements model.Branch.
func (p *promptBranch) Attend(s *bindings.Scope, q bindings.Tensor, project func(bindings.Tensor) (bindings.Tensor, bindings.Tensor)) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		d := q.DType()
		var k, v bindings.Tensor
		if prompt := s.To(p.prompt.T, d); p.maps != nil {
			k, v = p.maps(s, prompt)
		} else {
			k, v = project(prompt)
		}
		batch := func(t bindings.Tensor) bindings.Tensor { return s.Expand(s.To(t, d), q.Size(0), -1, -1, -1) }
		o := s.Attention(q, batch(k), batch(v), bindings.Tensor{}, 0, 0)
		g := p.gate.T
		if p.tanh {
			g = s.Tanh(g)
		}
		return s.To(s.Mul(g, o), d)
	})
}

// biasTwice adds a map's bias once more.
type biasTwice struct{ dense *model.Dense }

// Forward implements model.Linear.
func (l *biasTwice) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		y := l.dense.Forward(s, x)
		return s.Add(y, s.To(l.dense.B.Value(), y.DType()))
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
