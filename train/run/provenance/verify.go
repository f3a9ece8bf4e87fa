package provenance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/run/folder"
)

// Kinds of findings.
const (
	Changed = "changed"
	Missing = "missing"
	Added   = "added"
)

// Finding is a file that is not as it was recorded.
type Finding struct {
	Kind string `json:"kind"`
	Name string `json:"name"` // as in the record
	Path string `json:"path"`
	Why  string `json:"why,omitempty"`
}

// Report is what comparing a record with what is there has found.
type Report struct {
	Recorded bool      `json:"recorded"` // there is a record
	Finished bool      `json:"finished"` // it is of a run that has ended
	Program  *Program  `json:"program,omitempty"`
	Checked  int       `json:"checked"` // files compared by their content
	Findings []Finding `json:"findings"`
	Notes    []string  `json:"notes,omitempty"`
}

// Parts say what of a record is compared.
type Parts struct{ Read, Written bool }

// Verify compares the run in dir with its record. Of one that has not finished, what it has read is compared, and the
// state of its checkpoints with its own checksums. dir may also be a folder in that of a run, such as best: then that
// folder alone is compared, and what the run has read.
func Verify(ctx context.Context, dir string, parts Parts, ui train.UI) (Report, error) {
	v := &verifier{ctx: ctx, ui: ui, Report: Report{Findings: []Finding{}}}
	root, within := dir, ""
	if _, err := os.Lstat(filepath.Join(dir, FileName)); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		abs, err := filepath.Abs(dir)
		if err != nil {
			return v.Report, err
		}
		root, within = filepath.Dir(abs), filepath.Base(abs)+"/"
		if within != "best/" && within != "last/" {
			return v.Report, nil
		}
	}
	r, err := Read(root)
	if r == nil || err != nil {
		return v.Report, err
	}
	v.Recorded, v.Finished, v.Program = true, r.Finished, &r.Program
	if parts.Written {
		if err := v.written(root, within, r); err != nil {
			return v.Report, err
		}
	}
	if parts.Read {
		if err := v.read(r); err != nil {
			return v.Report, err
		}
	}
	return v.Report, nil
}

type verifier struct {
	ctx context.Context
	ui  train.UI
	Report
}

func (v *verifier) find(kind, name, path, why string) {
	v.Findings = append(v.Findings, Finding{kind, name, path, why})
}

func (v *verifier) note(format string, args ...any) {
	v.Notes = append(v.Notes, fmt.Sprintf(format, args...))
}

// written compares what the run has written, of its folder root what is within.
func (v *verifier) written(root, within string, r *Record) error {
	if !r.Finished {
		v.note("the run has not finished: what it has written is not recorded yet, but for the checksums of its checkpoints")
		return v.checkpoints(root, within)
	}
	known := map[string]bool{}
	for _, f := range r.Written {
		known[f.Name] = true
		if strings.HasPrefix(f.Name, within) {
			if err := v.compare(f, filepath.Join(root, filepath.FromSlash(f.Name))); err != nil {
				return err
			}
		}
	}
	names, err := outputs(root)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !known[name] && strings.HasPrefix(name, within) {
			v.find(Added, name, filepath.Join(root, filepath.FromSlash(name)), "")
		}
	}
	return nil
}

// checkpoints compares the states of a run's checkpoints with their own checksums.
func (v *verifier) checkpoints(root, within string) error {
	for _, state := range stateFolders {
		if !strings.HasPrefix(state, within) {
			continue
		}
		dir := filepath.Join(root, filepath.FromSlash(state))
		sums, err := train.StateSums(dir)
		if damaged := (*train.DamagedError)(nil); errors.As(err, &damaged) {
			v.find(Changed, state+"/"+filepath.Base(damaged.Path), damaged.Path, damaged.Why)
			continue
		}
		if err != nil {
			return err
		}
		if len(sums) == 0 {
			continue
		}
		names, err := below(dir, []string{"."})
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(sums)) {
			sum := sums[name]
			if err := v.compare(File{Name: state + "/" + name, Bytes: sum.Bytes, CRC32C: sum.CRC32C}, filepath.Join(dir, name)); err != nil {
				return err
			}
		}
		for _, name := range names {
			if _, ok := sums[name]; !ok && name != "state.json" && name != "checksums.json" {
				v.find(Added, state+"/"+name, filepath.Join(dir, name), "")
			}
		}
	}
	return nil
}

// read compares what the run has read, and looks for what a model folder has more now.
func (v *verifier) read(r *Record) error {
	known := map[string]bool{}
	for _, f := range r.Read {
		known[f.Name] = true
		if err := v.compare(f, f.Path); err != nil {
			return err
		}
	}
	if !r.Inputs {
		v.note("the run ended before its model was hashed")
		return nil
	}
	now, err := r.inputs()
	if err != nil {
		return err
	}
	for _, f := range now {
		if !known[f.Name] {
			v.find(Added, f.Name, f.Path(), "it would be read")
		}
	}
	return nil
}

// compare compares one file, or folder of data, with its record.
func (v *verifier) compare(f File, path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid):
		v.find(Missing, f.Name, path, "")
		return nil
	case err != nil:
		return err
	case f.SHA256 == "" && f.CRC32C == "":
		v.note("%s was not hashed: %s", f.Name, orElse(f.Note, "the run ended first"))
		return nil
	case f.Files == 0 && !info.IsDir() && !info.Mode().IsRegular():
		v.find(Changed, f.Name, path, "it is no file any more")
		return nil
	case f.Files == 0 && info.Size() != f.Bytes:
		v.find(Changed, f.Name, path, fmt.Sprintf("it has %d bytes and had %d", info.Size(), f.Bytes))
		return nil
	case (f.Files > 0) != info.IsDir():
		v.find(Changed, f.Name, path, "of a file and a folder it was the other")
		return nil
	}
	v.Checked++
	if f.CRC32C != "" {
		why, err := (fsutil.Checksum{Bytes: f.Bytes, CRC32C: f.CRC32C}).Compare(path)
		if err == nil && why != "" {
			v.find(Changed, f.Name, path, why)
		}
		return err
	}
	sum, files := "", 0
	if f.Files > 0 {
		sum, files, _, err = hashFolder(v.ctx, path)
	} else {
		sum, err = fsutil.HashFile(v.ctx, path)
	}
	switch {
	case err != nil:
		return err
	case files != f.Files:
		v.find(Changed, f.Name, path, fmt.Sprintf("it has %d files and had %d", files, f.Files))
	case sum != f.SHA256:
		v.find(Changed, f.Name, path, "its SHA-256 is another")
	}
	return nil
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// Runs lists the runs of a comparison's folder that have a record, by their names; nil: dir is no comparison.
func Runs(dir string) ([]string, error) {
	if !fsutil.Exists(filepath.Join(dir, "compare.yaml")) {
		return nil, nil
	}
	names, err := folder.Visible(dir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(names, func(name string) bool { return !fsutil.Exists(filepath.Join(dir, name, FileName)) }), nil
}
