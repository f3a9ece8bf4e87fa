package hf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"gopeft/model/fsutil"
	"gopeft/model/hf/files"
)

// Checkpoint is an opened model folder (or a GGUF file). The weights it hands out may share its file
// mapping: close it after the model.
type Checkpoint struct {
	Path    string
	Config  []byte // config.json; nil for a GGUF file
	Weights files.Archive
	Shapes  bool // only the names, shapes and dtypes of the weights are wanted, not the weights
}

// Open opens the folder or file at path.
func Open(path string) (*Checkpoint, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("model %s: no such folder or file; give a folder with config.json and model.safetensors, or fetch one with `gopeft pull`", path)
	}
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Path: path}
	if info.IsDir() {
		if c.Config, err = ReadConfig(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if c.Weights, err = files.OpenModel(path); err != nil {
		return nil, err
	}
	if err := c.group(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// group makes one entry of each weight that the files hold as several tensors, quantised.
func (c *Checkpoint) group() error {
	if c.Config == nil {
		if c.Weights.Metadata()["general.architecture"] == "" {
			return fmt.Errorf("model %s: config.json is missing", c.Path)
		}
		return nil
	}
	scheme, err := schemeOf(c.Config)
	if err != nil {
		return fmt.Errorf("model %s: config.json: %w", c.Path, err)
	}
	whole, err := files.Group(c.Weights, scheme)
	if err == nil {
		c.Weights = whole
	}
	return err
}

// Close unmaps the weights.
func (c *Checkpoint) Close() error { return c.Weights.Close() }

// ReadConfig reads a folder's config.json and checks that it is one JSON object.
func ReadConfig(folder string) ([]byte, error) { return ReadJSON(filepath.Join(folder, "config.json")) }

// ReadJSON reads a file that holds one JSON object.
func ReadJSON(path string) ([]byte, error) {
	raw, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
	if err != nil {
		return nil, err
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return raw, nil
}

// ReadInto reads a file that holds one JSON object into v, if it is there.
func ReadInto(path string, v any) (found bool, err error) {
	raw, err := ReadJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, v)
	}
	return true, err
}

// ModelType is the architecture a config.json names, "" if none.
func ModelType(config []byte) string {
	var c struct {
		ModelType string `json:"model_type"`
	}
	_ = json.Unmarshal(config, &c) // ReadConfig has checked the syntax; a field of another type reads as none
	return c.ModelType
}
