package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// torchrun finds PyTorch's launcher: what GOPEFT_TORCHRUN names, else the one on PATH, else that of the environment in
// which scripts/goldens.sh makes the fixtures.
func torchrun(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("GOPEFT_TORCHRUN"); path != "" {
		return path
	}
	if path, err := exec.LookPath("torchrun"); err == nil {
		return path
	}
	home := os.Getenv("GOPEFT_HOME")
	if home == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		home = filepath.Join(cache, "gopeft")
	}
	path := filepath.Join(home, "goldens-venv", "bin", "torchrun")
	if _, err := os.Stat(path); err != nil {
		t.Skip("SKIPPED: there is no torchrun on PATH, in GOPEFT_TORCHRUN or in the environment of scripts/goldens.sh: PyTorch's own launcher is not tested here")
	}
	return path
}

// underTorchrun begins args in two processes.
func underTorchrun(t *testing.T, path string, options []string, args ...string) (cmd *exec.Cmd, said *bytes.Buffer) {
	t.Helper()
	command := slices.Concat([]string{path, "--nproc-per-node", "2", "--no-python"}, options, []string{os.Args[0]}, args)
	cmd, said = programAt(command, "PYTHONWARNINGS=ignore"), &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	within := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() { within.Stop() })
	return cmd, said
}

// freePort is one that nobody listens on at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	socket := freeSocket(t)
	defer socket.Close()
	return strconv.Itoa(portOf(socket))
}

func TestTorchrunStartsProcesses(t *testing.T) {
	t.Parallel()
	path := torchrun(t)
	data, _ := tokenRows(t, 60)
	args := append(tinyRun(data), "--model", tinyModel(t), "--dist-timeout", "1m")
	whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "run")
	trainWhole(t, 2, append(args[:len(args):len(args)], "--out", whole)...)
	cmd, said := underTorchrun(t, path, []string{"--master-port", freePort(t)}, append(args[:len(args):len(args)], "--out", out)...)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	sameWeights(t, out, whole, 0)
	if n := strings.Count(said.String(), "results in "+out); n != 1 {
		t.Errorf("its results are there %d times: %s", n, said)
	}
}

// Where a process is killed torchrun starts all again, and they go on from the last checkpoint.
func TestTorchrunStartsAgain(t *testing.T) {
	t.Parallel()
	path := torchrun(t)
	data, _ := tokenRows(t, 60)
	args := append(tinyRun(data), "--model", tinyModel(t), "--dist-timeout", "1m", "--epochs", "15")
	whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "run")
	trainWhole(t, 2, append(args[:len(args):len(args)], "--out", whole)...)
	options := []string{"--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--rdzv-id", "again", "--max-restarts", "1", "--monitor-interval", "0.1"}
	cmd, said := underTorchrun(t, path, options, append(args[:len(args):len(args)], "--out", out, "--resume=auto")...)
	until(t, "a checkpoint", func() bool { return stepOf(out) >= 2 })
	pid := rankProcess(1, "TORCHELASTIC_RESTART_COUNT=0\x00", out)
	if pid == 0 {
		t.Fatal("rank 1 is not found")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	at := stepOf(out)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	if !strings.Contains(said.String(), "results in "+out) || strings.Contains(said.String(), "terminate") {
		t.Errorf("it said %s", said)
	}
	sameWeights(t, out, whole, 0)
	t.Logf("rank 1 was killed at step %d: %s", at, said)
}

// Each process says why it fails, and tells torchrun, which shows that once more.
func TestTorchrunShowsTheReason(t *testing.T) {
	t.Parallel()
	path := torchrun(t)
	cmd, said := underTorchrun(t, path, []string{"--master-port", freePort(t)}, "train", "--model", tinyModel(t), "--method", "lora", "--data", "no-such-file.jsonl", "--out", filepath.Join(t.TempDir(), "run"))
	if err := cmd.Wait(); err == nil || strings.Count(said.String(), "no-such-file.jsonl") < 3 {
		t.Errorf("%v: %s", err, said)
	}
}
