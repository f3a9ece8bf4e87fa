package hf

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf/files"
)

// SaveQuantised is SaveModel in the form of bitsandbytes, which transformers opens: the matrices that are Quantised keep
// their codes, and config, which is left as it is, gets a quantization_config. They are to be of one kind, NF4, FP4 or
// Int8Rows, and weights of linear maps: transformers has no quantised table of embeddings.
func SaveQuantised(s *bindings.Scope, folder string, config map[string]any, ts []Named) error {
	q, err := quantisationOf(config, ts)
	if err != nil {
		return err
	}
	config = maps.Clone(config)
	config["quantization_config"] = q
	return SaveModel(s, folder, config, ts)
}

// quantisationOf is the quantization_config of a folder with these tensors, with the fields that transformers writes.
func quantisationOf(config map[string]any, ts []Named) (map[string]any, error) {
	var first *Named
	double := false
	var plain []string
	for i, n := range ts {
		module, isWeight := strings.CutSuffix(n.Name, ".weight")
		switch {
		case n.Quantised == nil && isWeight && n.Tensor.Dim() == 2:
			plain = append(plain, module)
		case n.Quantised == nil:
		case n.Quantised.Kind > bindings.Int8Rows:
			return nil, notBitsandbytes(n)
		case !isWeight:
			return nil, fmt.Errorf("save %s: bitsandbytes' folders hold no quantised tensor that is not called weight", n.Name)
		case first != nil && first.Quantised.Kind != n.Quantised.Kind:
			return nil, fmt.Errorf("save %s: it is quantised in another way than %s: bitsandbytes' folders have one for all", n.Name, first.Name)
		case first == nil:
			first = &ts[i]
		}
		double = double || n.Quantised != nil && n.Quantised.NestedBlock > 0
	}
	if first == nil {
		return nil, fmt.Errorf("save: none of the %d tensors is quantised", len(ts))
	}
	if !slices.ContainsFunc(ts, func(n Named) bool { return n.Name == head+".weight" }) {
		plain = append(plain, head) // tied to the table of embeddings
	}
	kind, compute := "fp4", "float32"
	if first.Quantised.Kind == bindings.NF4 {
		kind = "nf4"
	}
	for _, field := range []string{"torch_dtype", "dtype"} {
		if d, ok := config[field].(string); ok {
			compute = d
		}
	}
	eight := first.Quantised.Kind == bindings.Int8Rows
	return map[string]any{
		"quant_method": "bitsandbytes", "load_in_4bit": !eight, "load_in_8bit": eight, "_load_in_4bit": !eight, "_load_in_8bit": eight,
		"bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": double, "bnb_4bit_compute_dtype": compute, "bnb_4bit_quant_storage": "uint8",
		"llm_int8_skip_modules": plain, "llm_int8_threshold": json.Number("6.0"), "llm_int8_has_fp16_weight": false, "llm_int8_enable_fp32_cpu_offload": false,
	}, nil
}

// head is transformers' name for the map to the vocabulary, which it quantises unless told not to.
const head = "lm_head"

// outgoingQuantised is the tensors that bitsandbytes stores a matrix as. n.Written is called after its codes.
func outgoingQuantised(s *bindings.Scope, n Named) ([]files.Tensor, error) {
	parts, err := partsOf(s, n)
	for i := range parts {
		parts[i].Together = i > 0
	}
	return parts, err
}

func partsOf(s *bindings.Scope, n Named) ([]files.Tensor, error) {
	q := n.Quantised
	if n.Make != nil {
		return nil, fmt.Errorf("save %s: bitsandbytes' folders have no place for a quantised matrix that is stored in another form: dequantise it first", n.Name)
	}
	raw := func(name string, d files.DType, t bindings.Tensor, shape ...int64) files.Tensor {
		return files.Tensor{Name: name, DType: d, Shape: shape, Write: func(w io.Writer) error {
			return s.Run(func(s *bindings.Scope) error {
				t := s.Contiguous(s.ToDevice(t, t.DType(), bindings.CPU))
				return t.View(func(raw []byte) error { _, err := w.Write(raw); return err })
			})
		}}
	}
	written := func(t files.Tensor) files.Tensor {
		write := t.Write
		t.Write = func(w io.Writer) error {
			if n.Written != nil {
				defer n.Written()
			}
			return write(w)
		}
		return t
	}
	switch q.Kind {
	case bindings.Int8Rows:
		module := strings.TrimSuffix(n.Name, ".weight")
		return []files.Tensor{
			written(raw(n.Name, files.I8, q.Codes, q.Rows, q.Cols)),
			raw(module+".SCB", files.F32, q.Scales, q.Rows),
			{Name: module + ".weight_format", DType: files.U8, Data: []byte{0}}, // rows in order
		}, nil
	case bindings.NF4, bindings.FP4:
	default:
		return nil, notBitsandbytes(n)
	}
	d, kind := files.NF4, "nf4"
	if q.Kind == bindings.FP4 {
		d, kind = files.FP4, "fp4"
	}
	table := make([]byte, 4*16)
	if err := files.EncodeFloat32(table, files.F32, files.QuantMap(d)); err != nil {
		return nil, err
	}
	state, err := quantState(n, kind)
	if err != nil {
		return nil, err
	}
	all := q.Rows * q.Cols
	blocks := all / q.Block
	out := []files.Tensor{
		written(raw(n.Name, files.U8, q.Codes, all/2, 1)),
		{Name: n.Name + ".quant_map", DType: files.F32, Shape: []int64{16}, Data: table},
		{Name: n.Name + ".quant_state.bitsandbytes__" + kind, DType: files.U8, Shape: []int64{int64(len(state))}, Data: []byte(state)},
	}
	if q.NestedBlock == 0 {
		return append(out, raw(n.Name+".absmax", files.F32, q.Scales, blocks)), nil
	}
	return append(out,
		raw(n.Name+".absmax", files.U8, q.Scales, blocks),
		raw(n.Name+".nested_absmax", files.F32, q.NestedScales, (blocks+q.NestedBlock-1)/q.NestedBlock),
		raw(n.Name+".nested_quant_map", files.F32, q.NestedMap, 256)), nil
}

func notBitsandbytes(n Named) error {
	return fmt.Errorf("save %s: bitsandbytes' folders have no place for weights quantised as these are: dequantise them first", n.Name)
}

// quantState is the JSON that bitsandbytes writes beside 4-bit codes, byte for byte.
func quantState(n Named, kind string) (string, error) {
	q, as := n.Quantised, n.As
	if as == 0 {
		as = n.Tensor.DType()
	}
	dtype, known := map[bindings.DType]string{bindings.Float: "float32", bindings.Half: "float16", bindings.BFloat16: "bfloat16"}[as]
	if !known {
		return "", fmt.Errorf("save %s: bitsandbytes dequantises to no %v", n.Name, as)
	}
	nested := ""
	if q.NestedBlock > 0 {
		nested = fmt.Sprintf(`, "nested_blocksize": %d, "nested_dtype": "float32", "nested_offset": %s`, q.NestedBlock, pythonFloat(float64(q.Offset)))
	}
	return fmt.Sprintf(`{"quant_type": "%s", "blocksize": %d, "dtype": "%s", "shape": [%d, %d]%s}`, kind, q.Block, dtype, q.Rows, q.Cols, nested), nil
}

// pythonFloat writes a number as Python's repr does.
func pythonFloat(f float64) string {
	if size := math.Abs(f); size != 0 && (size < 1e-4 || size >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	text := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}
