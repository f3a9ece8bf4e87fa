package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/model/modeltest"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

// serveHub is a hub that holds the files of a folder as org/name, and the environment that points to it.
func serveHub(t *testing.T, folder string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch name, ok := strings.CutPrefix(r.URL.Path, "/org/name/resolve/"+commit+"/"); {
		case r.URL.Path == "/api/models/org/name/revision/main":
			entries, err := os.ReadDir(folder)
			if err != nil {
				t.Error(err)
			}
			var files []map[string]string
			for _, e := range entries {
				files = append(files, map[string]string{"rfilename": e.Name()})
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"sha": commit, "siblings": files})
		case ok:
			raw, err := os.ReadFile(filepath.Join(folder, name))
			if err != nil {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("Etag", fmt.Sprintf("%q", fmt.Sprintf("%x", sha256.Sum256(raw))))
			w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
			if r.Method == http.MethodGet {
				_, _ = w.Write(raw)
			}
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("HF_ENDPOINT", s.URL)
	t.Setenv("HF_HOME", t.TempDir())
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		t.Setenv(name, "")
	}
	return s
}

func TestPull(t *testing.T) {
	serveHub(t, modeltest.Testdata(t, "distilbert/tiny"))
	stdout, _ := must(t, "", "pull", "org/name", "--quiet")
	folder := strings.TrimSpace(stdout)
	if !strings.HasSuffix(folder, "models--org--name/snapshots/"+commit) || !exists(filepath.Join(folder, "model.safetensors")) || exists(filepath.Join(folder, "golden.safetensors")) {
		t.Errorf("printed %q", stdout)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"pull"}, exitUsage, "one name"},
		{[]string{"pull", "a", "b"}, exitUsage, "one name"},
		{[]string{"pull", "../x"}, exitUsage, "not a name on the hub"},
		{[]string{"pull", "org/name", "--kind", "space"}, exitUsage, "--kind"},
		{[]string{"pull", "--kind", "dataset", "org/name"}, exitFailed, "no such dataset"},
		{[]string{"pull", "org/nothing"}, exitFailed, "no such model"},
		{[]string{"pull", "org/name", "--include", "*.onnx"}, exitFailed, "none of the files wanted"},
	} {
		if code, _, stderr := gopeft(t, "", c.args...); code != c.code || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: exit %d, %s", c.args, code, stderr)
		}
	}
}

func TestModelsByTheirNameOnTheHub(t *testing.T) {
	hub := serveHub(t, modeltest.Testdata(t, "distilbert/tiny"))
	path, text := tokenRows(t, 40)
	out := filepath.Join(t.TempDir(), "run")
	_, stderr := must(t, "", "train", "--model", "org/name", "--method", "lora", "--data", path, "--out", out, "--epochs", "1", "--amp", "none")
	if !strings.Contains(stderr, "fetching it from "+hub.URL) {
		t.Errorf("nothing said of the hub: %s", stderr)
	}
	hub.Close()
	// From here on the cache serves, and the run's folder names the model as it was named.
	byRun, stderr := must(t, text, "predict", "--model", out, "--data", "-")
	byName, _ := must(t, text, "predict", "--model", "org/name", "--adapter", filepath.Join(out, "best"), "--data", "-")
	if byRun != byName || byRun == "" || strings.Contains(stderr, "fetching") {
		t.Errorf("%q and %q; %s", byRun, byName, stderr)
	}
	raw, err := os.ReadFile(filepath.Join(out, "best", "adapter_config.json"))
	if err != nil || !strings.Contains(string(raw), `"base_model_name_or_path": "org/name"`) {
		t.Errorf("%v: %s", err, raw)
	}
	t.Setenv("HF_HUB_OFFLINE", "1")
	must(t, "", "inspect", "--model", "org/name")
	for name, want := range map[string]string{"org/other": "HF_HUB_OFFLINE", "./no/such/folder": "no such folder or file"} {
		code, _, stderr := gopeft(t, "", "inspect", "--model", name)
		if code != exitFailed || !strings.Contains(stderr, want) || strings.Count(strings.TrimSpace(stderr), "\n") > 0 {
			t.Errorf("%s: exit %d, %s", name, code, stderr)
		}
	}
}
