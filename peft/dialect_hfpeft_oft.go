package peft

import (
	"errors"
	"fmt"
	"math"

	"gopeft/model"
)

// hfOFT is what adapter_config.json says of OFT.
type hfOFT struct {
	Size    int   `json:"oft_block_size"`
	COFT    bool  `json:"coft"`
	Neumann *bool `json:"use_cayley_neumann"`
	Terms   *int  `json:"num_cayley_neumann_terms"`
}

// oft is the tuner of a folder with OFT, whose blocks' sizes the weights tell.
func (c *hfConfig) oft(f *adapterFiles, m model.Model, o *Options) (Tuner, error) {
	switch {
	case c.OFT.COFT:
		return nil, errors.New("coft is not supported")
	case c.OFT.Neumann == nil || !*c.OFT.Neumann:
		return nil, errors.New("use_cayley_neumann is not set: OFT with an exact inverse is not supported")
	case c.OFT.Terms != nil && (*c.OFT.Terms < 1 || *c.OFT.Terms > 64):
		return nil, fmt.Errorf("num_cayley_neumann_terms is %d", *c.OFT.Terms)
	}
	v := &oft{terms: oftTerms}
	if c.OFT.Terms != nil {
		v.terms = *c.OFT.Terms
	}
	targets, err := o.targets(structureOf(m))
	if err != nil {
		return nil, err
	}
	shapes := map[string][2]int{}
	for _, t := range targets {
		rows, size := 1, t.In // where the file lacks the map, of which reading it tells
		if e, ok := c.factor(t.Name, oftWeight); ok && len(e.Shape) == 2 {
			rows, size = int(min(e.Shape[0], 1<<20)), int(math.Round((1+math.Sqrt(float64(1+8*e.Shape[1])))/2))
		}
		if size < 2 || size > t.In || t.In%size != 0 || rows != 1 && rows*size != t.In {
			return nil, fmt.Errorf("%s%s: %d blocks of %d do not make up %d inputs", t.Name, oftWeight, rows, size, t.In)
		}
		shapes[t.Name] = [2]int{rows, size}
	}
	v.shape = func(t Target) (rows, size int) { return shapes[t.Name][0], shapes[t.Name][1] }
	o.BlockSize = c.OFT.Size
	v.o, err = f.complete(*o)
	return v, err
}

// hfConfig is what peft is told of the method.
func (v *oft) hfConfig(m model.Model, c map[string]any) {
	targets, _ := v.o.targets(structureOf(m)) // Attach has found them
	blocks, _ := v.blocks(targets)
	size := v.o.BlockSize
	share := false
	for _, t := range targets {
		rows, own := blocks(t)
		share = share || rows*own < t.In
		if v.shape == nil || size == 0 {
			size = own
		}
	}
	c["r"], c["oft_block_size"], c["block_share"], c["coft"], c["module_dropout"], c["bias"] = 0, size, share, false, 0.0, "none"
	c["use_cayley_neumann"], c["num_cayley_neumann_terms"], c["fan_in_fan_out"], c["init_weights"] = true, v.terms, false, true
	c["target_modules"] = hfTargets(m, v.o.Targets)
	if len(v.o.Layers) > 0 {
		c["layers_to_transform"] = v.o.Layers
	}
}
