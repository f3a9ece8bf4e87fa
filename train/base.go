package train

import (
	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

// Base is what the frozen matrices of a base model are held in.
type Base struct {
	DType    bindings.DType
	Quantise hf.Quantisation // in fewer bits than DType
}

// CheckBase reports a --base-dtype or a --quantize that is not known.
func CheckBase(dtype, quantize string) error {
	if _, known := baseDType(dtype); !known && dtype != "" && dtype != "auto" {
		return Usage("--base-dtype %q is not known (auto, fp32, bf16, fp16)", dtype)
	}
	if _, known := quantisation(quantize); !known && quantize != "" {
		return Usage("--quantize %q is not known (none, nf4, int8, keep)", quantize)
	}
	return nil
}

func baseDType(name string) (d bindings.DType, known bool) {
	switch name {
	case "fp32":
		return bindings.Float, true
	case "bf16":
		return bindings.BFloat16, true
	case "fp16":
		return bindings.Half, true
	}
	return 0, false
}

func quantisation(name string) (q hf.Quantisation, known bool) {
	switch name {
	case "none":
		return hf.Plain, true
	case "keep":
		return hf.Keep, true
	case "nf4":
		return hf.NF4, true
	case "int8":
		return hf.Int8, true
	}
	return 0, false
}

// ChooseBase turns --base-dtype and --quantize into what a frozen base is held in. file is the dtype of most weights in
// the model's files that are not quantised. auto keeps it where products are computed in it, so that no weight lies in
// memory twice; else it is fp32. Without --quantize what the files hold quantised is kept so.
func ChooseBase(dtype, quantize string, file bindings.DType, p Precision) (b Base, err error) {
	if err := CheckBase(dtype, quantize); err != nil {
		return b, err
	}
	b.Quantise = hf.Keep
	if q, known := quantisation(quantize); known {
		b.Quantise = q
	}
	if d, known := baseDType(dtype); known {
		b.DType = d
	} else if b.DType = bindings.Float; file == p.DType {
		b.DType = file
	}
	return b, nil
}

// FullBase refuses a --quantize for a method that trains the base's own weights.
func FullBase(method, quantize string) error {
	if quantize == "" || quantize == "none" {
		return nil
	}
	return Usage("--quantize %s: method %s trains the base's own weights and saves them all, which quantised weights cannot be; train an adapter, or hold them in full with --quantize none", quantize, method)
}

// BaseDTypeName is the value of --base-dtype that asks for a dtype.
func BaseDTypeName(d bindings.DType) string {
	switch d {
	case bindings.BFloat16:
		return "bf16"
	case bindings.Half:
		return "fp16"
	}
	return "fp32"
}

// QuantizeName is the value of --quantize that asks for what m was loaded with: none where no weight is quantised.
func QuantizeName(q hf.Quantisation, m model.Model) string {
	switch {
	case q == hf.NF4:
		return "nf4"
	case q == hf.Int8:
		return "int8"
	case model.Quantised(m):
		return "keep"
	}
	return "none"
}
