package rows

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// folderReader reads aclImdb's layout: one text per file, the label is the
// folder's name. A folder that holds pos and neg is one part; one that holds
// train and test gives both, told apart by column "split". Other entries, such
// as aclImdb's unsup, are not looked at.
type folderReader struct {
	opts   Options
	parts  []folderPart
	names  []string // *.txt of the first part, not yet read
	opened bool
	row    int
}

type folderPart struct{ split, label, dir string }

var folderColumns = []string{"text", "label", "id", "split"}

func openFolder(root string, opts Options) (Reader, error) {
	parts, err := folderParts(root)
	if err != nil {
		return nil, err
	}
	return &folderReader{opts: opts, parts: parts}, nil
}

// folderParts are the folders of texts below root, in the order in which they are read.
func folderParts(root string) (parts []folderPart, err error) {
	add := func(split, dir string) {
		for _, label := range []string{"neg", "pos"} {
			parts = append(parts, folderPart{split, label, filepath.Join(dir, label)})
		}
	}
	if hasClasses(root) {
		add(filepath.Base(filepath.Clean(root)), root)
		return parts, nil
	}
	for _, split := range []string{"train", "test"} {
		if dir := filepath.Join(root, split); hasClasses(dir) {
			add(split, dir)
		}
	}
	if parts == nil {
		return nil, fmt.Errorf("%s: a folder without pos/ and neg/, or train/ and test/ that hold them: name a data file in it", root)
	}
	return parts, nil
}

// texts are the names of the part's files, sorted.
func (p folderPart) texts() (names []string, err error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".txt") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Files are the files that a reader of the data at path reads, in its order: that one, or the texts of the folder there.
func Files(path string) (names []string, err error) {
	if !isDir(path) {
		return []string{path}, nil
	}
	parts, err := folderParts(path)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		texts, err := p.texts()
		if err != nil {
			return nil, err
		}
		for _, name := range texts {
			names = append(names, filepath.Join(p.dir, name))
		}
	}
	return names, nil
}

// hasClasses reports whether dir is a part of an aclImdb folder.
func hasClasses(dir string) bool {
	return isDir(filepath.Join(dir, "pos")) && isDir(filepath.Join(dir, "neg"))
}

// HasParts reports whether root is an aclImdb folder of both parts, training and test.
func HasParts(root string) bool {
	return !hasClasses(root) && hasClasses(filepath.Join(root, "train")) && hasClasses(filepath.Join(root, "test"))
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (r *folderReader) Next() (Row, error) {
	for len(r.names) == 0 {
		if r.opened {
			r.parts = r.parts[1:]
			r.opened = false
		}
		if len(r.parts) == 0 {
			return Row{}, io.EOF
		}
		names, err := r.parts[0].texts()
		if err != nil {
			return Row{}, err
		}
		r.names, r.opened = names, true
	}
	part, name := r.parts[0], r.names[0]
	r.names = r.names[1:]
	r.row++
	path := filepath.Join(part.dir, name)
	text, err := r.readText(path)
	if err != nil {
		return Row{}, &Error{File: path, Row: r.row, Err: err}
	}
	id := part.split + "/" + part.label + "/" + strings.TrimSuffix(name, ".txt")
	return Row{
		File: path, Line: 1, Number: r.row, names: folderColumns,
		values: []any{text, part.label, id, part.split},
	}, nil
}

func (r *folderReader) readText(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() { // a pipe would block
		return "", fmt.Errorf("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, int64(r.opts.maxRow())+1))
	if err != nil {
		return "", err
	}
	if len(raw) > r.opts.maxRow() {
		return "", errTooLong(r.opts.maxRow())
	}
	src := source{name: path, opts: r.opts}
	return src.decode(strings.TrimPrefix(string(raw), "\ufeff"))
}

func (r *folderReader) Close() error { return nil }
