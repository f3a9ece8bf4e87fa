package provenance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"gopeft/train/run/inputs"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Data is recorded as it was when the run began to read it; what cannot be hashed says why.
func TestHashData(t *testing.T) {
	t.Setenv("GOPEFT_HOME", t.TempDir())
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	put(t, at("same"), "abc")
	put(t, at("changed"), "abc")
	put(t, at("gone"), "abc")
	put(t, at("folder/pos/1.txt"), "a")
	put(t, at("folder/neg/2.txt"), "bc")
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	ids := map[string]inputs.File{}
	names := []string{"same", "changed", "gone", "folder", "pipe"}
	for _, name := range names {
		id, err := inputs.Stat(name, at(name))
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = id
	}
	put(t, at("changed"), "abcd")
	if err := os.Remove(at("gone")); err != nil {
		t.Fatal(err)
	}
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	listing := `"neg/2.txt" ` + hash("bc") + "\n" + `"pos/1.txt" ` + hash("a") + "\n"
	for _, name := range names {
		f := File{Name: "data/" + name, Path: at(name)}
		if err := hashData(context.Background(), &f, ids[name]); err != nil {
			t.Fatal(err)
		}
		want := map[string]File{
			"same": {SHA256: hash("abc")}, "changed": {Note: "written while"}, "gone": {Note: "gone"}, "folder": {SHA256: hash(listing), Files: 2, Bytes: 3}, "pipe": {Note: "no regular file"},
		}[name]
		if f.SHA256 != want.SHA256 || f.Files != want.Files || f.Bytes != want.Bytes || !strings.Contains(f.Note, want.Note) || (f.Note == "") != (want.Note == "") {
			t.Errorf("%s: %+v, want %+v", name, f, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	put(t, at("late"), "xyz")
	id, _ := inputs.Stat("late", at("late"))
	f := File{Path: at("late")}
	if err := hashData(ctx, &f, id); err == nil {
		t.Error("a cancelled hash is no error")
	}
}

func TestLibtorchBuild(t *testing.T) {
	python, archive := t.TempDir(), t.TempDir()
	put(t, filepath.Join(python, "version.py"), "from typing import Optional\n\n__version__ = '2.11.0+cpu'\ndebug = False\ngit_version = 'abc'\n")
	put(t, filepath.Join(archive, "build-version"), "2.1.2+cpu\n")
	put(t, filepath.Join(archive, "build-hash"), "def\n")
	for dir, want := range map[string]string{python: "2.11.0+cpu abc", archive: "2.1.2+cpu def", t.TempDir(): ""} {
		if got := libtorchBuild(dir); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
