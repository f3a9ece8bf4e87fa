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

// WriteFileContext is WriteFile that does not wait for ever for the other end of a
// pipe: once ctx has ended, opening it fails, and a write has a second left.
func WriteFileContext(ctx context.Context, path string, write func(io.Writer) error) error {
	p, err := find(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if p.open != nil {
		return writeStream(ctx, path, p.open, write)
	}
	return writeFile(p.path, openFile, write)
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

func writeFile(path string, open func(string) (file, error), write func(io.Writer) error) error {
	p, err := prepare(path, open, write)
	if err == nil {
		err = p.Move()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, explain(err))
	}
	return nil
}

const freeSpace = "free some space and run again; the previous content is unchanged"

// explain adds what to do to the errors a user can do something about.
func explain(err error) error {
	if advised := (*fullError)(nil); Full(err) && !errors.As(err, &advised) { // a file of a folder has said so
		return &fullError{err}
	}
	return err
}

// fullError is of a full disk, with what to do about it.
type fullError struct{ err error }

func (e *fullError) Error() string { return e.err.Error() + ": " + freeSpace }
func (e *fullError) Unwrap() error { return e.err }

// Full reports whether there was no space left, on the disk or of what the user may take of it.
func Full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

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
// A link is followed, as it is when path is written.
func Recover(path string) error {
	path = resolved(path)
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
