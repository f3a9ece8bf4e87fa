package fsutil

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// Overlap reports whether writing out would change what is read from in, whatever
// names lead to the two: they are the same file or folder, by device and inode; or
// the folder out holds in, or what a link in in's folder leads to; or out is a file
// of in's folder, by its place, a link in there or a hard link. What is not there
// yet overlaps with nothing, nor does a terminal or another device.
func Overlap(out, in string) bool {
	to, err := os.Stat(out)
	if err != nil {
		return false
	}
	from, err := os.Stat(in)
	if err != nil {
		return false
	}
	return overlap(out, to, in, from)
}

// Holds reports whether in is out, or lies in the folder out, links followed.
func Holds(out, in string) bool {
	to, err := os.Stat(out)
	if err != nil {
		return false
	}
	from, err := os.Stat(in)
	return err == nil && (SameFile(to, from) || to.IsDir() && within(in, to))
}

// SameFile reports whether two files are one, and no device.
func SameFile(a, b fs.FileInfo) bool { return a.Mode()&fs.ModeDevice == 0 && os.SameFile(a, b) }

func overlap(out string, to fs.FileInfo, in string, from fs.FileInfo) bool {
	switch {
	case SameFile(to, from):
		return true
	case to.Mode()&fs.ModeDevice != 0:
		return false
	case to.IsDir() && within(in, to):
		return true
	case !to.IsDir() && from.IsDir() && within(out, from) && !slices.Contains(products[:], filepath.Ext(resolved(out))):
		return true
	}
	return from.IsDir() && anyOf(in, to)
}

// anyOf looks through folder in for links into out, and for other names of it.
func anyOf(in string, out fs.FileInfo) (found bool) {
	_ = filepath.WalkDir(in, func(path string, d fs.DirEntry, err error) error {
		if err != nil { // what cannot be looked at is not read either
			return nil
		}
		if link := d.Type()&fs.ModeSymlink != 0; !link && (out.IsDir() || links(out) < 2 || !d.Type().IsRegular()) {
			return nil // what has no other names need not be asked for
		}
		info, err := os.Stat(path)
		if found = err == nil && (SameFile(out, info) || out.IsDir() && within(path, out)); found {
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// products are the names' ends of what is made with a model and never part of one: these may lie in its folder, and be made again.
var products = [...]string{".jsonl", ".npy"}

// within reports whether path lies in the folder dir, links followed.
func within(path string, dir fs.FileInfo) bool {
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return false
	}
	for parent := filepath.Dir(real); ; parent = filepath.Dir(parent) {
		if info, err := os.Stat(parent); err == nil && os.SameFile(info, dir) {
			return true
		}
		if parent == filepath.Dir(parent) {
			return false
		}
	}
}

// links is how many names a file has.
func links(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink)
	}
	return 1
}
