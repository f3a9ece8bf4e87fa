package fsutil

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// newTemp calls create with fresh hidden names beside path until one is free. The
// file or folder is locked as long as held is open, so that Sweep can tell it
// from what a killed process left.
func newTemp(path string, create func(name string) error) (name string, held *os.File, err error) {
	prefix := tempPrefix(path)
	for range 100 {
		name := prefix + strconv.FormatUint(rand.Uint64(), 36)
		err := create(name)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("in folder %s: %w", filepath.Dir(path), cause(err))
		}
		held, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) { // swept between the two
			continue
		}
		if err != nil {
			return "", nil, errors.Join(err, os.Remove(name))
		}
		if free, err := tryLock(held); err == nil && (!free || !isAt(held, name)) { // being swept, or swept before it was locked
			held.Close()
			continue
		}
		return name, held, nil
	}
	return "", nil, fmt.Errorf("no free temporary name %s*", prefix)
}

// Nameless makes a file in the folder dir that has no name there: whatever ends the
// process, its space is free then.
func Nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".gopeft-*")
	if err != nil {
		return nil, fmt.Errorf("in folder %s: %w", dir, cause(err))
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// cause is an error without the temporary name, which tells nobody anything.
func cause(err error) error {
	if in := (*fs.PathError)(nil); errors.As(err, &in) {
		return in.Err
	}
	return err
}

// isAt reports whether what f has open is still what name leads to.
func isAt(f *os.File, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(name)
	return err == nil && os.SameFile(a, b)
}

// resolved is what would be replaced at path, a file or a folder, its links followed.
func resolved(path string) string {
	if p, err := find(path); err == nil {
		return filepath.Clean(p.path)
	}
	return folderAt(path)
}

// Sweep removes temporary files and folders beside path that killed processes have
// left of WriteFile and WriteDir. Those of a process that is at work are locked
// and stay; where a file system has no locks, all stay. What cannot be removed is
// no reason to fail.
func Sweep(path string) {
	path = resolved(path)
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	prefix := filepath.Base(tempPrefix(path))
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) || !e.IsDir() && !e.Type().IsRegular() {
			continue
		}
		name := filepath.Join(filepath.Dir(path), e.Name())
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		if free, err := tryLock(f); err == nil && free {
			_ = os.RemoveAll(name)
		}
		f.Close()
	}
}
