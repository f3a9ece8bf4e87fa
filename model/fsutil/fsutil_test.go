package fsutil

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fullDisk lets a number of bytes through and then fails like a full disk; or
// it fails at Sync or Close, where delayed allocation reports the same.
type fullDisk struct {
	file
	room            int
	atSync, atClose bool
}

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) > d.room {
		n, _ := d.file.Write(p[:d.room])
		d.room = 0
		return n, syscall.ENOSPC
	}
	d.room -= len(p)
	return d.file.Write(p)
}

func (d *fullDisk) Sync() error {
	if d.atSync {
		return syscall.ENOSPC
	}
	return d.file.Sync()
}

func (d *fullDisk) Close() error {
	err := d.file.Close()
	if d.atClose {
		return syscall.ENOSPC
	}
	return err
}

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// names lists a folder, hidden files included.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s holds %q, want %q", filepath.Base(path), got, want)
	}
}

func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestWriteFileReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.json")
	for _, content := range []string{"first", "second, longer", ""} {
		if err := WriteFile(path, text(content)); err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, content)
	}
	if diff := cmp.Diff([]string{"a.json"}, names(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
}

func TestWriteFileKeepsThePreviousOneOnFailure(t *testing.T) {
	long := strings.Repeat("x", 3*bufferSize)
	own := errors.New("encoder gave up")
	tests := []struct {
		name  string
		disk  fullDisk
		write func(io.Writer) error
		want  error
	}{
		{"disk full at the first byte", fullDisk{}, text(long), syscall.ENOSPC},
		{"disk full in the middle", fullDisk{room: bufferSize + 5}, text(long), syscall.ENOSPC},
		{"disk full while flushing", fullDisk{room: 3}, text("short"), syscall.ENOSPC},
		{"disk full at sync", fullDisk{room: 1 << 20, atSync: true}, text("short"), syscall.ENOSPC},
		{"disk full at close", fullDisk{room: 1 << 20, atClose: true}, text("short"), syscall.ENOSPC},
		{"the caller's own error", fullDisk{room: 1 << 20}, func(w io.Writer) error {
			_ = text("half")(w)
			return own
		}, own},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "model.bin")
			mustWrite(t, path, "previous")
			create := func(name string) (file, error) {
				f, err := os.Create(name)
				disk := test.disk
				disk.file = f
				return &disk, err
			}
			err := writeFile(path, create, test.write)
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if !strings.Contains(err.Error(), path) {
				t.Errorf("error %q does not name the file", err)
			}
			wantFile(t, path, "previous")
			if diff := cmp.Diff([]string{"model.bin"}, names(t, dir)); diff != "" {
				t.Errorf("folder (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWriteFileCleansUpAfterAPanic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	func() {
		defer func() { _ = recover() }()
		_ = WriteFile(path, func(io.Writer) error { panic("encoder bug") })
	}()
	if got := names(t, dir); len(got) != 0 {
		t.Errorf("left behind %v", got)
	}
}

func TestWriteFileIntoAMissingFolder(t *testing.T) {
	err := WriteFile(filepath.Join(t.TempDir(), "no", "a"), text(""))
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want not exist", err)
	}
}

func TestWriteFileHonoursTheUmask(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "plain"), "")
	if err := WriteFile(filepath.Join(dir, "ours"), text("")); err != nil {
		t.Fatal(err)
	}
	a, _ := os.Stat(filepath.Join(dir, "plain"))
	b, _ := os.Stat(filepath.Join(dir, "ours"))
	if a.Mode() != b.Mode() {
		t.Errorf("mode %v, a plain file has %v", b.Mode(), a.Mode())
	}
}

func buildWith(files map[string]string) func(string) error {
	return func(dir string) error {
		for name, content := range files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				return err
			}
			if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestWriteDirReplacesTheWholeFolder(t *testing.T) {
	parent := t.TempDir()
	path := filepath.Join(parent, "last")
	if err := WriteDir(path, buildWith(map[string]string{"a": "1", "sub/b": "2"})); err != nil {
		t.Fatal(err)
	}
	if err := WriteDir(path+"/", buildWith(map[string]string{"c": "3"})); err != nil {
		t.Fatal(err)
	}
	wantFile(t, filepath.Join(path, "c"), "3")
	if diff := cmp.Diff([]string{"c"}, names(t, path)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"last"}, names(t, parent)); diff != "" {
		t.Errorf("parent (-want +got):\n%s", diff)
	}
}

func TestWriteDirKeepsThePreviousOneOnFailure(t *testing.T) {
	parent := t.TempDir()
	path := filepath.Join(parent, "last")
	if err := WriteDir(path, buildWith(map[string]string{"a": "1"})); err != nil {
		t.Fatal(err)
	}
	err := WriteDir(path, func(dir string) error {
		mustWrite(t, filepath.Join(dir, "half"), "x")
		return syscall.ENOSPC
	})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one of a full disk that names the folder", err)
	}
	wantFile(t, filepath.Join(path, "a"), "1")
	if diff := cmp.Diff([]string{"last"}, names(t, parent)); diff != "" {
		t.Errorf("parent (-want +got):\n%s", diff)
	}
}

func TestWriteDirRefusesToReplaceAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "last")
	mustWrite(t, path, "a file")
	if err := WriteDir(path, buildWith(nil)); err == nil {
		t.Error("no error")
	}
	wantFile(t, path, "a file")
}

func TestSwapByRenames(t *testing.T) {
	parent := t.TempDir()
	path, tmp := filepath.Join(parent, "last"), filepath.Join(parent, "new")
	for dir, content := range map[string]string{path: "old", tmp: "new", previousPath(path): "stale"} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, filepath.Join(dir, "a"), content)
	}
	if err := swapByRenames(tmp, path); err != nil {
		t.Fatal(err)
	}
	wantFile(t, filepath.Join(path, "a"), "new")
	wantFile(t, filepath.Join(tmp, "a"), "old")
}

func TestRecover(t *testing.T) {
	tests := []struct {
		name string
		tree map[string]string // files left by a killed process
		want map[string]string // files after recovery
	}{
		{"nothing to do", map[string]string{"last/a": "1"}, map[string]string{"last/a": "1"}},
		{"killed while building", map[string]string{"last/a": "1", ".last.tmp-1/a": "2"}, map[string]string{"last/a": "1"}},
		{"killed between the renames", map[string]string{".last.previous/a": "1", ".last.tmp-1/a": "2"}, map[string]string{"last/a": "1"}},
		{"killed after the renames", map[string]string{"last/a": "2", ".last.previous/a": "1"}, map[string]string{"last/a": "2"}},
		{"another target's files", map[string]string{"last/a": "1", ".lastly.tmp-1/a": "2", ".best.previous/a": "3"},
			map[string]string{"last/a": "1", ".lastly.tmp-1/a": "2", ".best.previous/a": "3"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			parent := t.TempDir()
			if err := buildWith(test.tree)(parent); err != nil {
				t.Fatal(err)
			}
			if err := Recover(filepath.Join(parent, "last")); err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			err := filepath.WalkDir(parent, func(path string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				content, err := os.ReadFile(path)
				name, _ := filepath.Rel(parent, path)
				got[name] = string(content)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
	if err := Recover(filepath.Join(t.TempDir(), "no", "last")); err != nil {
		t.Errorf("missing parent: %v", err)
	}
}
