package peft

import (
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// Convert reads the adapter at src, which belongs to m, and writes it to dst (a folder, or a file for the
// dialects of checkpoint files) in another dialect. Where the other library cannot hold or compute the same,
// the error says why and nothing is written.
func Convert(s *bindings.Scope, src, dst string, d Dialect, m model.Model) error {
	method, err := Load(s, src, m)
	if err != nil {
		return err
	}
	defer method.Close()
	return method.(*adapter).saveAs(s, dst, m, d, true)
}

// foreign says why the peft library could not use the method, if so.
func (a *adapter) foreign(m model.Model) error {
	switch {
	case a.name == "bitfit" || a.name == "llama-adapter-v2":
		return errors.New("peft has no such method")
	case a.name == "prefix" && m.Info().Family == "distilbert":
		return errors.New("peft has no prefix tuning for DistilBERT")
	case a.name == "llama-adapter" && m.Info().Family != "llama":
		return fmt.Errorf("peft has no adaption prompts for %s", m.Info().Family)
	}
	return nil
}

// layerGates gives every gate as the one number per layer that peft has, acting without tanh.
func (a *adapter) layerGates(s *bindings.Scope) ([]bindings.Tensor, error) {
	gates, err := a.gates(s, false)
	if err != nil {
		return nil, err
	}
	for i, g := range gates {
		flat := s.Reshape(g, -1)
		first := s.Narrow(flat, 0, 0, 1)
		if spread := s.MaxAll(s.Abs(s.Sub(flat, first))).Item(); spread != 0 {
			return nil, fmt.Errorf("the gates of a layer's heads differ (by %.3g), but peft has one gate per layer", spread)
		}
		gates[i] = s.Clone(first)
	}
	return gates, nil
}
