package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
)

// adapterFiles is an adapter on disk, opened.
type adapterFiles struct {
	Info
	methods Catalog
	config  []byte   // adapter_config.json; nil where there is none
	file    bool     // the path is a file, not a folder
	sidecar *sidecar // nil in what others wrote
	// prepare completes the options for the model, and gives the tuner where the method's usual one does not do.
	prepare func(m model.Model, o *Options) (Tuner, error)
	// values reads the weights of a method's own parameters and of the model's.
	values func(s *bindings.Scope, m model.Model, a *method, added []NewParam) (storedValues, error)
	notes  []string // remarks for Method.Notes
	close  []io.Closer
}

// Close closes the files.
func (f *adapterFiles) Close() error {
	var errs []error
	for _, c := range f.close {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Probe says what kind of adapter is at path, a folder or a checkpoint file, before a model is loaded.
func (c Catalog) Probe(path string) (Info, error) {
	f, err := c.open(path)
	if err != nil {
		return Info{}, err
	}
	return f.Info, f.Close()
}

func (c Catalog) open(path string) (*adapterFiles, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("adapter %s: no such folder or file", path)
	}
	if err != nil {
		return nil, err
	}
	f := &adapterFiles{Info: Info{Path: path}, methods: c, file: !st.IsDir()}
	if !f.file {
		if err := f.readSettings(); err != nil {
			return nil, err
		}
	}
	for _, d := range []dialect{checkpointFile{}, modelFolder{}, hfPeft{}, adapterHub{}} {
		if d.recognises(f) {
			if err := d.read(f); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			break
		}
	}
	if err := f.agree(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// readSettings reads a folder's adapter_config.json, if there is one, and gopeft.yaml beside it.
func (f *adapterFiles) readSettings() error {
	raw, err := hf.ReadJSON(filepath.Join(f.Path, "adapter_config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return fmt.Errorf("%s/adapter_config.json: %w", f.Path, err)
	}
	f.config = raw
	if f.sidecar, err = readSidecar(f.Path); err != nil {
		return err
	}
	if side := f.sidecar; side != nil {
		f.Problem = model.Problem(side.Problem)
		f.Labels, f.Base, f.Tokenizer, f.Options = side.Labels, side.Base, side.Tokenizer, side.Options
		if side.Fingerprint != nil {
			f.Family = side.Fingerprint.Family
		}
	}
	return nil
}

// agree compares what gopeft.yaml and the other files say.
func (f *adapterFiles) agree() error {
	side := f.sidecar
	if side != nil && side.Method != "" && side.Method != f.Method {
		return fmt.Errorf("%s: %s is of method %s, adapter_config.json of %s", f.Path, sidecarName, side.Method, f.Method)
	}
	if f.NumLabels == 0 {
		f.NumLabels = len(f.Labels) // a head was saved: loading says which of its keys are missing
	}
	if side != nil && len(f.Labels) != f.NumLabels {
		return fmt.Errorf("%s: %s names %d labels, but the head has %d", f.Path, sidecarName, len(f.Labels), f.NumLabels)
	}
	f.Options.Base, f.Options.Tokenizer = f.Base, f.Tokenizer
	return nil
}
