package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestMain lets a test run the program in a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("GOPEFT_TEST_PROGRAM") != "" {
		main()
	}
	os.Exit(m.Run())
}

func TestHelpRunsBeforeLibtorchIsInitialised(t *testing.T) {
	// start returns how many pages the process touched: its memory would count what it was forked from.
	start := func(want string, args ...string) (faults int64) {
		t.Helper()
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("%v: %v, %s", args, err, out)
		}
		return cmd.ProcessState.SysUsage().(*syscall.Rusage).Minflt
	}
	whole := start("COMMANDS", "--help", "--help", "--help") // not one of the early forms
	for _, args := range [][]string{{}, {"--help"}, {"-h"}, {"--version"}, {"train", "--help"}} {
		if faults := start("gopeft", args...); faults > whole/2 {
			t.Errorf("%v touched %d pages, with libtorch %d", args, faults, whole)
		}
	}
	if code, _, _ := gopeft(t, "", "train", "--lr", "--help"); code != exitUsage {
		t.Errorf("a flag's value that reads --help: exit %d", code)
	}
}
