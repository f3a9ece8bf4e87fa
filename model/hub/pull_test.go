package hub_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/hub"
)

func TestPullFillsTheUsualCache(t *testing.T) {
	s := newServer(t, model())
	c := s.client(t)
	var done, total int64
	c.Progress = func(d, all int64) { done, total = d, all }
	folder, err := c.Pull(context.Background(), repo, hub.ModelFiles)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(c.Cache, "models--org--name")
	if want := filepath.Join(dir, "snapshots", commit); folder != want {
		t.Errorf("folder %s, want %s", folder, want)
	}
	if got := read(t, filepath.Join(dir, "refs", "main")); got != commit {
		t.Errorf("refs/main is %q", got)
	}
	var names []string
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	for _, e := range entries {
		names = append(names, e.Name())
		path := filepath.Join(folder, e.Name())
		if got := read(t, path); got != s.files[e.Name()] {
			t.Errorf("%s has %d bytes", e.Name(), len(got))
		}
		if link, err := os.Readlink(path); err != nil || link != "../../blobs/"+hashOf(s.files[e.Name()]) {
			t.Errorf("%s links to %q, %v", e.Name(), link, err)
		}
		size += int64(len(s.files[e.Name()]))
	}
	if diff := cmp.Diff([]string{"config.json", "model.safetensors", "tokenizer.json"}, names); diff != "" {
		t.Error(diff)
	}
	if done != size || total != size {
		t.Errorf("progress ended at %d of %d, want %d", done, total, size)
	}
	// The second time nothing is downloaded, and offline nothing is asked.
	bodies := len(s.requests("BODY", ""))
	if _, err := c.Pull(context.Background(), repo, hub.ModelFiles); err != nil || len(s.requests("BODY", "")) != bodies {
		t.Errorf("again: %v, %d downloads, before %d", err, len(s.requests("BODY", "")), bodies)
	}
	s.Close()
	c.Offline = true
	if got, err := c.Pull(context.Background(), repo, hub.ModelFiles); err != nil || got != folder {
		t.Errorf("offline: %s, %v", got, err)
	}
	if got, err := c.Cached(repo, hub.WholeModel); err != nil || got != folder {
		t.Errorf("cached: %s, %v", got, err)
	}
	if _, err := c.Pull(context.Background(), hub.Repo{ID: "org/other"}, hub.ModelFiles); !errors.Is(err, hub.ErrOffline) {
		t.Errorf("offline, another: %v", err)
	}
}

func TestPullOfADataSet(t *testing.T) {
	s := newServer(t, map[string]string{"data/train-00000.parquet": strings.Repeat("p", 2000), "README.md": "x", "a file #1?.txt": "odd"})
	folder, err := s.client(t).Pull(context.Background(), hub.Repo{Kind: hub.Dataset, ID: "org/name"}, hub.AllFiles)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range s.files {
		if got := read(t, filepath.Join(folder, name)); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if !strings.Contains(folder, "datasets--org--name") {
		t.Error(folder)
	}
}

func TestCutDownloadsGoOn(t *testing.T) {
	s := newServer(t, model())
	s.cut["model.safetensors"], s.fail["config.json"] = 150_000, 2
	folder, err := s.client(t).Pull(context.Background(), repo, hub.ModelFiles)
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(folder, "model.safetensors")); got != s.files["model.safetensors"] {
		t.Errorf("%d bytes", len(got))
	}
	bodies := s.requests("BODY", "model.safetensors")
	if len(bodies) != 2 || !strings.Contains(bodies[1], "bytes=") || strings.HasSuffix(bodies[1], "bytes=0-") {
		t.Errorf("requests %q: the second should go on", bodies)
	}
	if n := len(s.requests("BODY", "config.json")); n != 3 {
		t.Errorf("%d requests for what fails twice", n)
	}
}

func TestInterruptedPullGoesOn(t *testing.T) {
	s := newServer(t, model())
	c := s.client(t)
	blobs := filepath.Join(c.Cache, "models--org--name", "blobs")
	if err := os.MkdirAll(blobs, 0o777); err != nil {
		t.Fatal(err)
	}
	etag := hashOf(s.files["model.safetensors"])
	if err := os.WriteFile(filepath.Join(blobs, etag+".incomplete"), []byte(s.files["model.safetensors"][:100_000]), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Pull(context.Background(), repo, hub.ModelFiles); err != nil {
		t.Fatal(err)
	}
	if got := s.requests("BODY", "model.safetensors"); len(got) != 1 || !strings.HasSuffix(got[0], "bytes=100000-") {
		t.Errorf("requests %q", got)
	}
	// What was there is not what belongs there: it comes anew.
	if err := os.Remove(filepath.Join(blobs, etag)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(blobs, etag+".incomplete"), []byte("something else"), 0o666); err != nil {
		t.Fatal(err)
	}
	folder, err := c.Pull(context.Background(), repo, hub.ModelFiles)
	if err != nil {
		t.Fatal(err)
	}
	if read(t, filepath.Join(folder, "model.safetensors")) != s.files["model.safetensors"] {
		t.Error("the file is damaged")
	}
}

func TestPullsAtTheSameTime(t *testing.T) {
	s := newServer(t, model())
	c := s.client(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := c.Pull(context.Background(), repo, hub.ModelFiles); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if n := len(s.requests("BODY", "model.safetensors")); n != 1 {
		t.Errorf("%d downloads of one file", n)
	}
}

func TestCancelledPullsEnd(t *testing.T) {
	s := newServer(t, model())
	ctx, cancel := context.WithCancel(context.Background())
	c := s.client(t)
	c.Progress = func(int64, int64) { cancel() }
	if _, err := c.Pull(ctx, repo, hub.ModelFiles); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestDamagedDownloadsAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, want string
		set        func(*server)
	}{
		{"another content", "its hash is", func(s *server) { s.etag = func(string) string { return strings.Repeat("a", 64) } }},
		{"another git hash", "its hash is", func(s *server) { s.etag = func(string) string { return strings.Repeat("a", 40) } }},
		{"more bytes than announced", "more than the 1500 bytes", func(s *server) { s.size = func(string) string { return "1500" } }},
		{"fewer bytes than announced", "bytes", func(s *server) { s.size = func(string) string { return "999999" } }},
		{"no size", "gives the size", func(s *server) { s.size = func(string) string { return "many" } }},
		{"no hash", "which is none", func(s *server) { s.etag = func(string) string { return "" } }},
		{"a hash that is a path", "which is none", func(s *server) { s.etag = func(string) string { return "../../../evil" } }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, map[string]string{"config.json": "{}", "model.safetensors": strings.Repeat("w", 2000)})
			c.set(s)
			client := s.client(t)
			_, err := client.Pull(context.Background(), repo, hub.ModelFiles)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got %v, want one line with %q", err, c.want)
			}
			if _, err := client.Cached(repo, nil); !errors.Is(err, hub.ErrNotCached) {
				t.Errorf("the cache has something: %v", err)
			}
		})
	}
}

func TestFileNamesStayInside(t *testing.T) {
	for _, name := range []string{"../evil", "/etc/passwd", "a/../../evil", "a//b", "", ".", "a\\..\\b", "x\x00y", "a/./b", strings.Repeat("n", 2000)} {
		s := newServer(t, nil)
		s.listing = func() any {
			return map[string]any{"sha": commit, "siblings": []map[string]string{{"rfilename": name}}}
		}
		_, err := s.client(t).Pull(context.Background(), repo, hub.AllFiles)
		if err == nil || !strings.Contains(err.Error(), "outside its folder") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, sha := range []string{"", "../../evil", "main"} {
		s := newServer(t, nil)
		s.listing = func() any { return map[string]any{"sha": sha} }
		if _, err := s.client(t).Pull(context.Background(), repo, hub.AllFiles); err == nil || !strings.Contains(err.Error(), "no commit") {
			t.Errorf("%q: %v", sha, err)
		}
	}
}
