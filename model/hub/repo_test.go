package hub_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gopeft/model/hub"
)

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
