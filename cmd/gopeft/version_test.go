package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestVersionIsTheChangelogsNewestRelease(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "..", "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	newest := regexp.MustCompile(`(?m)^## \[(\d[^]]*)\] - \d{4}-\d\d-\d\d$`).FindSubmatch(raw)
	if newest == nil || string(newest[1]) != release {
		t.Fatalf("CHANGELOG.md's newest release is %q, the program's %q", newest, release)
	}
	code, out, _ := gopeft(t, "", "--version")
	if first := strings.TrimSpace(out); code != exitDone || first != "gopeft version "+version() || !strings.HasPrefix(version(), release) {
		t.Errorf("exit %d, %q", code, out)
	}
}
