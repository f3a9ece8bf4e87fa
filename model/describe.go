package model

import (
	"errors"

	"gopeft/bindings"
	"gopeft/model/hf"
)

// Description is a model as its files describe it, before any weight is read.
type Description struct {
	Info   Info
	Labels []string
	Params []Described
	Blocks []string // prefixes of the blocks' parameters
	Heads  []string // top-level names of the classification head's modules
	// Quantised says that Load would hold some of the weights quantised.
	Quantised bool
}

// Described is a parameter of a model that is not loaded.
type Described struct {
	Name  string
	Shape []int64
	DType string // as the file stores it; "" where it has none, and the parameter would start anew
}

// Describe reads what the checkpoint at path says of the model that Load would make of it, and checks the names and
// shapes of its tensors, without reading them.
func Describe(s *bindings.Scope, path string, o Options) (Description, error) {
	var d Description
	c, err := hf.Open(path)
	if err != nil {
		return d, err
	}
	c.Shapes = true
	m, err := build(s, c, o)
	if err != nil {
		return d, errors.Join(err, c.Close())
	}
	d = m.(interface{ describe() Description }).describe()
	d.Info = m.Info()
	return d, errors.Join(m.Close(), c.Close())
}

func (b *base) describe() Description {
	d := Description{Labels: b.labels, Heads: b.headNames}
	for i, p := range b.params.list {
		x := Described{Name: p.Name, Shape: b.shapes[i]}
		if e := b.stored[i]; e != nil {
			x.DType = e.DType.String()
			_, rounded := b.asked[i].Quantise.Kind()
			d.Quantised = d.Quantised || rounded || b.asked[i].Quantise == hf.Keep && e.DType.Quantised()
		}
		d.Params = append(d.Params, x)
	}
	for _, block := range b.hooks.Blocks {
		d.Blocks = append(d.Blocks, block.Name)
	}
	return d
}
