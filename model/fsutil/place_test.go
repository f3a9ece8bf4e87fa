package fsutil

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWriteFileFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, sub := range []string{"real", "links"} {
		if err := os.Mkdir(at(sub), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	mustWrite(t, at("real/there"), "old")
	for link, to := range map[string]string{"links/a": "../real/there", "links/b": "a", "links/new": "../real/new", "links/abs": at("real/there"), "d": "links"} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ link, file string }{
		{"links/a", "real/there"}, {"links/b", "real/there"}, {"links/abs", "real/there"}, {"links/new", "real/new"}, {"d/a", "real/there"}, {"d/new", "real/new"},
	} {
		if err := WriteFile(at(c.link), text(c.link)); err != nil {
			t.Fatal(err)
		}
		wantFile(t, at(c.file), c.link)
	}
	if diff := cmp.Diff([]string{"a", "abs", "b", "new"}, names(t, at("links"))); diff != "" {
		t.Errorf("folder of links (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"new", "there"}, names(t, at("real"))); diff != "" {
		t.Errorf("folder of files (-want +got):\n%s", diff)
	}
	if err := os.Symlink("round", at("round")); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(at("round"), text("")); err == nil || !strings.Contains(err.Error(), "too many levels") {
		t.Errorf("a ring of links: %v", err)
	}
}

func TestWriteFileWritesThroughWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		f, err := os.Open(fifo)
		if err != nil {
			got <- err.Error()
			return
		}
		defer f.Close()
		line, _ := bufio.NewReader(f).ReadString('\n')
		got <- line
	}()
	if err := WriteFile(fifo, text("through\n")); err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-got:
		if line != "through\n" {
			t.Errorf("the reader got %q", line)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the reader hangs")
	}
	if diff := cmp.Diff([]string{"fifo"}, names(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}

	null := filepath.Join(dir, "null")
	if err := os.Symlink(os.DevNull, null); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(null, text("x")); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(os.DevNull); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Fatalf("%v, %v", info, err)
	}

	// An open file by its number is written where it stands, as >> wants it.
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for _, name := range []string{"/dev/fd/%d", "/proc/self/fd/%d"} {
		if err := WriteFile(fmt.Sprintf(name, log.Fd()), text("line\n")); err != nil {
			t.Fatal(err)
		}
	}
	wantFile(t, log.Name(), "line\nline\n")
}

func TestCheckFileAndDir(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "file"), "kept")
	for _, c := range []struct{ path, file, folder string }{
		{"new", "", ""},
		{"file", "", "not a folder"},
		{".", "it is a folder", ""},
		{"no/new", "no such file", "no such file"},
		{"file/new", "not a directory", "not a directory"},
	} {
		for _, got := range []struct {
			err  error
			want string
		}{{CheckFile(filepath.Join(dir, c.path)), c.file}, {CheckDir(filepath.Join(dir, c.path)), c.folder}} {
			if (got.err == nil) != (got.want == "") || got.err != nil && (!strings.Contains(got.err.Error(), got.want) || strings.Contains(got.err.Error(), "tmp-")) {
				t.Errorf("%s: %v, want %q", c.path, got.err, got.want)
			}
		}
	}
	called := false
	err := WriteFile(dir, func(w io.Writer) error { called = true; return nil })
	if err == nil || called {
		t.Errorf("a folder: %v, called %v", err, called)
	}
	if diff := cmp.Diff([]string{"file"}, names(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
}

func TestSweepLeavesWhatIsBeingWritten(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	mustWrite(t, filepath.Join(dir, ".out.tmp-dead"), "x")
	mustWrite(t, filepath.Join(dir, ".outer.tmp-dead"), "x")
	if err := os.MkdirAll(filepath.Join(dir, ".out.tmp-deaddir", "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	err := WriteFile(out, func(w io.Writer) error {
		Sweep(out)
		return text("whole")(w)
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".outer.tmp-dead", "out"}, names(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
	err = WriteDir(filepath.Join(dir, "d"), func(tmp string) error {
		Sweep(filepath.Join(dir, "d"))
		return os.WriteFile(filepath.Join(tmp, "a"), nil, 0o600)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestOverlap(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	err := buildWith(map[string]string{"data.csv": "", "other.csv": "", "m/model.safetensors": "", "m/sub/vocab.txt": "", "m/rows.jsonl": "",
		"blobs/b": "", "run/best/adapter.bin": "", "run/metrics.csv": "", "elsewhere/x": ""})(dir)
	if err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"vectors.npy": "m/model.safetensors", "to-data": "data.csv", "to-m": "m", "hub": "m", "m/linked": "../blobs/b"} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"hard": "data.csv", "hard-weights": "m/model.safetensors"} {
		if err := os.Link(at(to), at(link)); err != nil {
			t.Fatal(err)
		}
	}
	open, err := os.Open(at("data.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	for _, c := range []struct {
		out, in string
		want    bool
	}{
		{"data.csv", "data.csv", true},
		{"./m/../data.csv", "data.csv", true},
		{"to-data", "data.csv", true},
		{"hard", "data.csv", true},
		{"data.csv", fmt.Sprintf("/proc/self/fd/%d", open.Fd()), true},
		{fmt.Sprintf("/dev/fd/%d", open.Fd()), "hard", true},
		{"other.csv", "data.csv", false},
		{"new", "data.csv", false},
		{"data.csv", "none", false},
		{os.DevNull, os.DevNull, false},
		{"m/model.safetensors", "m", true},
		{"to-m/model.safetensors", "m", true},
		{"m/sub/vocab.txt", "hub", true},
		{"hard-weights", "m", true},
		{"blobs/b", "m", true},
		{"blobs", "m", true}, // a folder that is replaced, of which m reads a file
		{"m/rows.jsonl", "m", false},
		{"vectors.npy", "m", true},
		{"m/new.safetensors", "m", false},
		{"m", "m", true},
		{"to-m", "m", true},
		{"run", "run/best", true},
		{"run", "run/best/adapter.bin", true},
		{"run/best", "run/metrics.csv", false},
		{"elsewhere", "m", false},
		{"run", "m", false},
	} {
		out, in := c.out, c.in
		for _, p := range []*string{&out, &in} {
			if !filepath.IsAbs(*p) {
				*p = at(*p)
			}
		}
		if got := Overlap(out, in); got != c.want {
			t.Errorf("Overlap(%s, %s) = %v", c.out, c.in, got)
		}
	}
}

func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".lock")
	mustWrite(t, path, "process 7 on an earlier host, with a long name\n")
	l, err := LockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var held *LockedError
	if _, err := LockFile(path); !errors.As(err, &held) || !strings.HasPrefix(held.Holder, fmt.Sprintf("process %d on ", os.Getpid())) || strings.Contains(held.Holder, "earlier") {
		t.Errorf("a second time: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if Exists(path) {
		t.Error("the file stays")
	}
	if l, err = LockFile(path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.Release(), (*Lock)(nil).Release()); err != nil {
		t.Error(err)
	}
	if _, err := LockFile(filepath.Join(t.TempDir(), "no", ".lock")); err == nil || errors.Is(err, ErrNoLocks) {
		t.Errorf("no folder: %v", err)
	}
}

// The values are of the CRC's definition (RFC 3720, B.4: 32 bytes of zeros, of ones).
func TestChecksum(t *testing.T) {
	for content, want := range map[string]string{strings.Repeat("\x00", 32): "8a9136aa", strings.Repeat("\xff", 32): "62a8ab43"} {
		s := NewSummer()
		if _, err := s.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
		if got := s.Sum(); got != (Checksum{32, want}) {
			t.Errorf("got %v, want %s", got, want)
		}
		path := filepath.Join(t.TempDir(), "a")
		mustWrite(t, path, content)
		if why, err := s.Sum().Compare(path); err != nil || why != "" {
			t.Errorf("%q, %v", why, err)
		}
		mustWrite(t, path, content[:31]+"x")
		if why, err := s.Sum().Compare(path); err != nil || !strings.Contains(why, "checksum") {
			t.Errorf("%q, %v", why, err)
		}
		mustWrite(t, path, content[:31])
		if why, err := s.Sum().Compare(path); err != nil || !strings.Contains(why, "31 bytes") {
			t.Errorf("%q, %v", why, err)
		}
	}
}
