package peft

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"

	"gopeft/model/fsutil"
)

// sidecar is gopeft.yaml: what the other libraries' files have no place for.
type sidecar struct {
	Method      string       `yaml:"method"`
	Labels      []string     `yaml:"labels,omitempty"`
	Problem     string       `yaml:"problem-type,omitempty"` // of the head, as transformers names it
	Base        string       `yaml:"base,omitempty"`
	Tokenizer   string       `yaml:"tokenizer,omitempty"`
	Fingerprint *fingerprint `yaml:"fingerprint"`
	Options     Options      `yaml:"options"`
}

const sidecarName = "gopeft.yaml"

func readSidecar(dir string) (*sidecar, error) {
	path := filepath.Join(dir, sidecarName)
	raw, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c sidecar
	if err := yaml.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("%s: %s", path, strings.Join(strings.Fields(err.Error()), " "))
	}
	return &c, nil
}

func (a *method) writeSidecar(dir string, o Options) error {
	o.InitText = "" // of no use to what is trained
	c := sidecar{Method: a.Name(), Labels: a.labels, Problem: string(a.problem), Base: o.Base, Tokenizer: o.Tokenizer, Fingerprint: a.base, Options: o}
	return fsutil.WriteFile(filepath.Join(dir, sidecarName), func(w io.Writer) error {
		e := yaml.NewEncoder(w)
		e.SetIndent(2)
		return errors.Join(e.Encode(c), e.Close())
	})
}
