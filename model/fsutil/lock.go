package fsutil

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Lock is a file that one process at a time holds. The system lets go of it when
// the process ends, however it does.
type Lock struct{ f *os.File }

// LockedError is of a lock that another process holds.
type LockedError struct {
	Path   string
	Holder string // "process 12 on host", or less if it is not known
}

func (e *LockedError) Error() string { return fmt.Sprintf("%s is locked by %s", e.Path, e.Holder) }

// ErrNoLocks says that a file system has no locks.
var ErrNoLocks = errors.New("the file system has no locks")

// LockFile makes the file at path and locks it, with a line about this process in
// it. It does not wait: a lock that is held is a *LockedError.
func LockFile(path string) (*Lock, error) {
	for range 100 {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o666)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, cause(err))
		}
		free, err := tryLock(f)
		switch {
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock %s: %w: %w", path, ErrNoLocks, err), os.Remove(path), f.Close())
		case !free:
			err := &LockedError{path, holder(f)}
			f.Close()
			return nil, err
		case !isAt(f, path): // its holder has removed it meanwhile
			f.Close()
			continue
		}
		l := &Lock{f}
		if err := l.sign(); err != nil {
			return nil, errors.Join(err, l.Release())
		}
		return l, nil
	}
	return nil, fmt.Errorf("lock %s: it comes and goes", path)
}

// sign writes who holds the lock.
func (l *Lock) sign() error {
	host, err := os.Hostname()
	if err != nil {
		host = "a host without a name"
	}
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err = l.f.WriteAt(fmt.Appendf(nil, "process %d on %s\n", os.Getpid(), host), 0)
	return err
}

// holder reads who holds a lock.
func holder(f *os.File) string {
	raw, _ := io.ReadAll(io.LimitReader(f, 300))
	line, _, ended := strings.Cut(string(raw), "\n")
	if !ended {
		return "another process"
	}
	return line
}

// Release removes the file and lets go of it. A nil lock is none.
func (l *Lock) Release() error {
	if l == nil {
		return nil
	}
	// Removed first: who opens it now finds it locked, or gone once it has the lock.
	return errors.Join(os.Remove(l.f.Name()), l.f.Close())
}

// FolderLock is the file that a process holds locked in a folder it writes. One that a killed process has left is no lock.
const FolderLock = ".lock"

// SweepLock removes the lock that a killed process has left in the folder dir.
func SweepLock(dir string) {
	path := filepath.Join(dir, FolderLock)
	if !Exists(path) {
		return
	}
	if l, err := LockFile(path); err == nil {
		_ = l.Release()
	}
}

// LockFolder makes the folder at dir and keeps other processes out of it until release is called, which removes the
// folder again if it was made and nothing stands in it. note is told where the file system has no locks.
func LockFolder(dir string, note func(format string, args ...any)) (release func() error, err error) {
	made := !Exists(dir)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	l, err := LockFile(filepath.Join(dir, FolderLock))
	if held := (*LockedError)(nil); errors.As(err, &held) {
		return nil, fmt.Errorf("%s is being written by %s: wait for its end, or give another --out", dir, held.Holder)
	}
	if errors.Is(err, ErrNoLocks) {
		note("%s: its file system has no locks; see to it that nothing else writes there meanwhile", dir)
		l, err = nil, nil
	}
	release = func() error {
		err := l.Release()
		if made {
			_ = os.Remove(dir) // where it is empty
		}
		return err
	}
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return release, nil
}

// tryLock locks an open file or folder until it is closed, by whoever has it open
// last. It reports whether it could; an error says that this file system has no locks.
func tryLock(f *os.File) (bool, error) {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		default:
			return false, err
		}
	}
}
