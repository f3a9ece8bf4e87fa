package fsutil

import (
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
	p := &Pending{path: target}
	p.tmp, p.held, err = newTemp(target, func(name string) error {
		f, err := createNew(name)
		if err != nil {
			return err
		}
		return f.Close()
	})
	if err == nil {
		err = writeInPlace(p.tmp, write)
		if err != nil {
			p.Drop()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, explain(err))
	}
	return p, nil
}

func writeInPlace(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Sync(), f.Close())
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
