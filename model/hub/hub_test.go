package hub_test

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/hub"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// server is a hub on loopback. Files of more than 1000 bytes are large: they redirect to another host, as the
// real hub does to its store.
type server struct {
	*httptest.Server
	store *httptest.Server
	mu    sync.Mutex
	files map[string]string
	asked []string // method, path, and range of each request
	keys  []string // Authorization that the store saw

	token    string                          // what the hub demands, "" for nothing
	etag     func(name string) string        // nil: the true one
	cut      map[string]int                  // bytes after which the first download of a file is cut
	fail     map[string]int                  // how often a file is answered with 503 first
	listing  func() any                      // nil: the true one
	size     func(name string) string        // nil: the true one
	redirect func(name string) string        // where large files are; nil: the store
	code     func(path string) (int, string) // status and error code to answer with; 0: none
}

func newServer(t *testing.T, files map[string]string) *server {
	s := &server{files: files, cut: map[string]int{}, fail: map[string]int{}}
	s.Server = httptest.NewServer(http.HandlerFunc(s.hub))
	s.store = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.keys = append(s.keys, r.Header.Get("Authorization"))
		s.mu.Unlock()
		s.content(w, r, strings.TrimPrefix(r.URL.Path, "/store/"))
	}))
	t.Cleanup(s.Close)
	t.Cleanup(s.store.Close)
	return s
}

func (s *server) requests(method, name string) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.asked {
		if strings.HasPrefix(a, method+" ") && strings.Contains(a, name) {
			out = append(out, a)
		}
	}
	return out
}

func hashOf(text string) string {
	if len(text) > 1000 {
		return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))
	}
	return fmt.Sprintf("%x", sha1.Sum([]byte(fmt.Sprintf("blob %d\x00%s", len(text), text))))
}

func (s *server) hub(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
	s.mu.Unlock()
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if s.code != nil {
		if status, code := s.code(r.URL.Path); status != 0 {
			w.Header().Set("X-Error-Code", code)
			w.WriteHeader(status)
			return
		}
	}
	path := strings.TrimPrefix(r.URL.Path, "/datasets")
	switch {
	case strings.HasPrefix(path, "/api/"):
		if s.listing != nil {
			_ = json.NewEncoder(w).Encode(s.listing())
			return
		}
		type file struct {
			Name string `json:"rfilename"`
		}
		var files []file
		for name := range s.files {
			files = append(files, file{name})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"sha": commit, "siblings": files})
	case strings.HasPrefix(path, "/org/name/resolve/"+commit+"/"):
		name := strings.TrimPrefix(path, "/org/name/resolve/"+commit+"/")
		text, ok := s.files[name]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		etag, size := hashOf(text), strconv.Itoa(len(text))
		if s.etag != nil {
			etag = s.etag(name)
		}
		if s.size != nil {
			size = s.size(name)
		}
		if len(text) > 1000 {
			w.Header().Set("X-Linked-Etag", `"`+etag+`"`)
			w.Header().Set("X-Linked-Size", size)
			to := s.store.URL + "/store/" + name
			if s.redirect != nil {
				to = s.redirect(name)
			}
			http.Redirect(w, r, to, http.StatusFound)
			return
		}
		w.Header().Set("Etag", `W/"`+etag+`"`)
		s.content(w, r, name)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// content serves a file with ranges, failing and cutting as told.
func (s *server) content(w http.ResponseWriter, r *http.Request, name string) {
	text := s.files[name]
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		return
	}
	s.mu.Lock()
	s.asked = append(s.asked, "BODY "+name+" "+r.Header.Get("Range"))
	cut, isCut := s.cut[name]
	delete(s.cut, name)
	failing := s.fail[name] > 0
	s.fail[name]--
	s.mu.Unlock()
	if failing {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var from int
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); n == 1 {
		if from >= len(text) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(text)-1, len(text)))
		w.Header().Set("Content-Length", strconv.Itoa(len(text)-from))
		w.WriteHeader(http.StatusPartialContent)
	} else {
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	}
	if isCut {
		_, _ = w.Write([]byte(text[from:cut]))
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write([]byte(text[from:]))
}

func (s *server) client(t *testing.T) *hub.Client {
	return &hub.Client{Endpoint: s.URL, Cache: t.TempDir(), Wait: func(int) time.Duration { return time.Millisecond }}
}

var repo = hub.Repo{ID: "org/name"}

func model() map[string]string {
	return map[string]string{
		"config.json": `{"model_type": "distilbert"}`, "model.safetensors": strings.Repeat("weights!", 50_000), "pytorch_model.bin": "old",
		"tokenizer.json": "{}", "README.md": "# name", "onnx/model.onnx": "onnx", "flax_model.msgpack": "flax", ".gitattributes": "",
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

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

func TestTheTokenGoesToTheHubAlone(t *testing.T) {
	s := newServer(t, model())
	s.token = "secret"
	c := s.client(t)
	if _, err := c.Pull(context.Background(), repo, hub.ModelFiles); err == nil || !strings.Contains(err.Error(), "set HF_TOKEN") {
		t.Errorf("without a token: %v", err)
	}
	c.Token = "wrong"
	if _, err := c.Pull(context.Background(), repo, hub.ModelFiles); err == nil || !strings.Contains(err.Error(), "refuses HF_TOKEN") {
		t.Errorf("with a wrong token: %v", err)
	}
	c.Token = "secret"
	if _, err := c.Pull(context.Background(), repo, hub.ModelFiles); err != nil {
		t.Fatal(err)
	}
	if len(s.keys) == 0 || slices.ContainsFunc(s.keys, func(k string) bool { return k != "" }) {
		t.Errorf("the store saw %q", s.keys)
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		name, want string
		status     int
		code       string
		at         string
	}{
		{"missing", "no such model, or it is private", 404, "", "/api/"},
		{"hidden", "no such model, or it is private", 401, "RepoNotFound", "/api/"},
		{"gated", "is gated: accept its terms on", 403, "GatedRepo", "resolve"},
		{"revision", `no revision "main"`, 404, "RevisionNotFound", "/api/"},
		{"overloaded", "HTTP 503", 503, "", "/api/"},
		{"teapot", "HTTP 418", 418, "", "resolve"},
	} {
		s := newServer(t, model())
		s.code = func(path string) (int, string) {
			if strings.Contains(path, c.at) {
				return c.status, c.code
			}
			return 0, ""
		}
		_, err := s.client(t).Pull(context.Background(), repo, hub.ModelFiles)
		var refused *hub.StatusError
		if !errors.As(err, &refused) || refused.Status != c.status || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	c := &hub.Client{Endpoint: "http://127.0.0.1:1", Cache: t.TempDir(), Wait: func(int) time.Duration { return 0 }}
	if _, err := c.Pull(context.Background(), repo, hub.ModelFiles); err == nil || !strings.Contains(err.Error(), "cannot reach the hub at http://127.0.0.1:1") {
		t.Errorf("no hub: %v", err)
	}
	s := newServer(t, map[string]string{"weights.pickle": "x"})
	if _, err := s.client(t).Pull(context.Background(), repo, hub.ModelFiles); err == nil || !strings.Contains(err.Error(), "it has weights.pickle") {
		t.Errorf("nothing to use: %v", err)
	}
}

func TestRedirectLoopsEnd(t *testing.T) {
	s := newServer(t, model())
	s.redirect = func(name string) string { return s.URL + "/org/name/resolve/" + commit + "/" + name }
	if _, err := s.client(t).Pull(context.Background(), repo, hub.ModelFiles); err == nil || !strings.Contains(err.Error(), "redirects") {
		t.Errorf("got %v", err)
	}
}

func TestStandstillIsACut(t *testing.T) {
	release := make(chan struct{})
	files := model()
	s := newServer(t, files)
	first := true
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if first {
			first = false
			w.Header().Set("Content-Length", strconv.Itoa(len(files["model.safetensors"])))
			_, _ = w.Write([]byte(files["model.safetensors"][:10_000]))
			w.(http.Flusher).Flush()
			<-release
			return
		}
		s.content(w, r, "model.safetensors")
	}))
	defer slow.Close()
	defer close(release)
	s.redirect = func(string) string { return slow.URL }
	c := s.client(t)
	c.Stall = 50 * time.Millisecond
	folder, err := c.Pull(context.Background(), repo, hub.ModelFiles)
	if err != nil {
		t.Fatal(err)
	}
	if read(t, filepath.Join(folder, "model.safetensors")) != files["model.safetensors"] {
		t.Error("the file is damaged")
	}
}

// A hub that takes the question and says nothing.
func TestASilentHubIsAskedAgain(t *testing.T) {
	release := make(chan struct{})
	var asked atomic.Int32
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		<-release
	}))
	defer silent.Close()
	defer close(release)
	c := &hub.Client{Endpoint: silent.URL, Cache: t.TempDir(), Stall: 20 * time.Millisecond, Wait: func(int) time.Duration { return 0 }}
	if _, err := c.Pull(context.Background(), repo, hub.ModelFiles); err == nil || asked.Load() < 2 {
		t.Errorf("asked %d times, %v", asked.Load(), err)
	}
}

func TestWholeModel(t *testing.T) {
	for _, c := range []struct {
		files string
		want  bool
	}{
		{"config.json model.safetensors", true},
		{"config.json", false},
		{"model.safetensors", false},
		{"config.json model.safetensors.index.json", false},
		{"config.json model.safetensors.index.json model-00001-of-00002.safetensors", false},
		{"config.json model.safetensors.index.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors", true},
		{"config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors", false},
		{"config.json pytorch_model.bin.index.json pytorch_model-00001-of-00001.bin", true},
		{"adapter_config.json adapter_model.safetensors", true},
		{"x.gguf", true},
	} {
		if got := hub.WholeModel(strings.Fields(c.files)); got != c.want {
			t.Errorf("%s: %t", c.files, got)
		}
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

func TestFindsWhatTransformersFetched(t *testing.T) {
	c := &hub.Client{Cache: t.TempDir()}
	dir := filepath.Join(c.Cache, "models--org--name")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("refs/main", commit+"\n")
	write("snapshots/"+commit+"/config.json", "{}")
	if _, err := c.Cached(repo, hub.WholeModel); !errors.Is(err, hub.ErrNotCached) {
		t.Errorf("without weights: %v", err)
	}
	if err := os.Symlink("../../blobs/gone", filepath.Join(dir, "snapshots", commit, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Cached(repo, hub.WholeModel); !errors.Is(err, hub.ErrNotCached) {
		t.Errorf("with a dangling link: %v", err)
	}
	write("blobs/gone", "w")
	folder, err := c.Cached(repo, hub.WholeModel)
	if err != nil || filepath.Base(folder) != commit {
		t.Errorf("%s, %v", folder, err)
	}
	if got, err := c.Cached(hub.Repo{ID: "org/name", Revision: commit}, nil); err != nil || got != folder {
		t.Errorf("by commit: %s, %v", got, err)
	}
	write("refs/main", "../../..")
	if _, err := c.Cached(repo, nil); err == nil || !strings.Contains(err.Error(), "names no commit") {
		t.Errorf("a reference that is a path: %v", err)
	}
	if _, err := c.Cached(hub.Repo{ID: "org/name", Revision: "../../x"}, nil); err == nil || !strings.Contains(err.Error(), "not a revision") {
		t.Errorf("a revision that is a path: %v", err)
	}
}

func TestNames(t *testing.T) {
	for id, want := range map[string]bool{
		"distilbert-base-uncased": true, "org/name": true, "meta-llama/Llama-3.2-1B": true, "a/b/c": false, "": false, "../x": false,
		"a/..": false, "/abs": false, "./x": false, "a b": false, "a--b/c": false, "x/": false, "~": false, "a/b.": false,
	} {
		if got := hub.ValidID(id); got != want {
			t.Errorf("%q: %t", id, got)
		}
	}
}

func TestModelFiles(t *testing.T) {
	for _, c := range []struct{ has, want []string }{
		{[]string{"config.json", "pytorch_model.bin", "tf_model.h5"}, []string{"config.json", "pytorch_model.bin"}},
		{[]string{"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json", "pytorch_model.bin"},
			[]string{"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}},
		{[]string{"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"}, []string{"adapter_config.json", "adapter_model.safetensors"}},
		{[]string{"m.Q4.gguf"}, []string{"m.Q4.gguf"}},
		{[]string{"m.Q4.gguf", "m.Q8.gguf"}, nil},
	} {
		if diff := cmp.Diff(c.want, hub.ModelFiles(c.has)); diff != "" {
			t.Errorf("%v: %s", c.has, diff)
		}
	}
}

func TestFromEnv(t *testing.T) {
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".cache/huggingface"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".cache/huggingface/token"), []byte("of-the-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	type got struct {
		Endpoint, Cache, Token string
		Offline                bool
	}
	for _, c := range []struct {
		env  map[string]string
		want got
	}{
		{nil, got{"https://huggingface.co", home + "/.cache/huggingface/hub", "of-the-file", false}},
		{map[string]string{"HF_HOME": "~/hf", "HF_TOKEN": " t ", "HF_HUB_OFFLINE": "yes", "HF_ENDPOINT": "http://mirror/"}, got{"http://mirror", home + "/hf/hub", "t", true}},
		{map[string]string{"XDG_CACHE_HOME": "/x", "TRANSFORMERS_OFFLINE": "1"}, got{"https://huggingface.co", "/x/huggingface/hub", "", true}},
		{map[string]string{"HF_HUB_CACHE": "/c", "HF_HUB_OFFLINE": "0"}, got{"https://huggingface.co", "/c", "of-the-file", false}},
	} {
		client, err := hub.FromEnv(func(n string) string {
			if n == "HOME" {
				return home
			}
			return c.env[n]
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got{client.Endpoint, client.Cache, client.Token, client.Offline}); diff != "" {
			t.Errorf("%v: %s", c.env, diff)
		}
	}
	for _, env := range []map[string]string{{}, {"HOME": "/h", "HF_ENDPOINT": "mirror"}, {"HOME": "/h", "HF_TOKEN": "a\nb"}} {
		if _, err := hub.FromEnv(func(n string) string { return env[n] }); err == nil {
			t.Errorf("%v is accepted", env)
		}
	}
}
