package data

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopeft/model/fsutil"
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
func Prepare(ctx context.Context, opts PrepareOptions) (_ *Prepared, err error) {
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
		if _, err := fsutil.Target(path); err != nil {
			return nil, fmt.Errorf("prepare: %w", err)
		}
		if i < len(ratios) {
			p.Files = append(p.Files, path)
		} else {
			p.leftover = append(p.leftover, path)
		}
	}
	note := func(format string, args ...any) { p.Notes = append(p.Notes, fmt.Sprintf(format, args...)) }
	release, err := fsutil.LockFolder(opts.Out, note) // the parts are to be of one division
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := fsutil.CheckFile(p.Files[0]); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
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
	p.Notes, p.Skipped = append(p.Notes, all.Notes()...), all.Stats.Skipped
	return p, p.write(ctx)
}

func (p *Prepared) write(ctx context.Context) error {
	var files []*fsutil.Pending
	defer func() {
		for _, f := range files {
			f.Drop()
		}
	}()
	for i, set := range p.Sets {
		if err := ctx.Err(); err != nil {
			return err
		}
		fsutil.Sweep(p.Files[i])
		f, err := fsutil.Prepare(p.Files[i], set.writeCSV)
		if err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
		files = append(files, f)
	}
	for _, f := range files {
		if err := f.Move(); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	for _, path := range p.leftover {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	return nil
}

// writeCSV writes the set with labels by name.
func (s *Set) writeCSV(to io.Writer) error {
	buf := bufio.NewWriterSize(to, 1<<16)
	w := csv.NewWriter(buf)
	w.Write([]string{"text", "label"})
	for _, ex := range s.Examples {
		w.Write([]string{strings.ReplaceAll(ex.Text, "\r\n", "\n"), s.Labels[ex.Label]})
	}
	w.Flush()
	return errors.Join(w.Error(), buf.Flush())
}
