package fsutil

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A name that another process holds, to sweep it, is not taken.
func TestTemporaryNameInUseIsNotTaken(t *testing.T) {
	var others []*os.File
	name, held, err := newTemp(filepath.Join(t.TempDir(), "a"), func(name string) error {
		if err := os.WriteFile(name, nil, 0o600); err != nil || len(others) == 3 {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		others = append(others, f)
		if free, err := tryLock(f); !free || err != nil {
			return fmt.Errorf("lock: %v, %w", free, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, f := range others {
		if f.Name() == name {
			t.Errorf("took %s, which is in use", name)
		}
		f.Close()
	}
	if len(others) != 3 {
		t.Errorf("%d names were tried before", len(others))
	}
}

func TestRecoverFollowsLinks(t *testing.T) {
	for _, kind := range []string{"file", "folder", "folder that is aside"} {
		t.Run(kind, func(t *testing.T) {
			there, here := t.TempDir(), t.TempDir()
			target, link := filepath.Join(there, "real"), filepath.Join(here, "link")
			tree := map[string]string{".real.tmp-1": "half"}
			switch kind {
			case "file":
				tree["real"] = "whole"
			case "folder":
				tree["real/a"] = "whole"
			default:
				tree[".real.previous/a"] = "whole"
			}
			if err := errors.Join(buildWith(tree)(there), os.Symlink(target, link)); err != nil {
				t.Fatal(err)
			}
			if err := Recover(link); err != nil {
				t.Fatal(err)
			}
			if got := names(t, there); len(got) != 1 || got[0] != "real" {
				t.Errorf("there are %v", got)
			}
			if got := names(t, here); len(got) != 1 {
				t.Errorf("beside the link are %v", got)
			}
		})
	}
}

func TestFullDiskIsAdvisedOnOnce(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		err := WriteDir(filepath.Join(t.TempDir(), "d"), func(dir string) error {
			return WriteFile(filepath.Join(dir, "f"), func(io.Writer) error { return fmt.Errorf("tensor 3: %w", full) })
		})
		if !Full(err) || strings.Count(err.Error(), freeSpace) != 1 {
			t.Errorf("got %v", err)
		}
	}
	if Full(nil) || Full(syscall.EIO) {
		t.Error("what is not full is")
	}
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"oldest.x", "old.x", "kept.x", "new.x", "other.y", ".a.x.tmp-1"} {
		path := filepath.Join(dir, name)
		mustWrite(t, path, strings.Repeat("x", 100))
		then := time.Now().Add(time.Duration(i-10) * time.Hour)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	Touch(filepath.Join(dir, "oldest.x")) // it is the newest now
	if err := Prune(dir, ".x", "kept.x", 250, nil); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names(t, dir), " "); got != "kept.x oldest.x other.y" {
		t.Errorf("left %s", got)
	}
	if err := Prune(dir, ".x", "", 100, func(string) (bool, error) { return false, nil }); err != nil { // in use
		t.Fatal(err)
	}
	if got := names(t, dir); len(got) != 3 {
		t.Errorf("left %v", got)
	}
}

func TestLockFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	silent := func(format string, args ...any) { t.Errorf(format, args...) }
	release, err := LockFolder(dir, silent)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockFolder(dir, silent); err == nil || !strings.Contains(err.Error(), "is being written by process") {
		t.Errorf("a second time: %v", err)
	}
	if err := release(); err != nil || exists(dir) {
		t.Errorf("an empty folder stays: %v", err)
	}
	if release, err = LockFolder(dir, silent); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(dir, "result"), "")
	if err := release(); err != nil || len(names(t, dir)) != 1 {
		t.Errorf("%v are left, %v", names(t, dir), err)
	}
}
