package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// bring copies undamaged inputs into the case's folder.
func (c *attempt) bring(names ...string) error {
	for _, name := range names {
		if err := copyTo(c.in(name), c.at(name)); err != nil {
			return err
		}
	}
	return nil
}

// in is a path in the case's folder.
func (c *attempt) in(name string) string { return filepath.Join(c.dir, filepath.FromSlash(name)) }

func copyTo(to, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.CopyFS(to, os.DirFS(from))
	}
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o666)
}

// build makes an input by commands, which all have to succeed: in the folder that cases work in, whose path runs may keep.
func (h *harness) build(needs []string, makes map[string]string, commands ...string) error {
	c := &attempt{harness: h, kind: "build", dir: filepath.Join(h.root, "case"), tally: &tally{codes: map[string]int{}}}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	for _, sub := range []string{"home", "tmp"} {
		if err := os.MkdirAll(c.in(sub), 0o777); err != nil {
			return err
		}
	}
	if err := c.bring(needs...); err != nil {
		return err
	}
	for _, command := range commands {
		if r := c.start(usual, nil, strings.Fields(command)...); r.code != 0 {
			return fmt.Errorf("gopeft %s: exit %d %s: %s", command, r.code, r.signal, r.stderr)
		}
	}
	for from, to := range makes {
		if err := copyTo(h.at(to), c.in(from)); err != nil {
			return err
		}
	}
	return nil
}

// listed lists the regular files below some places of the case's folder whose names match one of the patterns.
func (c *attempt) listed(patterns ...string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(c.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(c.dir, path)
		name = filepath.ToSlash(name)
		if err == nil && slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) }) {
			names = append(names, name)
		}
		return err
	})
	return names, err
}

// matches reports whether a name is that of a pattern, or below it.
func matches(pattern, name string) bool {
	for {
		if ok, _ := filepath.Match(pattern, name); ok {
			return true
		}
		at := strings.LastIndexByte(name, '/')
		if at < 0 {
			return false
		}
		name = name[:at]
	}
}

// snapshot is the content of everything below a folder, by its name there: a hash, or what else there is.
func snapshot(dir string, leaveOut ...string) (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if slices.Contains(leaveOut, name) {
			return filepath.SkipDir
		}
		switch mode := e.Type(); {
		case mode.IsRegular():
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(raw)
			all[name] = hex.EncodeToString(sum[:8])
		case mode&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			all[name] = "link to " + to
		default:
			all[name] = mode.String()
		}
		return nil
	})
	return all, err
}

// lost lists what was there and is not, or is changed.
func lost(before, after map[string]string) (names []string) {
	for name, was := range before {
		if after[name] != was {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// hidden lists what unfinished commands leave: names that begin with a dot.
func hidden(dir string) (names []string, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != dir && strings.HasPrefix(e.Name(), ".") && e.Name() != ".cache" {
			names = append(names, path)
		}
		return nil
	})
	return names, err
}
