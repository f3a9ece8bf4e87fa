package peft

import (
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

// modelFolder is a HuggingFace model folder, for methods that train the model's own weights.
type modelFolder struct{}

func (modelFolder) recognises(f *adapterFiles) bool { return !f.file && f.config == nil }

// keeps: a folder of quantised weights would be another model's.
func (modelFolder) keeps(_ *method, m model.Model) bool { return !model.Quantised(m) }

// write saves the model's weights, those trained among them.
func (modelFolder) write(s *bindings.Scope, a *method, dir string, m model.Model, _ bool) error {
	if len(a.params.All()) > 0 {
		return errors.New("the method's parameters are not the model's own: merge it first")
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	return model.Save(s, dir, m)
}

func (modelFolder) read(f *adapterFiles) error {
	c, err := hf.Open(f.Path)
	if err != nil {
		return fmt.Errorf("adapter %s: adapter_config.json is missing, and it is no model folder either: %w", f.Path, err)
	}
	f.close = append(f.close, c)
	f.Dialect, f.Method = DialectModelFolder, "full"
	f.NumLabels = labelsIn(c.Weights)
	facts, err := model.ReadFacts(f.Path)
	if err != nil {
		return err
	}
	if f.Family = facts.Family; f.NumLabels > 0 && len(facts.Labels) == f.NumLabels {
		f.Labels, f.Problem = facts.Labels, facts.Problem
	}
	f.prepare = func(model.Model, *Options) (Tuner, error) { return nil, nil }
	f.values = func(s *bindings.Scope, m model.Model, _ *method, _ []NewParam) (storedValues, error) {
		ts, err := model.ReadStored(s, m, c)
		if err != nil {
			return storedValues{}, err
		}
		stored := storedValues{model: map[string]bindings.Tensor{}}
		for i, p := range m.Params().All() {
			stored.model[p.Name] = ts[i]
		}
		return stored, nil
	}
	return nil
}
