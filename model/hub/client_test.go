package hub_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/hub"
)

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
