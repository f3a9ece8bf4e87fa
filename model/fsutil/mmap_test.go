package fsutil_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"gopeft/model/fsutil"
)

func TestMappedFileReadsAsItIs(t *testing.T) {
	want := make([]byte, 3<<20+17)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := fsutil.Map(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	var wg sync.WaitGroup
	for worker := range 4 { // enough reads that pages are given back under way
		wg.Go(func() {
			for i := range int64(2000) {
				from := (i*7919 + int64(worker)*977) % (m.Size() - 100)
				err := m.Read(from, from+100, func(b []byte) error {
					if !bytes.Equal(b, want[from:from+100]) {
						t.Errorf("other bytes at %d", from)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, r := range [][2]int64{{-1, 1}, {2, 1}, {0, m.Size() + 1}} {
		if err := m.Read(r[0], r[1], func([]byte) error { return nil }); err == nil {
			t.Errorf("bytes %v: no error", r)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestMappedFileThatIsOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	write := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "weights")
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, then, then); err != nil {
		t.Fatal(err)
	}
	open := func() *fsutil.Mapping {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		m, err := fsutil.MapPrivate(f)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := open()
	defer m.Close()
	if err := m.Unchanged(); err != nil {
		t.Error(err)
	}
	m.Bytes()[0] = 'x' // a page of its own
	if err := m.Unchanged(); err != nil {
		t.Error(err)
	}
	write(path+".new", "others")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := m.Unchanged(); err != nil || string(m.Bytes()) != "xeights" {
		t.Errorf("replaced: %q, %v", m.Bytes(), err)
	}
	other := open()
	defer other.Close()
	write(path, "OTHERS")
	if err := os.Chtimes(path, then, then); err != nil {
		t.Fatal(err)
	}
	if err := other.Unchanged(); err == nil || !strings.Contains(err.Error(), path+" was overwritten") {
		t.Errorf("overwritten: %v", err)
	}
}

func TestMapRefuses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, empty} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fsutil.Map(f); err == nil {
			t.Errorf("%s: no error", path)
		}
		f.Close()
	}
}

// Reading all of a large file at random places leaves little of it in memory.
func TestMappedFileDoesNotStayInMemory(t *testing.T) {
	const size = 320 << 20
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := fsutil.Map(f)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	before, ok := mappedKB(t)
	if !ok {
		t.Skip("/proc does not tell what files take of memory")
	}
	most := before
	for i := range int64(size >> 12) {
		from := i * 40503 % (size >> 12) << 12
		if err := m.Read(from, from+100, func(b []byte) error { most += int(b[0]); return nil }); err != nil {
			t.Fatal(err)
		}
		if i%256 == 0 {
			now, _ := mappedKB(t)
			most = max(most, now)
		}
	}
	if grown := (most - before) >> 10; grown > 100 {
		t.Errorf("%d MiB of a file of %d stayed in memory", grown, size>>20)
	}
}

// mappedKB is how much memory the files that the process has mapped take.
func mappedKB(t *testing.T) (kb int, ok bool) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, false
	}
	_, rest, ok := bytes.Cut(raw, []byte("RssFile:"))
	if ok {
		if _, err := fmt.Sscan(string(rest), &kb); err != nil {
			t.Fatal(err)
		}
	}
	return kb, ok
}
