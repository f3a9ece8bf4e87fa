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
	"strings"
	"time"

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

func (c Cache) lockPath(key string) string { return filepath.Join(c.Dir, key+lockEnding) }

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
	defer func() { _ = lock.Release() }()                         // what stays of it when that fails is no lock
	if f, err = c.open(ctx, key, false); f != nil || err != nil { // another process has made it
		return f, err
	}
	path := c.path(key)
	fsutil.Sweep(path) // what a killed one left
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
		if err = failed.err; !fsutil.Full(err) { // of the data, not of the folder
			return nil, err
		}
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
	fsutil.Touch(path)
	return f, nil
}

// lock waits until no other process holds a key's lock, and holds it until it is released.
func (c Cache) lock(ctx context.Context, key string) (*fsutil.Lock, error) {
	told := false
	for {
		l, err := fsutil.LockFile(c.lockPath(key))
		held := (*fsutil.LockedError)(nil)
		if !errors.As(err, &held) {
			return l, err
		}
		if !told {
			c.note("%s is tokenizing this data: waiting for it", held.Holder)
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(between):
		}
	}
}

// prune removes what killed processes left, and the files that were not used for the longest time until the folder holds
// no more than the limit. The file of the key given stays, and those that are being made. Processes that have a file mapped keep what they have.
func (c Cache) prune(keep string) error {
	return fsutil.Prune(c.Dir, ending, keep+ending, cmp.Or(c.Limit, DefaultLimit), func(path string) (removed bool, err error) {
		l, err := fsutil.LockFile(c.lockPath(strings.TrimSuffix(filepath.Base(path), ending)))
		if held := (*fsutil.LockedError)(nil); errors.As(err, &held) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		err = os.Remove(path)
		return err == nil, errors.Join(err, l.Release())
	})
}
