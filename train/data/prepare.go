package data

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// PrepareOptions says how [Prepare] turns any input into files to train from.
type PrepareOptions struct {
	Input    string    // a data file or an aclImdb folder
	Out      string    // folder to write to; made if absent
	Ratios   []float64 // one to three parts: train, val, test; default 0.8, 0.1, 0.1
	Stratify bool      // classes keep their shares in every part
	Load     LoadOptions
	Replace  bool // overwrite files of an earlier run
}

// Prepared is what Prepare wrote.
type Prepared struct {
	Files   []string // train.csv, val.csv, test.csv, as far as there are ratios
	Sets    []*Set
	Notes   []string
	Skipped int // bad rows

	leftover []string // parts that an earlier run may have left
}

// Prepare reads labelled texts, samples and divides them by Load.Seed, and writes
// CSV files with the columns text and label (by name). CRLF within a text becomes
// LF. The files are written beside their places, synced, and renamed once all are
// complete; a part of an earlier run that this one has not is removed, since its
// rows may be in the others now.
func Prepare(ctx context.Context, opts PrepareOptions) (*Prepared, error) {
	ratios := opts.Ratios
	if ratios == nil {
		ratios = defaultRatios
	}
	names := []string{"train.csv", "val.csv", "test.csv"}
	if len(ratios) == 0 || len(ratios) > len(names) {
		return nil, fmt.Errorf("prepare: %d ratios: give one to three", len(ratios))
	}
	if err := CheckRatios(ratios); err != nil {
		return nil, err
	}
	if opts.Load.NoLabels {
		return nil, errors.New("prepare: labels are needed")
	}
	p := &Prepared{}
	for i, name := range names {
		path := filepath.Join(opts.Out, name)
		if _, err := os.Lstat(path); err == nil && !opts.Replace {
			return nil, fmt.Errorf("%s exists: choose another folder, or overwrite", path)
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("prepare: %w", err)
		}
		if i < len(ratios) {
			p.Files = append(p.Files, path)
		} else {
			p.leftover = append(p.leftover, path)
		}
	}
	all, err := Load(ctx, opts.Input, opts.Load)
	if err != nil {
		return nil, err
	}
	if all.Columns.IDs != "" {
		return nil, fmt.Errorf("%s: rows with token ids cannot be written as text", all.File)
	}
	if err := all.CheckTrainable(); err != nil {
		return nil, err
	}
	if p.Sets, err = all.Split(ratios, opts.Load.Seed, opts.Stratify); err != nil {
		return nil, err
	}
	p.Notes, p.Skipped = all.Notes(), all.Stats.Skipped
	if err := os.MkdirAll(opts.Out, 0o777); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return p, p.write(ctx)
}

func (p *Prepared) write(ctx context.Context) error {
	var temps []string
	defer func() {
		for _, name := range temps {
			os.Remove(name) // what was renamed is no longer there
		}
	}()
	for i, set := range p.Sets {
		if err := ctx.Err(); err != nil {
			return err
		}
		temp, err := set.writeTemp(p.Files[i])
		if temp != "" {
			temps = append(temps, temp)
		}
		if err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	for _, path := range p.Files { // what a rename would refuse half-way
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("prepare: %s is there and no file", path)
		}
	}
	for i, temp := range temps {
		if err := os.Rename(temp, p.Files[i]); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	for _, path := range p.leftover {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	dir, err := os.Open(filepath.Dir(p.Files[0]))
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	defer dir.Close()
	// Some file systems cannot sync a folder; the renames stand all the same.
	_ = dir.Sync()
	return nil
}

// writeTemp writes the set's CSV to a temporary file beside path and syncs it.
func (s *Set) writeTemp(path string) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
	}()
	if err := f.Chmod(0o644); err != nil {
		return f.Name(), err
	}
	buf := bufio.NewWriterSize(f, 1<<16)
	w := csv.NewWriter(buf)
	w.Write([]string{"text", "label"})
	for _, ex := range s.Examples {
		w.Write([]string{strings.ReplaceAll(ex.Text, "\r\n", "\n"), s.Labels[ex.Label]})
	}
	w.Flush()
	if err := errors.Join(w.Error(), buf.Flush()); err != nil {
		return f.Name(), err
	}
	return f.Name(), f.Sync()
}
