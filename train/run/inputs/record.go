package inputs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"gopeft/model/fsutil"
	"gopeft/model/hf"
)

// FileName is the record's in the folder of a run.
const FileName = "inputs.json"

// Record is what a run has read.
type Record struct {
	At    int64  `json:"at_ns"` // when it was made
	Files []File `json:"files"`
}

// File is one file of a record.
type File struct {
	Name   string `json:"name"` // model/NAME, or adapter-init/NAME
	SHA256 string `json:"sha256,omitempty"`
	identity

	path string
}

// Path is where the file is, of files that were found.
func (f File) Path() string { return f.path }

// Same reports whether f is, by its identity, the file that it was.
func (f File) Same(was File) bool { return f.identity == was.identity }

// Stat finds one file, or folder.
func Stat(name, path string) (File, error) {
	id, err := identify(path)
	return File{Name: name, identity: id, path: path}, err
}

// identity is what changes when a file is written or replaced. The last of the times cannot be set back.
type identity struct {
	Bytes    int64  `json:"bytes"`
	Device   uint64 `json:"device"`
	Inode    uint64 `json:"inode"`
	Modified int64  `json:"modified_ns"`
	Changed  int64  `json:"changed_ns"`
}

// ChangedError is of an input that is not what the run was begun with.
type ChangedError struct{ Path, Why string }

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s %s: the run was begun with another one; put that back to resume, or start anew with --overwrite", e.Path, e.Why)
}

var modelParts = [...]string{"config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json", "*.gguf",
	"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
	"chat_template.jinja", "chat_template.json"}

var adapterParts = [...]string{"adapter*", "gopeft.yaml", "head_config.json", "model_head*", "pytorch_*", "config.json"}

// Find lists what is read of a model and of an adapter, if there is one. Nothing is hashed.
func Find(model, adapter string) (Record, error) {
	r := Record{At: time.Now().UnixNano()}
	for _, of := range []struct{ role, path string }{{modelRole, model}, {adapterRole, adapter}} {
		if of.path == "" {
			continue
		}
		files, err := find(of.role, of.path)
		if err != nil {
			return r, err
		}
		r.Files = append(r.Files, files...)
	}
	return r, nil
}

// Hash identifies what was read by the contents of all files.
func (r Record) Hash(ctx context.Context) (string, error) {
	h := sha256.New()
	for _, f := range r.Files {
		sum, err := Hash(ctx, f.path)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, f.Name, sum)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// What files are read for, the first part of their names.
const (
	modelRole   = "model"
	adapterRole = "adapter-init"
)

func find(role, path string) ([]File, error) {
	parts := modelParts[:]
	if role == adapterRole {
		parts = adapterParts[:]
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		id, err := identify(path)
		return []File{{Name: role + "/" + filepath.Base(path), identity: id, path: path}}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []File
	for _, e := range entries {
		isPart := slices.ContainsFunc(parts, func(pattern string) bool {
			ok, _ := filepath.Match(pattern, e.Name())
			return ok
		})
		at := filepath.Join(path, e.Name())
		info, err := os.Stat(at)
		if !isPart || err != nil || !info.Mode().IsRegular() {
			continue
		}
		id, err := identify(at)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Name: role + "/" + e.Name(), identity: id, path: at})
	}
	return files, nil
}

func identify(path string) (identity, error) {
	info, err := os.Stat(path)
	if err != nil {
		return identity{}, err
	}
	id := identity{Bytes: info.Size(), Modified: info.ModTime().UnixNano()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Device, id.Inode, id.Changed = uint64(s.Dev), s.Ino, s.Ctim.Nano()
	}
	return id, nil
}

// Read reads the record in the folder of a run; nil: it is of a version that wrote none.
func Read(dir string) (*Record, error) {
	path := filepath.Join(dir, FileName)
	var r Record
	found, err := hf.ReadInto(path, &r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; without that file the run is resumed with whatever model is there", path, err)
	}
	if !found {
		return nil, nil
	}
	return &r, nil
}

func (r Record) write(dir string) error {
	return fsutil.WriteFile(filepath.Join(dir, FileName), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	})
}

// tick is what the times of files may be coarse by: within it a file can change twice at one time.
const tick = int64(2 * time.Second)

// since compares the files there are with those that a run has read, as far as that takes no time. What is the same by its
// identity has its hash from there.
func (r Record) since(was Record) error {
	then := map[string]File{}
	for _, f := range was.Files {
		then[f.Name] = f
	}
	for i := range r.Files {
		f := &r.Files[i]
		old, ok := then[f.Name]
		delete(then, f.Name)
		switch {
		case !ok:
			return &ChangedError{f.path, "is new"}
		case old.Bytes != f.Bytes:
			return &ChangedError{f.path, fmt.Sprintf("has %d bytes and had %d", f.Bytes, old.Bytes)}
		case old.identity == f.identity && was.At-f.Changed > tick:
			f.SHA256 = old.SHA256
		case old.SHA256 == "" && old.identity != f.identity:
			return &ChangedError{f.path, "was replaced, and the run ended before it was hashed"}
		}
	}
	for _, f := range was.Files { // in their order
		if _, gone := then[f.Name]; gone {
			return &ChangedError{f.Name, "is gone"}
		}
	}
	return nil
}

// hashOf is the hash that a file had; "": none is known.
func (r Record) hashOf(name string) string {
	for _, f := range r.Files {
		if f.Name == name {
			return f.SHA256
		}
	}
	return ""
}
