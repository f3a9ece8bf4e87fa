// Package realdata finds the real models and data sets that some tests run on and the repository does not hold. It
// needs no libtorch, so that every package's tests can use it.
package realdata

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Root is the repository's top folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	t.Fatal("no go.mod above the test")
	return ""
}

// Shared is the path of a model or data set in the folder that GOPEFT_SHARED names (else ../shared/data, beside the
// checkout), which has models/, tokenizers/ and datasets/. Where it is not there the test is skipped, saying so.
func Shared(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("GOPEFT_SHARED")
	if dir == "" {
		dir = filepath.Join(Root(t), "..", "shared", "data")
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		t.Skipf("SKIPPED: %s is not there; set GOPEFT_SHARED to the folder with real models and data", path)
	}
	return path
}

// Demo is the path of what the demos fetch: "minilm" is a folder, "smollm2/FILE" a file of one. Where it was not
// fetched the test is skipped, saying how to.
func Demo(t testing.TB, name string) string {
	t.Helper()
	home := os.Getenv("GOPEFT_HOME")
	if home == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		home = filepath.Join(cache, "gopeft")
	}
	path := filepath.Join(home, "demo", filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		set, _, _ := strings.Cut(name, "/")
		t.Skipf("SKIPPED: %s is not there; `scripts/setup/demo-data.sh %s` fetches it", path, set)
	}
	return path
}
