package bindings_test

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"gopeft/bindings"
)

// again runs tests of this package in a process of its own, in which our kernels take another path.
func again(t *testing.T, path, tests string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+tests)
	cmd.Env = append(os.Environ(), "GOPEFT_CPU="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("GOPEFT_CPU=%s: %v\n%s", path, err, out)
	}
}

// Every test of this package holds on each path that this CPU could take.
func TestEveryPath(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	if os.Getenv("GOPEFT_CPU") != "" {
		return // this process is one of those that run below, or all tests are to run on one path
	}
	paths := []string{"avx512", "avx2", "none"} // each needs less than the one before
	best := slices.Index(paths, bindings.CPUPath())
	if best < 0 {
		t.Fatalf("the path is %q", bindings.CPUPath())
	}
	for _, path := range paths[best+1:] {
		t.Run(path, func(t *testing.T) { again(t, path, ".") })
	}
}

func TestPathIsTheOneAskedFor(t *testing.T) {
	if want := os.Getenv("GOPEFT_CPU"); want != "" && want != "sse" && bindings.CPUPath() != want {
		t.Errorf("GOPEFT_CPU=%s, and the path is %s", want, bindings.CPUPath())
	}
}

func TestUnknownPathIsAnError(t *testing.T) {
	switch os.Getenv("GOPEFT_CPU") {
	case "":
		again(t, "sse", "^TestUnknownPathIsAnError$")
	case "sse":
		err := bindings.Do(context.Background(), func(*Scope) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "GOPEFT_CPU=sse") || !strings.Contains(err.Error(), "avx2") {
			t.Errorf("the error is %v", err)
		}
	}
}
