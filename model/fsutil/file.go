package fsutil

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// bufferSize is large enough that small writes of an encoder cost no system
// call each; tensors are larger and pass the buffer by.
const bufferSize = 64 << 10

// file is what WriteFile needs of *os.File; tests put a failing disk behind it.
type file interface {
	io.Writer
	Sync() error
	Close() error
}

// WriteFile replaces the file at path by what write produces. The bytes go to
// a temporary file in the same folder, which is synced and then renamed over
// path, and the folder is synced too. On any error, be it write's own or a full
// disk, the temporary file is removed and an existing file at path is left as
// it was. The folder must exist. A link is followed: the file behind it is
// replaced, and the link stays.
//
// What has no previous content to keep (a device, a named pipe, an open file by
// its number, such as /dev/stdout) is written as it is. A folder is refused
// before write is called.
//
// The writer given to write is buffered; it is flushed here.
func WriteFile(path string, write func(io.Writer) error) error {
	return WriteFileContext(context.Background(), path, write)
}

// WriteFileContext is WriteFile that no longer waits for the other end of a pipe
// once ctx has ended.
func WriteFileContext(ctx context.Context, path string, write func(io.Writer) error) error {
	p, err := find(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if p.open != nil {
		return writeStream(ctx, path, p.open, write)
	}
	return writeFile(p.path, createNew, write)
}

func createNew(path string) (file, error) {
	// 0666 before the umask, as a plain os.Create gives.
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
}

// writeStream writes to what cannot be replaced.
func writeStream(ctx context.Context, path string, open func() (*os.File, error), write func(io.Writer) error) (err error) {
	var f *os.File
	err = Await(ctx, func() error {
		opened, err := open()
		f = opened
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = fmt.Errorf("write %s: %w", path, err)
		}
	}()
	w := bufio.NewWriterSize(NewWriter(ctx, f), bufferSize)
	return errors.Join(write(w), w.Flush())
}

func writeFile(path string, create func(string) (file, error), write func(io.Writer) error) (err error) {
	var f file
	tmp, held, err := newTemp(path, func(name string) (err error) {
		f, err = create(name)
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer held.Close()
	open := true
	moved := false
	// Deferred so that a panic in write leaves nothing behind either.
	defer func() {
		if open {
			err = errors.Join(err, f.Close())
		}
		if !moved {
			err = errors.Join(err, os.Remove(tmp))
		}
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, explain(err))
		}
	}()

	w := bufio.NewWriterSize(f, bufferSize)
	if err := write(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	open = false
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	moved = true
	return syncDir(filepath.Dir(path))
}

const freeSpace = "free some space and run again; the previous content is unchanged"

// explain adds what to do to the errors a user can do something about.
func explain(err error) error {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if full && !strings.Contains(err.Error(), freeSpace) { // a file of a folder has said so
		return fmt.Errorf("%w: %s", err, freeSpace)
	}
	return err
}

// syncDir makes a rename inside dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	// Some network file systems cannot sync a folder; the rename is done then
	// all the same, only its durability is theirs.
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

// Hidden names beside a target "name": ".name.tmp-<random>" while it is built,
// ".name.previous" for the moment in which a folder is exchanged.
func tempPrefix(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
}

func previousPath(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".previous")
}

// Recover tidies what a killed process left of WriteFile or WriteDir on path:
// temporary files and folders beside it are removed, and a folder that was
// moved aside for an exchange that never finished is put back. Call it once
// before reading or resuming path, and only where no other process writes it.
func Recover(path string) error {
	path = filepath.Clean(path)
	previous := previousPath(path)
	if exists(previous) && !exists(path) {
		if err := os.Rename(previous, path); err != nil {
			return fmt.Errorf("recover %s: %w", path, err)
		}
	}
	if err := os.RemoveAll(previous); err != nil {
		return fmt.Errorf("recover %s: %w", path, err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("recover %s: %w", path, err)
	}
	for _, e := range entries {
		if Unfinished(path, e.Name()) {
			if err := os.RemoveAll(filepath.Join(filepath.Dir(path), e.Name())); err != nil {
				return fmt.Errorf("recover %s: %w", path, err)
			}
		}
	}
	return nil
}

// Unfinished reports whether name, in path's folder, is what a killed WriteFile or WriteDir left of path.
func Unfinished(path, name string) bool {
	return strings.HasPrefix(name, filepath.Base(tempPrefix(path)))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Exists reports whether there is a file or folder at path, or behind it if it is a link.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
