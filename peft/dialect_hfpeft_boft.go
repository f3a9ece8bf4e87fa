package peft

import (
	"errors"
	"fmt"

	"gopeft/model"
)

// hfBOFT is what adapter_config.json says of BOFT. Its dropout, which replaces blocks in training, is left out.
type hfBOFT struct {
	Size        int `json:"boft_block_size"`
	Num         int `json:"boft_block_num"`
	Butterflies int `json:"boft_n_butterfly_factor"`
}

// boft is the tuner of a folder with BOFT, whose blocks' sizes and number of rotations the weights tell: peft's own
// extension for more than one is missing on most machines, where it trains one whatever the configuration says.
func (c *hfConfig) boft(f *adapterFiles, m model.Model, o *Options) (Tuner, error) {
	targets, err := o.targets(structureOf(m))
	if err != nil {
		return nil, err
	}
	o.BlockSize, o.Butterflies = c.BOFT.Size, max(1, c.BOFT.Butterflies)
	sizes := map[string]int{}
	for _, t := range targets {
		e, ok := c.factor(t.Name, boftR)
		if !ok || len(e.Shape) != 4 { // reading the file tells of it
			continue
		}
		if e.Shape[0] < 1 || e.Shape[0] > 20 || e.Shape[2] < 1 || e.Shape[2] > int64(t.In) {
			return nil, fmt.Errorf("%s%s is %v, which are no rotations of %d inputs", t.Name, boftR, e.Shape, t.In)
		}
		o.Butterflies, sizes[t.Name] = int(e.Shape[0]), int(e.Shape[2])
	}
	v := &boft{}
	if v.size = func(t Target) int { return sizes[t.Name] }; len(sizes) == 0 {
		return nil, errors.New("the file has none of the rotations")
	}
	v.o, err = f.complete(*o)
	return v, err
}

// hfConfig is what peft is told of the method.
func (v *boft) hfConfig(m model.Model, c map[string]any) {
	targets, _ := v.o.targets(structureOf(m)) // Attach has found them
	size, num := 0, 0
	for _, t := range targets {
		own, _ := v.block(t)
		if size != 0 && own != size { // all have as many blocks then
			size, num = 0, t.In/own
			break
		}
		size = own
	}
	c["boft_block_size"], c["boft_block_num"], c["boft_n_butterfly_factor"], c["boft_dropout"] = size, num, v.o.Butterflies, 0.0
	c["bias"], c["fan_in_fan_out"], c["init_weights"] = "none", false, true
	c["target_modules"] = hfTargets(m, v.o.Targets)
	if len(v.o.Layers) > 0 {
		c["layers_to_transform"] = v.o.Layers
	}
}
