package provenance

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"gopkg.in/yaml.v3"

	"gopeft/bindings/fault"
	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/run/folder"
	"gopeft/train/run/inputs"
)

// Source is a file or folder of data, and the setting that names it.
type Source struct{ Setting, Path string }

// Recorder writes the record of a run that is at work. All methods of a nil Recorder do nothing: one process of a group
// records.
type Recorder struct {
	dir    string
	watch  *inputs.Watch
	data   []inputs.File // as they were before anything was read
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done

	mu     sync.Mutex // of the following
	record Record
	begun  bool // what an earlier session has recorded is replaced
}

// Begin prepares the record of a run that begins in dir, of which the program, the model and the adapter are known, and
// hashes its data in the background. It is called before the data is read; watch has the model's hashes. A record that is
// there, of an earlier session, stays until Begun.
func Begin(ctx context.Context, dir string, record Record, data []Source, watch *inputs.Watch) (*Recorder, error) {
	r := &Recorder{dir: dir, record: record, watch: watch, done: make(chan struct{})}
	r.record.Model = absolute(record.Model)
	if record.AdapterInit != "" {
		r.record.AdapterInit = absolute(record.AdapterInit)
	}
	for _, s := range data {
		path := absolute(s.Path)
		f := File{Name: s.Setting + "/" + filepath.Base(path), Path: path}
		id, err := inputs.Stat(f.Name, path)
		if err == nil {
			f.Bytes = id.Bytes
		}
		r.data = append(r.data, id)
		r.record.Read = append(r.record.Read, f)
	}
	if !fsutil.Exists(filepath.Join(dir, FileName)) {
		if err := r.Begun(); err != nil {
			return nil, err
		}
	}
	inner, cancel := context.WithCancel(ctx)
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.err = fault.Guard(func() error { return r.read(inner) })
	}()
	return r, nil
}

// Begun is called before the run changes anything in its folder: from here on the record is of this session, and says
// that the run has not finished.
func (r *Recorder) Begun() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun {
		return nil
	}
	r.begun = true
	if err := r.readSettings(); err != nil {
		return err
	}
	return r.record.write(r.dir)
}

// readSettings takes over the settings that the run has written.
func (r *Recorder) readSettings() error {
	path := filepath.Join(r.dir, "config.yaml")
	raw, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
	if err != nil {
		return err
	}
	settings := map[string]any{}
	if err := yaml.Unmarshal(raw, &settings); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	r.record.Settings = settings
	return nil
}

// read completes what is known of what the run reads.
func (r *Recorder) read(ctx context.Context) error {
	read := slices.Clone(r.record.Read)
	for i := range read {
		if err := hashData(ctx, &read[i], r.data[i]); err != nil {
			return err
		}
	}
	files, err := r.watch.Files(ctx)
	if err != nil {
		return err
	}
	for _, f := range files {
		read = append(read, File{Name: f.Name, Path: absolute(f.Path()), Bytes: f.Bytes, SHA256: f.SHA256})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.Read, r.record.Inputs = read, true
	if !r.begun {
		return nil
	}
	return r.record.write(r.dir)
}

const notRegular = "it is no regular file, which could be read again"

// hashData hashes a file or folder of data that was as id says when the run began. What cannot be hashed has a note.
func hashData(ctx context.Context, f *File, id inputs.File) (err error) {
	info, err := os.Stat(f.Path)
	switch {
	case err != nil:
		f.Note = "it was gone before it was hashed"
	case info.IsDir():
		f.SHA256, f.Files, f.Bytes, err = hashFolder(ctx, f.Path)
	case !info.Mode().IsRegular():
		f.Note = notRegular
	default:
		f.SHA256, err = inputs.Hash(ctx, f.Path)
		if now, failed := inputs.Stat(f.Name, f.Path); err == nil && (failed != nil || !now.Same(id)) {
			f.SHA256, f.Note = "", "it was written while the run read it"
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil && f.Note == "" {
		f.SHA256, f.Note = "", fmt.Sprintf("it could not be read: %v", err)
	}
	return nil
}

// Finish records what the run has written, once it has written all of it.
func (r *Recorder) Finish(ctx context.Context) error {
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.err != nil {
		return fmt.Errorf("record what the run was made of: %w", r.err)
	}
	written, err := writtenIn(ctx, r.dir)
	if err != nil {
		return fmt.Errorf("record what the run has written: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.readSettings(); err != nil { // with what the run has chosen
		return err
	}
	r.record.Finished, r.record.Written = true, written
	return r.record.write(r.dir)
}

// Close ends the work in the background.
func (r *Recorder) Close() {
	if r != nil {
		r.cancel()
		<-r.done
	}
}

// outputs lists the files of a run's folder but for its record and inputs.json, which every session writes anew and whose
// hashes are in the record.
func outputs(dir string) ([]string, error) {
	tops, err := folder.Visible(dir)
	if err != nil {
		return nil, err
	}
	return below(dir, slices.DeleteFunc(tops, func(name string) bool { return name == FileName || name == inputs.FileName }))
}

func writtenIn(ctx context.Context, dir string) ([]File, error) {
	names, err := outputs(dir)
	if err != nil {
		return nil, err
	}
	sums, err := stateSums(dir)
	if err != nil {
		return nil, err
	}
	files := make([]File, len(names))
	for i, name := range names {
		path := filepath.Join(dir, name)
		f := File{Name: name}
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		f.Bytes = info.Size()
		if !info.Mode().IsRegular() { // a pipe would block
			f.Note = notRegular
		} else if sum, ok := sums[name]; ok {
			f.CRC32C = sum.CRC32C
		} else if f.SHA256, err = fsutil.HashFile(ctx, path); err != nil {
			return nil, err
		}
		files[i] = f
	}
	return files, nil
}

// stateFolders are where a run keeps the state of its checkpoints.
var stateFolders = [...]string{"best/state", "last/state"}

// stateSums are the checksums that a run's checkpoints hold of their own files, which are gigabytes.
func stateSums(dir string) (map[string]fsutil.Checksum, error) {
	all := map[string]fsutil.Checksum{}
	for _, state := range stateFolders {
		sums, err := train.StateSums(filepath.Join(dir, state))
		if err != nil {
			return nil, err
		}
		for name, sum := range sums {
			all[state+"/"+name] = sum
		}
	}
	return all, nil
}
