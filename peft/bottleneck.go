package peft

import (
	"fmt"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// bottleneck is the adapter of Houlsby et al. 2019, two per block, h + up(f(down(h))) on the output h of
// attention and of the feed-forward network before the residual is added, or, as pfeiffer, that of Pfeiffer
// et al. 2021: one per block after the feed-forward network, reading what the block would make of h (residual
// added, normalised), h + up(f(down(join(h)))).
type bottleneck struct {
	plain
	o        Options
	pfeiffer bool
	scaling  float64 // of the update; 0 stands for 1
	// Departures of adapter files from the above: what the adapter reads, and where it sits.
	where *placement
}

// placement says where adapters sit and what they read.
type placement struct {
	attn, ffn bool
	readJoin  bool // the adapter reads join(h) in place of h
}

func (b *bottleneck) place() placement {
	switch {
	case b.where != nil:
		return *b.where
	case b.pfeiffer:
		return placement{ffn: true, readJoin: true}
	}
	return placement{attn: true, ffn: true}
}

// sites are the two places in a block, by the names AdapterHub gives them.
const (
	siteAttn = "attention_adapters"
	siteFFN  = "output_adapters"
)

func (b *bottleneck) sites() []string {
	var out []string
	p := b.place()
	if p.attn {
		out = append(out, siteAttn)
	}
	if p.ffn {
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

func (b *bottleneck) specs(o *outline) ([]spec, error) {
	d, k := int64(o.info.Hidden), b.width(o.info.Hidden)
	var out []spec
	for _, block := range o.blocks {
		for _, site := range b.sites() {
			name := block.Name + "." + site
			out = append(out,
				spec{name + ".adapter_down.0.weight", []int64{k, d}, gaussian(0.02)}, spec{name + ".adapter_down.0.bias", []int64{k}, constant(0)},
				spec{name + ".adapter_up.weight", []int64{d, k}, gaussian(0.02)}, spec{name + ".adapter_up.bias", []int64{d}, constant(0)})
		}
	}
	return out, nil
}

func (b *bottleneck) mount(x *mounting) error {
	f, err := activation(b.o.Activation)
	if err != nil {
		return err
	}
	scaling := b.scaling
	if scaling == 0 {
		scaling = 1
	}
	for _, block := range x.blocks {
		for _, site := range b.sites() {
			get := func(part string) *model.Param { return x.params.Get(block.Name + "." + site + "." + part) }
			t := &adapterLayer{
				downW: get("adapter_down.0.weight"), downB: get("adapter_down.0.bias"), upW: get("adapter_up.weight"), upB: get("adapter_up.bias"),
				f: f, readJoin: b.place().readJoin, scaling: scaling,
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

// tunes: the paper also trains the norms of the blocks.
func (b *bottleneck) tunes(m model.Model, name string) bool {
	return b.o.TrainLayerNorm && isBlockNorm(m, name)
}

// isBlockNorm reports whether a parameter belongs to a normalisation inside a block.
func isBlockNorm(m model.Model, name string) bool {
	for _, b := range m.Hooks().Blocks {
		if strings.HasPrefix(name, b.Name+".") && isNorm(name) {
			return true
		}
	}
	return false
}

func isNorm(name string) bool { return strings.Contains(strings.ToLower(name), "norm") }

func (b *bottleneck) lr() float64 { return 1e-3 }

func (b *bottleneck) describe() string {
	size := fmt.Sprintf("width %d", b.o.Bottleneck)
	if b.o.Bottleneck == 0 {
		size = fmt.Sprintf("reduction %g", b.o.ReductionFactor)
	}
	places := "after attention and after the feed-forward network"
	if b.pfeiffer {
		places = "after the feed-forward network"
	}
	norms := "frozen"
	if b.o.TrainLayerNorm {
		norms = "trained"
	}
	return fmt.Sprintf("bottlenecks %s, %s, %s, weights N(0, 0.02²), biases zero; norms %s", places, size, b.o.Activation, norms)
}

// activations are the element-wise functions between a bottleneck's maps, by their names in adapter files. Some
// have two names there.
var activations = []struct {
	name string
	f    func(*bindings.Scope, bindings.Tensor) bindings.Tensor
}{
	{"swish", (*bindings.Scope).SiLU},
	{"silu", (*bindings.Scope).SiLU},
	{"relu", (*bindings.Scope).ReLU},
	{"gelu", (*bindings.Scope).GELU},
	{"gelu_new", (*bindings.Scope).GELUTanh},
	{"tanh", (*bindings.Scope).Tanh},
}

// activationNames are what activation knows, the default first.
func activationNames(first string) []string {
	names := []string{first}
	for _, a := range activations {
		if a.name != first {
			names = append(names, a.name)
		}
	}
	return names
}

// activation finds an element-wise function by its name in adapter files, which ignores case as there.
func activation(name string) (func(*bindings.Scope, bindings.Tensor) bindings.Tensor, error) {
	for _, a := range activations {
		if a.name == strings.ToLower(name) {
			return a.f, nil
		}
	}
	return nil, fmt.Errorf("activation %q is not supported (%s)", name, strings.Join(activationNames("swish"), ", "))
}

// adapterLayer is one bottleneck.
type adapterLayer struct {
	downW, downB, upW, upB *model.Param
	f                      func(*bindings.Scope, bindings.Tensor) bindings.Tensor
	readJoin               bool
	scaling                float64
}

// Apply implements model.Transform.
func (t *adapterLayer) Apply(s *bindings.Scope, h bindings.Tensor, join func(*bindings.Scope, bindings.Tensor) bindings.Tensor) bindings.Tensor {
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
