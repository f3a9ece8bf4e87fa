package hf

import (
	"strings"
	"testing"

	"gopeft/model/hf/files"
)

func TestSchemeOfReadsWhatLibrariesWrite(t *testing.T) {
	for _, c := range []struct {
		config string
		want   files.Scheme
	}{
		{`{}`, files.Scheme{}},
		{`{"quantization_config": null}`, files.Scheme{}},
		{`{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}`, files.Scheme{}},
		{`{"quantization_config": {"load_in_8bit": true}}`, files.Scheme{}},
		{`{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": true}}`,
			files.Scheme{Layout: files.GPTQ, Group: 128, ZeroShift: files.ZerosFromOne}},
		{`{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": -1, "checkpoint_format": "gptq_v2"}}`,
			files.Scheme{Layout: files.GPTQ}},
		{`{"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 64, "version": "gemm"}}`,
			files.Scheme{Layout: files.AWQ, Group: 64}},
		{`{"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups":
			{"group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}}}}`,
			files.Scheme{Layout: files.CompressedTensors, Group: 32}},
		{`{"quantization_config": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups":
			{"group_0": {"weights": {"num_bits": 4, "type": "int", "strategy": "channel", "group_size": null}}}}}`,
			files.Scheme{Layout: files.CompressedTensors}},
	} {
		if got, err := schemeOf([]byte(c.config)); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.config, got, err, c.want)
		}
	}
}

func TestSchemeOfRefusesByFieldAndValue(t *testing.T) {
	compressed := func(weights string) string {
		return `"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"g": {"weights": ` + weights + `}}`
	}
	for _, c := range []struct{ config, want string }{
		{`"quant_method": "hqq"`, `quant_method "hqq"`},
		{`"bits": 4`, `quant_method ""`},
		{`"quant_method": 4`, "quantization_config"},
		{`"quant_method": "gptq", "bits": 8, "group_size": 128`, "bits 8"},
		{`"quant_method": "gptq", "bits": 4, "group_size": 0`, "group_size is 0"},
		{`"quant_method": "gptq", "bits": 4, "group_size": -2`, "group_size is -2"},
		{`"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "marlin"`, "checkpoint_format marlin"},
		{`"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv"`, "version gemv"},
		{`"quant_method": "awq", "bits": 3, "group_size": 128`, "bits 3"},
		{`"quant_method": "compressed-tensors", "format": "naive-quantized"`, "format naive-quantized"},
		{`"quant_method": "compressed-tensors", "format": "pack-quantized"`, "config_groups"},
		{compressed(`null`), `config_groups "g"`},
		{compressed(`{"num_bits": 8, "type": "int", "strategy": "group", "group_size": 32}`), "int of 8 bits"},
		{compressed(`{"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}`), "float of 4 bits"},
		{compressed(`{"num_bits": 4, "type": "int", "strategy": "tensor"}`), `strategy "tensor"`},
		{compressed(`{"num_bits": 4, "type": "int", "strategy": "group"}`), "group_size is 0"},
		{compressed(`{"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}, "h": {"weights":
			{"num_bits": 4, "type": "int", "strategy": "channel"}`), "differ"},
	} {
		_, err := schemeOf([]byte(`{"quantization_config": {` + c.config + `}}`))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want %q", c.config, err, c.want)
		}
	}
}

func TestPythonFloatWritesAsRepr(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0.0", 1: "1.0", 0.34657394886016846: "0.34657394886016846", 0.0001: "0.0001", 9.999999747378752e-05: "9.999999747378752e-05",
		1e-5: "1e-05", -2.5: "-2.5", 1e15: "1000000000000000.0", 1e16: "1e+16", 1.5e300: "1.5e+300",
	} {
		if got := pythonFloat(f); got != want {
			t.Errorf("%g is %s, want %s", f, got, want)
		}
	}
}
