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

// foreign says why the peft library could not use the method or would compute something else, if so.
func (a *method) foreign(m model.Model) error {
	if !slices.Contains(a.definition.Dialects, DialectPeft) {
		return errors.New("peft has no such method")
	}
	if l, ok := a.ownTuner().(*lora); ok && l.perModule != nil {
		if parts := a.partsAsOne(m); len(parts) > 0 {
			return fmt.Errorf("peft has one rank for all of %s", parts[0].name)
		}
	}
	for _, w := range a.weights {
		if w.p.Place().Name != "" {
			return fmt.Errorf("%s, which was trained too, is stored otherwise: as %s", w.p.Name, w.p.Place().Name)
		}
	}
	switch a.Name() {
	case "prefix":
		if !m.Info().Decoder {
			return fmt.Errorf("peft has no prefixes for %s that leave a text's positions as they are", m.Info().Family)
		}
	case "prompt":
		reads, token := "the first virtual token", "[CLS]"
		if m.Info().Decoder {
			reads, token = "the last position, padding or not", "the last token of the text"
		}
		if len(m.Labels()) > 0 && !a.o.PeftCompat {
			return fmt.Errorf("peft classifies from %s, this adapter from %s", reads, token)
		}
	case "llama-adapter":
		return a.foreignAdaption(m)
	case "ln-tuning":
		for _, w := range a.weights {
			if w.p.Norm && a.ownTuner().Trains(m, w.p) && matchesAny(a.o.Unfreeze, w.p.Name) {
				return fmt.Errorf("peft either tunes a norm or saves it beside, and here %s is both", moduleOf(w.p))
			}
		}
	case "lora", "dora", "ia3", "oft", "boft":
		if words, head, tied := tablesOf(m); tied && slices.Contains(a.beside(m), words+tableWeight) {
			return fmt.Errorf("peft would leave %s as it is, which here is %s", head, words)
		}
		if (a.Name() == "lora" || a.Name() == "dora") && a.hfBias(m) != "none" {
			return nil
		}
		adapted, err := a.o.targets(structureOf(m))
		if err != nil {
			return err
		}
		for _, t := range adapted {
			if (a.Name() == "oft" || a.Name() == "boft") && (t.Part.Of != "" || t.Transposed) {
				return fmt.Errorf("peft has no rotations of %s's inputs for a part of it", lastPart(t.Stored()))
			}
			if slices.ContainsFunc(a.beside(m), func(name string) bool { return strings.HasPrefix(name, t.Name+".") }) {
				return fmt.Errorf("peft either adapts a module or trains its own weights, and here %s has both", t.Name)
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
func (a *method) foreignAdaption(m model.Model) error {
	i, kind := m.Info(), modelType(m)
	if kind != "llama" && kind != "mistral" {
		return fmt.Errorf("adaption prompts of peft are not supported for %s", kind)
	}
	if i.Heads*i.HeadDim != i.Hidden {
		return fmt.Errorf("peft's adaption prompts need heads of %d/%d, these are of %d", i.Hidden, i.Heads, i.HeadDim)
	}
	if !a.o.OutputBiasTwice && hasOutputBias(m) {
		return errors.New("peft's adaption prompts add the bias of the output map twice")
	}
	if names := a.beside(m); len(names) > 0 {
		return fmt.Errorf("peft keeps no other trained weights beside adaption prompts (%s)", hf.List(names))
	}
	return nil
}

// hasOutputBias reports whether attention's output maps have a bias.
func hasOutputBias(m model.Model) bool {
	return slices.ContainsFunc(m.Hooks().Blocks, func(b *model.Block) bool {
		o, ok := b.Module(model.O)
		return ok && o.Dense.B != nil
	})
}

// layerGates gives every gate as the one number per layer that peft has, acting without tanh.
func (a *method) layerGates(s *bindings.Scope) ([]bindings.Tensor, error) {
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
