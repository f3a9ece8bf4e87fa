package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopeft/model/modeltest"
)

// limited is the program in so many MB of address space.
func limited(ctx context.Context, mb int, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `ulimit -v "$0" && exec "$@"`, fmt.Sprint(mb << 10), os.Args[0]}, args...)...)
	cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1")
	return cmd
}

// Wherever memory ends, that is one line.
func TestTooLittleAddressSpaceIsALine(t *testing.T) {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("SKIPPED: the race detector ends a program without memory in its own way")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	data, _ := tokenRows(t, 20)
	out := filepath.Join(t.TempDir(), "run")
	least := 128
	for ; limited(ctx, least, "--version").Run() != nil; least += 64 {
		if least > 1<<15 {
			t.Skip("SKIPPED: the program does not start under ulimit -v")
		}
	}
	ends := map[string]int{}
	for i := range 12 {
		mb := least + 50*i*i
		var stderr strings.Builder
		cmd := limited(ctx, mb, "train", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", data, "--method", "lora", "--epochs", "1", "--amp", "none", "--quiet", "--overwrite", "--out", out)
		cmd.Stderr = &stderr
		err := cmd.Run()
		said := stderr.String()
		switch code := cmd.ProcessState.ExitCode(); {
		case err == nil && said == "":
			ends["done"]++
		case code == exitFailed && strings.HasPrefix(said, "gopeft: ") && strings.Count(said, "\n") == 1 && len(said) <= 520:
			ends["line"]++
		default:
			t.Errorf("%d MB: %v, %q", mb, err, said)
		}
	}
	if ends["done"] == 0 || ends["line"] == 0 {
		t.Errorf("of the limits tried, %d were enough and %d too little", ends["done"], ends["line"])
	}
}

// Go's collector does not ask whether it was given memory for its queues, and ends by SIGSEGV. Any other such end is shown as it is.
func TestDumpsForWantOfMemoryAreALine(t *testing.T) {
	const dump = "SIGSEGV: segmentation violation\nPC=0x50175d m=6 sigcode=1 addr=0x0\n\ngoroutine 0 gp=0x2d17c91d0e0 m=6 mp=0x2d17cae4008 [idle]:\n"
	const glibc = "Fatal glibc error: failed to register TLS destructor: out of memory\nSIGABRT: abort\nPC=0x7f2df62a8eec m=8 sigcode=18446744073709551610\n"
	for dump, line := range map[string]bool{dump + "runtime.(*spanQueue).tryDrain(0x7f2600000400?, 0x509fa5?, 0x2967dc8?)\n": true, dump + "main.fold(0x0)\n": false, glibc: true} {
		cmd := limited(t.Context(), 1<<16, dump)
		cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=dump")
		said, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case !errors.As(err, &exit):
			t.Errorf("%q: %v, %q", dump, err, said)
		case line && (exit.ExitCode() != exitFailed || !strings.HasPrefix(string(said), "gopeft: no memory is left") || strings.Count(string(said), "\n") != 1):
			t.Errorf("exit %d, %q", exit.ExitCode(), said)
		case !line && (exit.ExitCode() != 2 || string(said) != dump):
			t.Errorf("exit %d, %q", exit.ExitCode(), said)
		}
	}
}

// The process that watches passes on what is said and how it ends, by signals too.
func TestAddressSpaceIsWatchedUnseen(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const enough = 1 << 16
	said, err := limited(ctx, enough, "inspect", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--method", "none").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitUsage || !strings.HasPrefix(string(said), "gopeft: ") {
		t.Errorf("%v: %s", err, said)
	}
	out := filepath.Join(t.TempDir(), "run")
	cmd := limited(ctx, enough, append(append([]string{"train"}, endless(t)...), "--method", "lora", "--out", out)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "a checkpoint", func() bool { return stepOf(out) >= 2 })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted || !strings.Contains(stderr.String(), "--resume goes on") {
		t.Errorf("%v: %s", err, stderr.String())
	}
}
