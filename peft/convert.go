package peft

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

// Convert reads the adapter at src, which belongs to m, and writes it to dst (a folder, or a file for the
// dialects of checkpoint files) in another dialect. Where the other library cannot hold or compute the same,
// the error says why and nothing is written.
func Convert(s *bindings.Scope, src, dst string, d Dialect, m model.Model) error {
	return ConvertWith(s, src, dst, d, m, LoadOptions{})
}

// ConvertWith is Convert with options for reading src.
func ConvertWith(s *bindings.Scope, src, dst string, d Dialect, m model.Model, o LoadOptions) error {
	method, err := LoadWith(s, src, m, o)
	if err != nil {
		return err
	}
	defer method.Close()
	return method.(*adapter).saveAs(s, dst, m, d, true)
}

// foreign says why the peft library could not use the method or would compute something else, if so.
func (a *adapter) foreign(m model.Model) error {
	i := m.Info()
	switch a.name {
	case "bitfit", "llama-adapter-v2":
		return errors.New("peft has no such method")
	case "prefix":
		if i.Family == "distilbert" {
			return errors.New("peft has no prefix tuning for DistilBERT")
		}
	case "prompt":
		reads, token := "the first virtual token", "[CLS]"
		if i.Family == "llama" {
			reads, token = "the last position, padding or not", "the last token of the text"
		}
		if len(m.Labels()) > 0 && !a.o.PeftCompat {
			return fmt.Errorf("peft classifies from %s, this adapter from %s (train with peft-compat for peft)", reads, token)
		}
	case "llama-adapter":
		return a.foreignAdaption(m)
	case "lora", "dora", "ia3":
		if a.name != "ia3" && a.peftBias(m) != "none" {
			return nil
		}
		adapted, err := outlineOf(m).targets(a.o.Targets)
		if err != nil {
			return err
		}
		for _, t := range adapted {
			if slices.ContainsFunc(a.beside(m), func(name string) bool { return strings.HasPrefix(name, t.name+".") }) {
				return fmt.Errorf("peft either adapts a module or trains its own weights, and here %s has both", t.name)
			}
		}
	}
	return nil
}

// modelType is a model's model_type as transformers knows it, e.g. "mistral" of the LLaMA family.
func modelType(m model.Model) string {
	if t, _ := m.Config()["model_type"].(string); t != "" {
		return t
	}
	return m.Info().Family
}

// foreignAdaption says why peft's adaption prompts do not compute the LLaMA-Adapter, apart from its gates.
func (a *adapter) foreignAdaption(m model.Model) error {
	i, kind := m.Info(), modelType(m)
	if kind != "llama" && kind != "mistral" {
		return fmt.Errorf("peft has no adaption prompts for %s", kind)
	}
	if i.Heads*i.HeadDim != i.Hidden {
		return fmt.Errorf("peft's adaption prompts need heads of %d/%d, these are of %d", i.Hidden, i.Heads, i.HeadDim)
	}
	for _, b := range m.Hooks().Blocks {
		if o, ok := b.Module(model.O); ok && o.Dense.B != nil {
			return errors.New("peft's adaption prompts add the bias of the output map twice")
		}
	}
	if names := a.beside(m); len(names) > 0 {
		return fmt.Errorf("peft keeps no other trained weights beside adaption prompts (%s)", hf.List(names))
	}
	return nil
}

// beside are the names of the model's parameters that were trained too, head apart.
func (a *adapter) beside(m model.Model) []string {
	var names []string
	for _, t := range a.tuned {
		if !isHead(m, t.p.Name) {
			names = append(names, t.p.Name)
		}
	}
	return names
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
