package peft

import (
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// BottleneckOptions are the settings of houlsby and pfeiffer.
type BottleneckOptions struct {
	Bottleneck      int     `yaml:"bottleneck" usage:"of houlsby and pfeiffer: bottleneck width (hidden size / reduction-factor)"`
	ReductionFactor float64 `yaml:"reduction-factor" usage:"of houlsby and pfeiffer: hidden size over bottleneck width (16)"`
	Activation      string  `yaml:"activation" usage:"of houlsby and pfeiffer: swish (or silu), relu, gelu, gelu_new or tanh (houlsby: swish, pfeiffer: relu)"`
	TrainLayerNorm  bool    `yaml:"train-layernorm" usage:"of houlsby and pfeiffer: train the blocks' norms too, as the paper does"`
}

func (o *BottleneckOptions) complete() error {
	if err := checkCount("bottleneck", &o.Bottleneck, 0); err != nil {
		return err
	}
	err := checkFactor("reduction-factor", o.ReductionFactor)
	if o.ReductionFactor == 0 {
		o.ReductionFactor = 16
	}
	return err
}

// houlsbyMethod is the adapter of Houlsby et al. 2019, two per block, h + up(f(down(h))) on the output h of attention
// and of the feed-forward network before the residual is added.
func houlsbyMethod() Definition {
	return bottleneckMethod("houlsby", "swish", placement{attn: true, ffn: true})
}

// pfeifferMethod is that of Pfeiffer et al. 2021: one per block after the feed-forward network, reading what the block
// would make of h (residual added, normalised), h + up(f(down(join(h)))).
func pfeifferMethod() Definition {
	return bottleneckMethod("pfeiffer", "relu", placement{ffn: true, readJoin: true})
}

func bottleneckMethod(name, activation string, place placement) Definition {
	return Definition{
		Name:        name,
		Complete:    func(o *Options) error { return choose("activation", &o.Activation, activationNames(activation)...) },
		New:         func(o Options) Tuner { return &bottleneck{o: o, place: place, scaling: 1} },
		Dialects:    []Dialect{DialectHub},
		Unmergeable: "a nonlinearity lies between its two maps",
	}
}

// bottleneck differs from the papers where adapter files say so: in where it sits, what it reads, and a factor of the
// update.
type bottleneck struct {
	Common
	o       Options
	place   placement
	scaling float64
}

// placement says where adapters sit and what they read.
type placement struct {
	attn, ffn bool
	readJoin  bool // the adapter reads join(h) in place of h
}

// sites are the two places in a block, by the names AdapterHub gives them.
const (
	siteAttn = "attention_adapters"
	siteFFN  = "output_adapters"
)

func (b *bottleneck) sites() []string {
	var out []string
	if b.place.attn {
		out = append(out, siteAttn)
	}
	if b.place.ffn {
		out = append(out, siteFFN)
	}
	return out
}

// width is the bottleneck's.
func (b *bottleneck) width(hidden int) int64 {
	if b.o.Bottleneck > 0 {
		return int64(b.o.Bottleneck)
	}
	return max(int64(float64(hidden)/b.o.ReductionFactor), 1)
}

func (b *bottleneck) Adds(x *Structure) ([]NewParam, error) {
	d, k := int64(x.Info.Hidden), b.width(x.Info.Hidden)
	var out []NewParam
	for _, block := range x.Blocks {
		for _, site := range b.sites() {
			name := block.Name + "." + site
			out = append(out,
				NewParam{Name: name + ".adapter_down.0.weight", Shape: []int64{k, d}, Init: Gaussian(0.02)},
				NewParam{Name: name + ".adapter_down.0.bias", Shape: []int64{k}, Init: Constant(0)},
				NewParam{Name: name + ".adapter_up.weight", Shape: []int64{d, k}, Init: Gaussian(0.02)},
				NewParam{Name: name + ".adapter_up.bias", Shape: []int64{d}, Init: Constant(0)})
		}
	}
	return out, nil
}

func (b *bottleneck) Attach(x *Attachment) error {
	f, err := activation(b.o.Activation)
	if err != nil {
		return err
	}
	for _, block := range x.Blocks {
		for _, site := range b.sites() {
			get := func(part string) *model.Param { return x.Param(block.Name + "." + site + "." + part) }
			t := &bottleneckLayer{
				downW: get("adapter_down.0.weight"), downB: get("adapter_down.0.bias"), upW: get("adapter_up.weight"), upB: get("adapter_up.bias"),
				f: f, readJoin: b.place.readJoin, scaling: b.scaling,
			}
			if site == siteAttn {
				block.AfterAttn = append(block.AfterAttn, t)
			} else {
				block.AfterFFN = append(block.AfterFFN, t)
			}
		}
	}
	return nil
}

// Trains: the paper also trains the norms of the blocks.
func (b *bottleneck) Trains(m model.Model, p *model.Param) bool {
	return b.o.TrainLayerNorm && p.Norm && inBlock(m, p)
}

func (b *bottleneck) LR() float64 { return 1e-3 }

func (b *bottleneck) Describe() string {
	size := fmt.Sprintf("width %d", b.o.Bottleneck)
	if b.o.Bottleneck == 0 {
		size = fmt.Sprintf("reduction %g", b.o.ReductionFactor)
	}
	places := "after the feed-forward network"
	if b.place.attn {
		places = "after attention and after the feed-forward network"
	}
	norms := "frozen"
	if b.o.TrainLayerNorm {
		norms = "trained"
	}
	return fmt.Sprintf("bottlenecks %s, %s, %s, weights N(0, 0.02²), biases zero; norms %s", places, size, b.o.Activation, norms)
}

// bottleneckLayer is one bottleneck.
type bottleneckLayer struct {
	downW, downB, upW, upB *model.Param
	f                      func(*bindings.Scope, bindings.Tensor) bindings.Tensor
	readJoin               bool
	scaling                float64
}

// Apply implements model.Transform.
func (t *bottleneckLayer) Apply(s *bindings.Scope, h bindings.Tensor, join func(*bindings.Scope, bindings.Tensor) bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		x := h
		if t.readJoin {
			x = join(s, h)
		}
		up := s.Linear(t.f(s, s.Linear(s.To(x, t.downW.T.DType()), t.downW.T, t.downB.T)), t.upW.T, t.upB.T)
		if t.scaling != 1 {
			up = s.MulScalar(up, t.scaling)
		}
		return s.To(s.Add(h, up), h.DType())
	})
}
