package model

import (
	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// FileDType is the dtype of most bytes of weights in the checkpoint at path that are not quantised.
func FileDType(path string) (bindings.DType, error) {
	c, err := hf.Open(path)
	if err != nil {
		return 0, err
	}
	bytes := map[bindings.DType]int{}
	for _, e := range c.Weights.Entries() {
		if e.DType.Quantised() {
			continue
		}
		d := bindings.Float
		switch e.DType {
		case files.BF16:
			d = bindings.BFloat16
		case files.F16:
			d = bindings.Half
		}
		bytes[d] += len(e.Data)
	}
	most := bindings.Float
	for _, d := range []bindings.DType{bindings.BFloat16, bindings.Half} {
		if bytes[d] > bytes[most] {
			most = d
		}
	}
	return most, c.Close()
}
