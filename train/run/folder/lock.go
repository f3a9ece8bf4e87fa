package folder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gopeft/model/fsutil"
	"gopeft/train"
)

// lockName is the file that a run holds locked in its folder. One that a killed run has left is no lock.
const lockName = ".lock"

// Lock makes the folder of a run and keeps other runs out of it until release is called, which removes the folder
// again if it was made and nothing stands in it.
func Lock(dir string, ui train.UI) (release func() error, err error) {
	made := !fsutil.Exists(dir)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	l, err := fsutil.LockFile(filepath.Join(dir, lockName))
	if held := (*fsutil.LockedError)(nil); errors.As(err, &held) {
		return nil, fmt.Errorf("%s is being written by %s: wait for its end, or give another --out", dir, held.Holder)
	}
	if errors.Is(err, fsutil.ErrNoLocks) {
		ui.Note("%s: its file system has no locks; see to it that no other run writes there meanwhile", dir)
		l, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	return func() error {
		err := l.Release()
		if made {
			_ = os.Remove(dir) // where it is empty
		}
		return err
	}, nil
}
