package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMain lets a test run the program in a process of its own.
func TestMain(m *testing.M) {
	switch os.Getenv("GOPEFT_TEST_PROGRAM") {
	case "":
	case "name":
		name, err := os.ReadFile("/proc/self/comm")
		fmt.Println(os.Getenv("GOMP_SPINCOUNT"), strings.TrimSpace(string(name)), err)
		os.Exit(0)
	case "dump": // it ends as Go's runtime does
		fmt.Fprint(os.Stderr, os.Args[1])
		os.Exit(2)
	case "ranks": // the processes that a launcher has started only say what they see
		if os.Getenv("RANK") != "" {
			os.Exit(rank(os.Args))
		}
		main()
	default:
		main()
	}
	os.Exit(m.Run())
}

// Lists of processes show the program by its own name, although it began twice.
func TestProgramKeepsItsName(t *testing.T) {
	cmd := exec.Command(os.Args[0], "doctor", "--json")
	cmd.Env = append(withoutOpenMP(), "GOPEFT_TEST_PROGRAM=name")
	out, err := cmd.CombinedOutput()
	name := filepath.Base(os.Args[0])
	if want := "1000 " + name[:min(len(name), 15)] + " <nil>\n"; err != nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

// withoutOpenMP is the environment without settings of OpenMP's threads.
func withoutOpenMP() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "GOMP_SPINCOUNT=") || strings.HasPrefix(v, "OMP_WAIT_POLICY=")
	})
}

// Beside another program spinning threads cost most of the time; what the user says of them holds.
func TestThreadsDoNotSpin(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	for set, want := range map[string]string{"": "GOMP_SPINCOUNT=1000", "GOMP_SPINCOUNT=7": "GOMP_SPINCOUNT=7", "OMP_WAIT_POLICY=active": "OMP_WAIT_POLICY=active"} {
		cmd := exec.Command(os.Args[0], "doctor", "--json")
		if cmd.Env = append(withoutOpenMP(), "GOPEFT_TEST_PROGRAM=1"); set != "" {
			cmd.Env = append(cmd.Env, set)
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"openmp": "`+want+`"`) {
			t.Errorf("with %q: %v, %s", set, err, out)
		}
	}
}

func TestHelpRunsBeforeLibtorchIsInitialised(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	// initialises reports whether the dynamic loader ran libtorch's initialisers, as its own log says.
	initialises := func(want string, args ...string) bool {
		t.Helper()
		folder := t.TempDir()
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1", "LD_DEBUG=files", "LD_DEBUG_OUTPUT="+filepath.Join(folder, "loader"))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("%v: %v, %s", args, err, out)
		}
		logs, err := filepath.Glob(filepath.Join(folder, "loader*"))
		if err != nil || len(logs) == 0 {
			t.Skip("this system's dynamic loader writes no log")
		}
		for _, path := range logs {
			log, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(log)) {
				if strings.Contains(line, "calling init:") && strings.Contains(line, "libtorch_cpu") {
					return true
				}
			}
		}
		return false
	}
	if !initialises("COMMANDS", "--help", "--help", "--help") { // not one of the early forms
		t.Fatal("the loader's log does not tell of libtorch's initialisers")
	}
	for _, args := range [][]string{{}, {"--help"}, {"-h"}, {"--version"}, {"train", "--help"}} {
		if initialises("gopeft", args...) {
			t.Errorf("%v waited for libtorch's initialisers", args)
		}
	}
	if code, _, _ := gopeft(t, "", "train", "--lr", "--help"); code != exitUsage {
		t.Errorf("a flag's value that reads --help: exit %d", code)
	}
}
