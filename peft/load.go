package peft

import (
	"errors"
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// Load reads the adapter at path, a folder or a checkpoint file, and attaches it to m. A model folder gives a
// "full" method whose weights are copied into m's.
func (c Catalog) Load(s *bindings.Scope, path string, m model.Model) (Method, error) {
	return c.LoadWith(s, path, m, LoadOptions{})
}

// LoadOptions change how Load reads an adapter.
type LoadOptions struct {
	// PeftCompat says whether to classify behind a soft prompt from the position the peft library pools; nil: as what
	// wrote the adapter does.
	PeftCompat *bool
	// AdapterLength is the prompts' length in a checkpoint file of LLaMA-Adapter's repository, which does not
	// record it; 0 has the file's shapes and gates tell.
	AdapterLength int
}

// LoadWith is Load with options.
func (c Catalog) LoadWith(s *bindings.Scope, path string, m model.Model, o LoadOptions) (Method, error) {
	a, err := c.load(s, path, m, o)
	if a == nil { // a nil *method is no nil Method
		return nil, err
	}
	return a, err
}

func (c Catalog) load(s *bindings.Scope, path string, m model.Model, o LoadOptions) (*method, error) {
	f, err := c.open(path)
	if err != nil {
		return nil, err
	}
	if o.PeftCompat != nil {
		f.Options.PeftCompat = *o.PeftCompat
	}
	if f.Dialect == DialectLLaMAFile && o.AdapterLength > 0 {
		f.Options.AdapterLength = o.AdapterLength
	}
	a, err := f.load(s, m)
	return a, errors.Join(err, f.Close())
}

func (f *adapterFiles) load(s *bindings.Scope, m model.Model) (*method, error) {
	now := fingerprintOf(s, m)
	if f.sidecar != nil && f.sidecar.Fingerprint != nil {
		if err := f.sidecar.Fingerprint.shape(now); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	if f.NumLabels > 0 && len(m.Labels()) == 0 {
		return nil, fmt.Errorf("%s: the adapter classifies (%d labels), but the model was loaded without a classification head", f.Path, f.NumLabels)
	}
	a, err := f.makeMethod(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	err = s.Run(func(s *bindings.Scope) error {
		added, err := a.tuner.Adds(structureOf(m))
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		stored, err := f.values(s, m, a, added)
		if err != nil {
			return err
		}
		stored.labels, stored.problem = f.HeadLabels(m.Labels()), f.Problem
		if err := a.attach(s, m, stored); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	a.notes = f.notes
	if f.sidecar != nil && f.sidecar.Fingerprint != nil {
		if !f.sidecar.Fingerprint.sameWeights(now) {
			a.notes = append(a.notes, fmt.Sprintf("%s was trained on a base model with other weights (%s)", f.Path, orUnknown(f.Base)))
		}
	} else if name := otherBase(f.Base, m); name != "" {
		a.notes = append(a.notes, fmt.Sprintf("%s was trained on the base model %s; this one is %s", f.Path, f.Base, name))
	}
	return a, nil
}

// makeMethod makes the method as the files have it for m, not yet attached.
func (f *adapterFiles) makeMethod(m model.Model) (*method, error) {
	o := f.Options
	tuner, err := f.prepare(m, &o)
	if err != nil {
		return nil, err
	}
	a, err := f.methods.new(f.Method, o)
	if err == nil && tuner != nil {
		a.tuner = tuner
	}
	return a, err
}

// complete fills in the defaults of options as the files' method has them.
func (f *adapterFiles) complete(o Options) (Options, error) {
	d, err := f.methods.find(f.Method)
	if err != nil {
		return o, err
	}
	err = d.complete(&o)
	return o, err
}

func orUnknown(name string) string {
	if name == "" {
		return "its name is not recorded"
	}
	return name
}
