package provenance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"gopeft/train/run/inputs"
)

// adapterRole is what an adapter is called that a command made a folder of; one that a run went on from has another name.
const adapterRole = "adapter"

// Making is the record of a folder that one command makes of a model and perhaps of an adapter: merged, converted, quantised.
type Making struct {
	record Record
	read   []inputs.File // as they were before anything was read
}

// Make notes what is going to be read: the model and the adapter of the record.
func Make(r Record) (*Making, error) {
	m := &Making{record: r}
	m.record.Model = absolute(r.Model)
	if r.Adapter != "" {
		m.record.Adapter = absolute(r.Adapter)
	}
	var err error
	m.read, err = r.inputs()
	return m, err
}

// inputs are the files that are read of a record's model and adapters.
func (r Record) inputs() (all []inputs.File, err error) {
	for _, of := range []struct{ model, adapter, role string }{{model: r.Model}, {adapter: r.AdapterInit}, {adapter: r.Adapter, role: adapterRole}} {
		found, err := inputs.Find(of.model, of.adapter)
		if errors.Is(err, fs.ErrNotExist) {
			continue // each of its files is missing
		}
		if err != nil {
			return nil, err
		}
		for _, f := range found.Files {
			if _, name, ok := strings.Cut(f.Name, "/"); ok && of.role != "" {
				f.Name = of.role + "/" + name
			}
			all = append(all, f)
		}
	}
	return all, nil
}

// Write writes the record into dir, once all else is there and nothing is read any more.
func (m *Making) Write(ctx context.Context, dir string) (err error) {
	r := m.record
	for _, id := range m.read {
		f := File{Name: id.Name, Path: absolute(id.Path()), Bytes: id.Bytes}
		if err := hashData(ctx, &f, id); err != nil {
			return err
		}
		r.Read = append(r.Read, f)
	}
	if r.Written, err = writtenIn(ctx, dir); err != nil {
		return fmt.Errorf("record what was written: %w", err)
	}
	r.Inputs, r.Finished = true, true
	return r.write(dir)
}
