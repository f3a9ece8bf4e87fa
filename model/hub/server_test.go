package hub_test

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

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
