package peft

import (
	"fmt"
	"os"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

// Save implements Method.
func (a *method) Save(s *bindings.Scope, dir string, m model.Model) error {
	return a.saveAs(s, dir, m, a.dialect(m), false)
}

// dialect is the layout that carries the method best: the first of its own that keeps it.
func (a *method) dialect(m model.Model) Dialect {
	for _, name := range a.definition.Dialects {
		if dialectOf(name).keeps(a, m) {
			return name
		}
	}
	return DialectPeft // which has room for gopeft's own methods
}

// saveAs is Save in a layout of choice; one that cannot hold the method is an error saying why. portable asks
// for what the layout's own library computes the same from; else our extensions of it are used.
func (a *method) saveAs(s *bindings.Scope, path string, m model.Model, name Dialect, portable bool) error {
	if a.m != m || a.restore == nil {
		return fmt.Errorf("save %s: the method is not attached to the model", a.Name())
	}
	if from := m.Info().LoadedFrom; portable && from != "" && name != DialectModelFolder {
		return fmt.Errorf("save %s as %s: the base is a %s checkpoint that was loaded as %s, whose modules have other names than that library gives it",
			a.Name(), name, from, m.Info().Family)
	}
	d := dialectOf(name)
	if d == nil {
		return fmt.Errorf("save %s as %s: dialect %q is not known (%s)", a.Name(), name, name, hf.List(dialectNames()))
	}
	if err := d.write(s, a, path, m, portable); err != nil {
		return fmt.Errorf("save %s as %s: %w", a.Name(), name, err)
	}
	return nil
}

func dialectNames() []string {
	var names []string
	for _, d := range Dialects() {
		names = append(names, string(d))
	}
	return names
}

// Convert reads the adapter at src, which belongs to m, and writes it to dst (a folder, or a file for the
// dialects of checkpoint files) in another dialect. Where the other library cannot hold or compute the same,
// the error says why and nothing is written.
func (c Catalog) Convert(s *bindings.Scope, src, dst string, d Dialect, m model.Model, o LoadOptions) error {
	a, err := c.load(s, src, m, o)
	if err != nil {
		return err
	}
	defer a.Close()
	return a.saveAs(s, dst, m, d, true)
}

// inTurn runs steps until one fails.
func inTurn(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func makeDir(dir string) error { return os.MkdirAll(dir, 0o777) }
