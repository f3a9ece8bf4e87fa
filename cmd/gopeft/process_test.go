package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopeft/model/modeltest"
	"gopeft/train"
)

// start begins the program in a process of its own.
func start(t *testing.T, args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	t.Helper()
	cmd, stderr = exec.Command(os.Args[0], args...), &bytes.Buffer{}
	cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1")
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, stderr
}

// watchTemp gives the programs that are started from here on a folder of their own for temporary files, which has to
// stay empty.
func watchTemp(t *testing.T) (check func(when string)) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return func(when string) {
		t.Helper()
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("temporary files %s: %v, %v", when, entries, err)
		}
	}
}

// until waits for a condition that takes seconds at most.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > 2*time.Minute {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// endless are the settings of a run that ends only when it is told to.
func endless(t *testing.T) []string {
	data, _ := tokenRows(t, 60)
	return []string{"--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", data, "--epochs", "100000", "--checkpoint-every", "1", "--amp", "none", "--threads", "1"}
}

func stepOf(run string) int {
	p, err := train.ReadProgress(filepath.Join(run, "last", "state"))
	if err != nil {
		return 0
	}
	return p.Step
}

func TestCtrlCLeavesACheckpointAndExits130(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	cmd, stderr := start(t, append(append([]string{"train"}, endless(t)...), "--method", "lora", "--out", out)...)
	until(t, "a checkpoint", func() bool { return stepOf(out) >= 2 })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || !strings.Contains(stderr.String(), "--resume goes on") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	at := stepOf(out)
	code, _, text := gopeft(t, "", "train", "--resume", "--out", out, "--max-steps", "1")
	if code != exitFailed || !strings.Contains(text, "--max-steps") {
		t.Errorf("resumed with other settings: exit %d, %s", code, text)
	}
	if stepOf(out) != at || at < 2 {
		t.Errorf("the checkpoint is of step %d", at)
	}
}

func TestAKilledComparisonLeavesNoRunBehind(t *testing.T) {
	noTempFiles := watchTemp(t)
	out := filepath.Join(t.TempDir(), "cmp")
	cmd, _ := start(t, append(append([]string{"compare"}, endless(t)...), "--methods", "lora", "--out", out, "--quiet")...)
	until(t, "a checkpoint", func() bool { return stepOf(filepath.Join(out, "lora")) >= 2 })
	noTempFiles("while it runs")
	children := ""
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		if raw, err := os.ReadFile(path); err == nil {
			children += string(raw)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	pid, err := strconv.Atoi(strings.TrimSpace(children))
	if err != nil {
		t.Skipf("SKIPPED: this kernel does not list a process's children in /proc: %q", children)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	until(t, "the end of the run", func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(stat, []byte(") Z ")) // ended, whether or not anyone has asked
	})
	noTempFiles("when it was killed")
	entries, err := os.ReadDir(out)
	if err != nil || len(entries) != 3 { // compare.yaml, the run, and a lock that nobody holds
		t.Errorf("its folder holds %v, %v", entries, err)
	}
}

func TestComparePrintsOneObject(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long, of one thread; run without -short")
	}
	defer watchTemp(t)("when it was done")
	t.Setenv("GOPEFT_TEST_PROGRAM", "1") // its runs are processes of this program
	t.Setenv("GOPEFT_HOME", t.TempDir())
	data, _ := tokenRows(t, 60)
	stdout, _ := must(t, "", "compare", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", data, "--split", "0.7,0.3", "--methods", "logreg,bitfit",
		"--epochs", "1", "--no-train-eval", "--amp", "none", "--threads", "1", "--json", "--out", filepath.Join(t.TempDir(), "cmp"))
	var got struct {
		Results []map[string]any `json:"results"`
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || len(got.Results) != 2 {
		t.Fatalf("%v: %s", err, stdout)
	}
	r := got.Results[1]
	if r["method"] != "bitfit" || r["train_acc"] != nil || r["test_acc"] != nil || r["val_acc"] == nil || len(r) != 12 {
		t.Errorf("got %v", r)
	}
}

func TestCompareTellsWhatWentWrong(t *testing.T) {
	defer watchTemp(t)("when it had failed")
	t.Setenv("GOPEFT_TEST_PROGRAM", "1")
	tiny := modeltest.Testdata(t, "distilbert/tiny")
	good, text := tokenRows(t, 60)
	bad := filepath.Join(t.TempDir(), "bad.jsonl")
	if err := os.WriteFile(bad, []byte(text+"{\"label\": 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "cmp")
	code, _, stderr := gopeft(t, "", "compare", "--model", tiny, "--data", bad, "--methods", "bitfit,lora", "--out", out)
	if code != exitFailed || !strings.Contains(stderr, bad+": line 61") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("a bad row: exit %d, %s", code, stderr)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a run was begun")
	}
	for _, c := range []struct {
		want string
		code int
		args []string
	}{
		{"not finite", exitFailed, []string{"--optimizer", "sgd", "--lr", "1e30"}},
		{"--early-stop needs validation data", exitUsage, []string{"--train", good, "--early-stop", "1"}},
	} {
		args := append([]string{"compare", "--model", tiny, "--methods", "full", "--out", filepath.Join(t.TempDir(), "cmp"), "--quiet"}, c.args...)
		if c.args[0] != "--train" {
			args = append(args, "--data", good)
		}
		code, _, stderr := gopeft(t, "", args...)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		if last := lines[len(lines)-1]; code != c.code || len(lines) != 1 || !strings.HasPrefix(last, "gopeft: full: ") || !strings.Contains(last, c.want) {
			t.Errorf("%v: exit %d, %s", c.args, code, stderr)
		}
	}
}
