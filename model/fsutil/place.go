package fsutil

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// place is where a path's content goes.
type place struct {
	path string                   // of the file to replace, links followed
	open func() (*os.File, error) // not nil: what is there is written as it is
}

// find follows path's links to what would be written.
func find(path string) (place, error) {
	for at, links := path, 0; ; links++ {
		if links > 40 { // as many as Linux follows
			return place{}, syscall.ELOOP
		}
		if fd, ok := descriptor(at); ok {
			return place{at, func() (*os.File, error) { return duplicate(fd, path) }}, nil
		}
		info, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return place{path: at}, nil
		case err != nil:
			return place{}, err
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(at)
			if err != nil {
				return place{}, err
			}
			if !filepath.IsAbs(to) {
				to = filepath.Join(realDir(at), to)
			}
			at = to
		case info.IsDir():
			return place{}, errors.New("it is a folder: give the name of a file")
		case info.Mode().IsRegular():
			return place{path: at}, nil
		default:
			return place{at, func() (*os.File, error) { return os.OpenFile(at, os.O_WRONLY, 0) }}, nil
		}
	}
}

// realDir is the folder of path with its links followed, which a link's ".." counts from.
func realDir(path string) string {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return dir
	}
	return filepath.Dir(path)
}

// descriptor tells a name of one of this process's open files, and its number.
func descriptor(path string) (int, bool) {
	dir, name := filepath.Split(path)
	fd, err := strconv.Atoi(name)
	if err != nil || fd < 0 || dir == "" {
		return 0, false
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	rest, ok := strings.CutPrefix(filepath.Clean(dir), "/proc/")
	if !ok {
		return 0, false
	}
	pid := strconv.Itoa(os.Getpid())
	return fd, rest == pid+"/fd" || strings.HasPrefix(rest, pid+"/task/") && strings.HasSuffix(rest, "/fd")
}

// duplicate opens an open file a second time, at the place where it stands.
func duplicate(fd int, path string) (*os.File, error) {
	n, err := syscall.Dup(fd)
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(n)
	return os.NewFile(uintptr(n), path), nil
}

// CheckFile reports why WriteFile could not write path: it is a folder, or its
// folder is missing or cannot be written. What it creates to find out is gone when
// it returns.
func CheckFile(path string) error {
	p, err := find(path)
	if err == nil && p.open == nil {
		err = probe(p.path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// CheckDir reports why WriteDir could not write the folder at path.
func CheckDir(path string) error {
	path = folderAt(path)
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.IsDir():
		err = errors.New("in the way: not a folder")
	case err == nil || errors.Is(err, fs.ErrNotExist):
		err = probe(path)
	}
	if err != nil {
		return fmt.Errorf("write folder %s: %w", path, err)
	}
	return nil
}

// folderAt is path, or the folder behind it if it is a link.
func folderAt(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// probe makes a temporary folder beside path and removes it.
func probe(path string) error {
	name, held, err := newTemp(path, func(name string) error { return os.Mkdir(name, 0o777) })
	if err != nil {
		return err
	}
	return errors.Join(os.Remove(name), held.Close())
}
