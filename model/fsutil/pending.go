package fsutil

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Pending is a file that is complete beside its place and not yet there, for
// several files that go to their places together.
type Pending struct {
	path, tmp string
	held      *os.File
}

// Target is the file that WriteFile would replace at path, links followed. What
// cannot be replaced, a folder or a device, is an error.
func Target(path string) (string, error) {
	p, err := find(path)
	if err == nil && p.open != nil {
		err = errors.New("it is there and no file")
	}
	if err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return p.path, nil
}

// Prepare writes a file beside the one that WriteFile would replace at path, and syncs it.
func Prepare(path string, write func(io.Writer) error) (*Pending, error) {
	target, err := Target(path)
	if err != nil {
		return nil, err
	}
	p, err := prepare(target, openFile, write)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, explain(err))
	}
	return p, nil
}

func openFile(name string) (file, error) { return os.OpenFile(name, os.O_WRONLY, 0) }

// prepare writes a file beside path, which open opens once it is made, and syncs it.
func prepare(path string, open func(string) (file, error), write func(io.Writer) error) (_ *Pending, err error) {
	p := &Pending{path: path}
	p.tmp, p.held, err = newTemp(path, func(name string) error {
		// 0666 before the umask, as a plain os.Create gives.
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return err
		}
		return f.Close()
	})
	if err != nil {
		return nil, err
	}
	complete := false
	defer func() {
		if !complete { // after a panic in write too
			p.Drop()
		}
	}()
	f, err := open(p.tmp)
	if err != nil {
		return nil, err
	}
	if err := fill(f, write); err != nil {
		return nil, err
	}
	complete = true
	return p, nil
}

// fill writes f's content, which is on the disk then, and closes it.
func fill(f file, write func(io.Writer) error) (err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, bufferSize)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Sync()
}

// Move puts the file into its place.
func (p *Pending) Move() error {
	defer p.Drop()
	if err := os.Rename(p.tmp, p.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(p.path))
}

// Drop removes the file where it has not been moved.
func (p *Pending) Drop() {
	if p.held != nil {
		_ = os.Remove(p.tmp) // what was moved is no longer there
		p.held.Close()
		p.held = nil
	}
}
