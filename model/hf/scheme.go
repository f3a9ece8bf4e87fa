package hf

import (
	"encoding/json"
	"fmt"

	"gopeft/model/hf/files"
)

// quantisationConfig is config.json's quantization_config, as the libraries write it.
type quantisationConfig struct {
	Method      string `json:"quant_method"`
	FourBits    bool   `json:"load_in_4bit"`
	EightBits   bool   `json:"load_in_8bit"`
	Bits        int64  `json:"bits"`
	Group       int64  `json:"group_size"`
	GPTQFormat  string `json:"checkpoint_format"`
	AWQVersion  string `json:"version"`
	Format      string `json:"format"`
	ConfigGroup map[string]struct {
		Weights *struct {
			Bits     int64  `json:"num_bits"`
			Type     string `json:"type"`
			Strategy string `json:"strategy"`
			Group    int64  `json:"group_size"`
		} `json:"weights"`
	} `json:"config_groups"`
}

// schemeOf reads how a folder's files hold quantised tensors. A way that is not known is an error.
func schemeOf(config []byte) (files.Scheme, error) {
	var c struct {
		Quantisation *quantisationConfig `json:"quantization_config"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return files.Scheme{}, fmt.Errorf("quantization_config: %w", err)
	}
	if c.Quantisation == nil {
		return files.Scheme{}, nil
	}
	s, err := c.Quantisation.scheme()
	if err != nil {
		return s, fmt.Errorf("quantization_config: %w", err)
	}
	return s, nil
}

func (q *quantisationConfig) scheme() (files.Scheme, error) {
	unsupported := func(field string, value any, known string) error {
		return fmt.Errorf("%s %v of quant_method %q is not supported (%s)", field, value, q.Method, known)
	}
	var s files.Scheme
	switch q.Method {
	case "bitsandbytes":
		return s, nil // the tensors say the rest
	case "gptq":
		s.Layout = files.GPTQ
		switch q.GPTQFormat {
		case "", "gptq":
			s.ZeroShift = files.ZerosFromOne
		case "gptq_v2":
		default:
			return s, unsupported("checkpoint_format", q.GPTQFormat, "gptq, gptq_v2")
		}
	case "awq":
		s.Layout = files.AWQ
		if q.AWQVersion != "" && q.AWQVersion != "gemm" && q.AWQVersion != "GEMM" {
			return s, unsupported("version", q.AWQVersion, "gemm")
		}
	case "compressed-tensors":
		if q.Format != "pack-quantized" {
			return s, unsupported("format", q.Format, "pack-quantized")
		}
		return q.compressed()
	case "":
		if q.FourBits || q.EightBits { // as bitsandbytes' first folders have it
			return s, nil
		}
		fallthrough
	default:
		return s, fmt.Errorf("quant_method %q is not supported (bitsandbytes, gptq, awq, compressed-tensors)", q.Method)
	}
	if q.Bits != 4 {
		return s, unsupported("bits", q.Bits, "4")
	}
	err := setGroup(&s, q.Group)
	return s, err
}

// setGroup reads a group size; -1 stands for a whole row.
func setGroup(s *files.Scheme, n int64) error {
	if n < -1 || n == 0 {
		return fmt.Errorf("group_size is %d", n)
	}
	s.Group = max(n, 0)
	return nil
}

// compressed reads the groups of modules, which must be alike.
func (q *quantisationConfig) compressed() (files.Scheme, error) {
	s := files.Scheme{Layout: files.CompressedTensors}
	if len(q.ConfigGroup) == 0 {
		return s, fmt.Errorf("config_groups of quant_method %q is missing", q.Method)
	}
	first := true
	for name, g := range q.ConfigGroup {
		w := g.Weights
		if w == nil {
			return s, fmt.Errorf("config_groups %q quantises no weights", name)
		}
		if w.Bits != 4 || w.Type != "int" {
			return s, fmt.Errorf("config_groups %q holds %s of %d bits, which is not supported (int of 4)", name, w.Type, w.Bits)
		}
		one := s
		switch w.Strategy {
		case "channel":
			one.Group = 0
		case "group":
			if err := setGroup(&one, w.Group); err != nil {
				return s, err
			}
		default:
			return s, fmt.Errorf("config_groups %q has the strategy %q, which is not supported (group, channel)", name, w.Strategy)
		}
		if !first && one != s {
			return s, fmt.Errorf("config_groups differ in their group_size, which is not supported")
		}
		s, first = one, false
	}
	return s, nil
}
