package provenance

import (
	"fmt"
	"path/filepath"

	"gopeft/model/hf"
)

// FileName is the record's in the folder of a run, or in one that a command made of a model.
const FileName = "provenance.json"

// Record is what a run, or a folder that a command made, was made of and what was made.
type Record struct {
	Finished bool           `json:"finished"`
	Program  Program        `json:"program"`
	Settings map[string]any `json:"settings"`
	Model    string         `json:"model"` // folder or file
	// AdapterInit is the adapter that the run went on from, if it did.
	AdapterInit string `json:"adapter_init,omitempty"`
	// Adapter is what a command made its folder of, beside the model.
	Adapter string `json:"adapter,omitempty"`
	Inputs  bool   `json:"inputs_hashed"` // all of Read is known
	Read    []File `json:"read"`
	Written []File `json:"written,omitempty"` // once it has finished
}

// File is one file, or a folder of data, of a record.
type File struct {
	Name   string `json:"name"`           // in the run's folder; of what was read ROLE/NAME
	Path   string `json:"path,omitempty"` // of what was read
	Bytes  int64  `json:"bytes"`
	Files  int    `json:"files,omitempty"` // in a folder of data
	SHA256 string `json:"sha256,omitempty"`
	CRC32C string `json:"crc32c,omitempty"` // of a checkpoint's tensors, in place of a hash
	Note   string `json:"note,omitempty"`   // why it has no hash
}

// Read reads the record in a run's folder; nil: there is none.
func Read(dir string) (*Record, error) {
	path := filepath.Join(dir, FileName)
	var r Record
	found, err := hf.ReadInto(path, &r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !found {
		return nil, nil
	}
	return &r, nil
}

func (r Record) write(dir string) error { return hf.WriteJSON(filepath.Join(dir, FileName), r) }
