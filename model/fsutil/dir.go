package fsutil

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteDir replaces the folder at path by what build puts into the empty
// folder dir it is given. dir is a hidden sibling of path; when build returns,
// everything in it is synced to the disk and the two folders are exchanged, in
// one atomic step where the file system can, else by two renames. The previous
// folder is removed only after that, so a failed build (a full disk, say)
// leaves it intact. The parent folder must exist. A link to a folder stays, and
// that folder is replaced.
//
// A process killed inside the two renames leaves the previous folder aside;
// Recover puts it back.
func WriteDir(path string, build func(dir string) error) (err error) {
	path = folderAt(path)
	tmp, held, err := newTemp(path, func(name string) error { return os.Mkdir(name, 0o777) })
	if err != nil {
		return fmt.Errorf("write folder %s: %w", path, err)
	}
	defer held.Close()
	defer func() {
		// After an exchange tmp holds the previous content.
		err = errors.Join(err, os.RemoveAll(tmp))
		if err != nil {
			err = fmt.Errorf("write folder %s: %w", path, explain(err))
		}
	}()

	if err := build(tmp); err != nil {
		return err
	}
	if err := syncTree(tmp); err != nil {
		return err
	}
	if err := swap(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// swap moves the folder at tmp to path, and the folder at path, if any, to tmp.
func swap(tmp, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.Rename(tmp, path)
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New("in the way: not a folder")
	}
	if err := exchange(tmp, path); err == nil {
		return nil
	}
	return swapByRenames(tmp, path)
}

// swapByRenames serves file systems without an atomic exchange.
func swapByRenames(tmp, path string) error {
	previous := previousPath(path)
	if err := os.RemoveAll(previous); err != nil {
		return err
	}
	if err := os.Rename(path, previous); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Rename(previous, path))
	}
	return os.Rename(previous, tmp)
}

// syncTree flushes every regular file and folder below root.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return syncDir(path)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
