package provenance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path/filepath"

	"gopeft/model/fsutil"
)

// hashFolder hashes a folder of data: the names and hashes of all files below it, in the order of their names. Of a
// folder of many small files no hash is remembered.
func hashFolder(ctx context.Context, dir string) (sum string, files int, bytes int64, err error) {
	h := sha256.New()
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		one, err := fsutil.HashFile(ctx, path)
		if err != nil {
			return err
		}
		files++
		bytes += info.Size()
		_, err = fmt.Fprintf(h, "%q %s\n", filepath.ToSlash(name), one)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), files, bytes, err
}

// below lists the files in some entries of a folder, by their names there, in order.
func below(dir string, entries []string) ([]string, error) {
	var names []string
	for _, top := range entries {
		err := filepath.WalkDir(filepath.Join(dir, top), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			name, err := filepath.Rel(dir, path)
			names = append(names, filepath.ToSlash(name))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

// absolute is path as it can be found from elsewhere.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
