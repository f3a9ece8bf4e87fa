package inputs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sparse makes a file of a size that takes no room on the disk.
func sparse(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Large files are hashed while the run goes on; what has to be known before a checkpoint is waited for there.
func TestLargeFilesAreHashedInTheBackground(t *testing.T) {
	t.Setenv("GOPEFT_HOME", t.TempDir())
	model, out := t.TempDir(), t.TempDir()
	sparse(t, filepath.Join(model, "model.safetensors"), 400<<20)
	sparse(t, filepath.Join(model, "tokenizer.json"), 1<<20)
	sparse(t, filepath.Join(model, "notes.txt"), 1)
	now, err := Find(model, "")
	if err != nil || len(now.Files) != 2 {
		t.Fatalf("%+v, %v", now, err)
	}
	w, err := Begin(context.Background(), out, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.done:
		t.Error("Begin has waited for the weights")
	default:
	}
	if early, err := Read(out); err != nil || early == nil || early.hashOf("model/tokenizer.json") == "" || early.hashOf("model/model.safetensors") != "" {
		t.Errorf("the first record: %+v, %v", early, err)
	}
	if err := w.Settle(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	was, err := Read(out)
	if err != nil {
		t.Fatal(err)
	}
	// sha256sum's of 400 MiB of zeros
	if got := was.hashOf("model/model.safetensors"); got != "6ed5e85372e488807486f4446e2a3a501d319be812e969e3de426db798cc5704" {
		t.Errorf("hash %q", got)
	}

	// Same size, other content: found by Settle, and not before.
	f, err := os.OpenFile(filepath.Join(model, "model.safetensors"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{1}, 300<<20)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	if now, err = Find(model, ""); err != nil {
		t.Fatal(err)
	}
	if w, err = Begin(context.Background(), out, now, was); err != nil {
		t.Fatal(err)
	}
	var changed *ChangedError
	if err := w.Settle(); !errors.As(err, &changed) {
		t.Errorf("got %v", err)
	}
	w.Close()
	if again, err := Read(out); err != nil || again.hashOf("model/model.safetensors") != was.hashOf("model/model.safetensors") {
		t.Errorf("the record was replaced: %v", err)
	}
	// An interrupted run does not wait.
	ctx, cancel := context.WithCancel(context.Background())
	if w, err = Begin(ctx, out, now, was); err != nil {
		t.Fatal(err)
	}
	cancel()
	begun := time.Now()
	if err := w.Settle(); err != nil || time.Since(begun) > 500*time.Millisecond {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	w.Close()
}

func TestHashesAreRemembered(t *testing.T) {
	home := t.TempDir()
	t.Setenv("GOPEFT_HOME", home)
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-4's example
	if got, err := Hash(context.Background(), path); err != nil || got != abc {
		t.Errorf("%s, %v", got, err)
	}
	if names, _ := filepath.Glob(filepath.Join(home, "hashes", "*")); len(names) != 0 {
		t.Errorf("a file that may still change is remembered: %v", names)
	}
	id, err := identify(path)
	if err != nil {
		t.Fatal(err)
	}
	stale := remembered(identity{})
	remember(stale, "old")
	long := time.Now().Add(-2 * forgotten)
	if err := os.Chtimes(stale, long, long); err != nil {
		t.Fatal(err)
	}
	other := "00" + abc[2:]
	remember(remembered(id), other)
	if got, err := Hash(context.Background(), path); err != nil || got != other {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := os.Stat(stale); err == nil {
		t.Error("what nobody asks for stays")
	}
}

// An interrupted run does not wait for the hashes, which may be written while Settle looks at the files: for the race detector.
func TestSettleWhileFilesAreHashed(t *testing.T) {
	t.Setenv("GOPEFT_HOME", t.TempDir())
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	w := &Watch{ctx: ended, done: make(chan struct{})}
	dir := t.TempDir()
	for i := range 300 {
		path := filepath.Join(dir, strconv.Itoa(i))
		sparse(t, path, 1)
		id, err := identify(path)
		if err != nil {
			t.Fatal(err)
		}
		w.now.Files = append(w.now.Files, File{identity: id, path: path})
	}
	hashed := make(chan error)
	go func() { hashed <- w.hash(context.Background(), func(File) bool { return true }) }()
	for range 20 {
		if err := w.Settle(); err != nil {
			t.Error(err)
		}
	}
	if err := <-hashed; err != nil {
		t.Error(err)
	}
}

func TestRecordHash(t *testing.T) {
	t.Setenv("GOPEFT_HOME", t.TempDir())
	dir := t.TempDir()
	hash := func() string {
		t.Helper()
		r, err := Find(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		sum, err := r.Hash(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	seen := map[string]string{}
	for _, name := range []string{"config.json", "model.safetensors", "vocab.json", "merges.txt", "chat_template.jinja", "model.safetensors.index.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		sum := hash()
		if was, ok := seen[sum]; ok {
			t.Errorf("with %s the hash is that with %s", name, was)
		}
		seen[sum] = name
	}
	before := hash()
	if err := os.WriteFile(filepath.Join(dir, "README.md"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if hash() != before {
		t.Error("a file that is not read counts")
	}
}

func TestOnlyFilesAreHashed(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	device := filepath.Join(dir, "device")
	if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.Symlink("/dev/zero", device)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, device, dir} {
		done := make(chan error, 1)
		go func() {
			_, err := Hash(context.Background(), path)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v", path, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s is read", path)
		}
	}
}
