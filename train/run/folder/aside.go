package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"gopeft/model/fsutil"
)

// What --overwrite replaces waits in a hidden folder beside it until the new run has a checkpoint. While files move into
// or out of it the folder has its second name: what then stands in the run's folder is the old run's.
const (
	asideName  = ".replaced"
	movingName = ".replaced.moving"
)

// Aside is what an overwritten run has left. Its methods may be killed at any point: Recover goes on from there.
type Aside struct {
	Dir   string
	Names []string // of all files that such runs write; the settings, which tell that they are a run's, first
}

// At is the path of one of the files.
func (a Aside) At(name string) string { return filepath.Join(a.Dir, name) }

// Move puts what there is of the old run aside.
func (a Aside) Move() error {
	if err := os.Mkdir(a.At(movingName), 0o777); err != nil {
		return err
	}
	// The settings go last: until then the folder is a run's.
	for _, name := range slices.Backward(a.Names) {
		err := os.Rename(a.At(name), filepath.Join(a.At(movingName), name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(err, a.finishMove())
		}
	}
	return os.Rename(a.At(movingName), a.At(asideName))
}

// Drop removes the old run's files. It does nothing where there are none.
func (a Aside) Drop() error { return os.RemoveAll(a.At(asideName)) }

// restore brings the old run's files back in place of the new one's. It does nothing where there are none.
func (a Aside) restore() error {
	if !fsutil.Exists(a.At(asideName)) {
		return nil
	}
	for _, name := range a.Names {
		if err := os.RemoveAll(a.At(name)); err != nil {
			return err
		}
	}
	if err := os.Rename(a.At(asideName), a.At(movingName)); err != nil {
		return err
	}
	return a.finishMove()
}

// finishMove brings back what moves.
func (a Aside) finishMove() error {
	for _, name := range a.Names {
		err := os.Rename(filepath.Join(a.At(movingName), name), a.At(name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Remove(a.At(movingName))
}

// Recover ends what a killed run has begun: the old run is back, or gone if the new one stands.
func (a Aside) Recover(stands bool) error {
	var err error
	switch {
	case fsutil.Exists(a.At(movingName)):
		err = a.finishMove()
	case stands:
		err = a.Drop()
	default:
		err = a.restore()
	}
	if err != nil {
		return fmt.Errorf("%s: bring back the run that --overwrite put aside: %w", a.Dir, err)
	}
	return nil
}

// Visible lists what a folder holds but for what runs keep there while they are at work.
func Visible(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); name != fsutil.FolderLock && name != asideName && name != movingName {
			names = append(names, name)
		}
	}
	return names, nil
}
