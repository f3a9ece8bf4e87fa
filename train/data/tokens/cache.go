package tokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"gopeft/model/fsutil"
)

// DefaultLimit is how much a cache holds before what was not used for the longest time goes.
const DefaultLimit = 64 << 30

// Cache is a folder of token files.
type Cache struct {
	Dir   string
	Limit int64 // bytes; 0: DefaultLimit

	// Note is told what a person should know; nil: no one is.
	Note func(format string, args ...any)
}

const (
	ending     = ".tokens"
	lockEnding = ".lock"
	// between is how long a process waits before it looks again whether another has finished.
	between = 100 * time.Millisecond
)

func (c Cache) path(key string) string { return filepath.Join(c.Dir, key+ending) }

func (c Cache) note(format string, args ...any) {
	if c.Note != nil {
		c.Note(format, args...)
	}
}

// Open gives the file of a key. Where there is none that is whole, build makes it; other processes that want the same
// wait for that one. A process that is killed leaves nothing that another would take for a file. build must be a function
// of what the key stands for.
func (c Cache) Open(ctx context.Context, key string, build func(ctx context.Context, w *Writer) error) (*File, error) {
	f, err := c.open(ctx, key, true)
	if f != nil || err != nil {
		return f, advise(ctx, err)
	}
	if err := os.MkdirAll(c.Dir, 0o777); err != nil {
		return nil, advise(ctx, err)
	}
	lock, err := c.lock(ctx, key)
	if err != nil {
		return nil, advise(ctx, err)
	}
	defer lock.Close()                                            // which unlocks
	if f, err = c.open(ctx, key, false); f != nil || err != nil { // another process has made it
		return f, err
	}
	path := c.path(key)
	if err := fsutil.Recover(path); err != nil { // what a killed one left
		return nil, err
	}
	err = fsutil.WriteFile(path, func(w io.Writer) error {
		x, err := newWriter(w, c.Dir, key)
		if err != nil {
			return err
		}
		defer x.abandon()
		if err := build(ctx, x); err != nil {
			return &buildError{err}
		}
		return x.finish()
	})
	var failed *buildError
	if errors.As(err, &failed) {
		return nil, failed.err // of the data, not of the file
	}
	if err != nil {
		return nil, advise(ctx, err)
	}
	if err := c.prune(key); err != nil {
		c.note("the cache of tokens in %s is not tidied: %v", c.Dir, err)
	}
	if f, err = open(ctx, path, key); err != nil {
		return nil, advise(ctx, fmt.Errorf("%s, just written: %w", path, err))
	}
	return f, nil
}

// advise adds to an error of the folder what to do about it.
func advise(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w (--cache-dir names another folder for tokens, or none)", err)
}

// buildError is an error of what a file was made from.
type buildError struct{ err error }

func (e *buildError) Error() string { return e.err.Error() }
func (e *buildError) Unwrap() error { return e.err }

// open gives the file that is there, nil if there is none or it is damaged.
func (c Cache) open(ctx context.Context, key string, tell bool) (*File, error) {
	path := c.path(key)
	f, err := open(ctx, path, key)
	var bad *damage
	switch {
	case errors.As(err, &bad):
		if tell {
			c.note("%s cannot be used (%v): it is made anew", path, bad)
		}
		return nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // for prune; a folder that only others may write to has its own rules
	return f, nil
}

// lock waits until no other process holds a key's lock, and holds it until the file given is closed.
func (c Cache) lock(ctx context.Context, key string) (*os.File, error) {
	path := filepath.Join(c.Dir, key+lockEnding)
	told := false
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && isAt(f, path) {
			return f, nil
		}
		f.Close()
		switch {
		case err == nil: // prune has removed the file meanwhile
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if !told {
			c.note("another process is tokenizing this data: waiting for it")
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(between):
		}
	}
}

// isAt reports whether an open file is what a path names.
func isAt(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// prune removes what killed processes left, and the files that were not used for the longest time until the folder holds
// no more than the limit. The file of the key given stays, and those that are being made. Processes that have a file mapped keep what they have.
func (c Cache) prune(keep string) error {
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	var infos []fs.FileInfo
	sum := int64(0)
	for _, e := range entries {
		if name, left := strings.CutPrefix(e.Name(), "."); left {
			if key, _, part := strings.Cut(name, ending+".tmp-"); part && key != keep {
				if _, err := c.unused(key, func() error { return fsutil.Recover(c.path(key)) }); err != nil {
					return err
				}
			}
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && strings.HasSuffix(e.Name(), ending) {
			infos = append(infos, info)
			sum += info.Size()
		}
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), strings.Compare(a.Name(), b.Name()))
	})
	for _, info := range infos {
		key := strings.TrimSuffix(info.Name(), ending)
		if sum <= cmp.Or(c.Limit, DefaultLimit) {
			return nil
		}
		if key == keep {
			continue
		}
		removed, err := c.unused(key, func() error { return os.Remove(c.path(key)) })
		if err != nil {
			return err
		}
		if removed {
			sum -= info.Size()
		}
	}
	return nil
}

// unused does what removes a key's files, and removes its lock, unless another process holds that.
func (c Cache) unused(key string, remove func() error) (bool, error) {
	path := filepath.Join(c.Dir, key+lockEnding)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil || !isAt(f, path) {
		return false, nil
	}
	return true, errors.Join(remove(), os.Remove(path))
}
