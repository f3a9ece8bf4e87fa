package fsutil

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Touch notes that the file at path is of use, for Prune. In a folder that only
// others may write to it cannot.
func Touch(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now)
}

// Prune bounds the cache in the folder dir, whose files end with ending. It removes
// what killed processes have left of them, and then those that were not used for
// the longest time until they hold no more than limit bytes. The file called keep
// stays. remove removes one, and reports whether it could; nil: any can be.
func Prune(dir, ending, keep string, limit int64, remove func(path string) (bool, error)) error {
	if remove == nil {
		remove = func(path string) (bool, error) {
			err := os.Remove(path)
			if errors.Is(err, fs.ErrNotExist) { // by another process
				err = nil
			}
			return err == nil, err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var infos []fs.FileInfo
	sum := int64(0)
	for _, e := range entries {
		if name, left := strings.CutPrefix(e.Name(), "."); left {
			if name, _, unfinished := strings.Cut(name, ending+".tmp-"); unfinished {
				Sweep(filepath.Join(dir, name+ending))
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
		if sum <= limit {
			return nil
		}
		if info.Name() == keep {
			continue
		}
		removed, err := remove(filepath.Join(dir, info.Name()))
		if err != nil {
			return err
		}
		if removed {
			sum -= info.Size()
		}
	}
	return nil
}
