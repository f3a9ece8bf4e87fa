package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"gopeft/model/modeltest"
)

// pipeOf makes a named pipe that gives text to the first who opens it.
func pipeOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		if to, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			_, _ = io.WriteString(to, text)
			_ = to.Close()
		}
	}()
	return path
}

func TestSettingsThroughAPipeAreReadOnce(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var stderr bytes.Buffer
	code := program(ctx, []string{"gopeft", "train", "--config", pipeOf(t, "model: m\nmethod: magic\n")}, strings.NewReader(""), io.Discard, &stderr)
	if code != exitUsage || !strings.Contains(stderr.String(), `--method "magic"`) {
		t.Errorf("exit %d, %s", code, stderr.String())
	}
}

// Several processes cannot each read a pipe. Standard input is passed on to them, unless it was read before.
func TestSettingsThatProcessesCannotRead(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for args, stdin := range map[string]string{
		"train --nproc 2 --config FIFO":           "",
		"launch --nproc 2 -- train --config FIFO": "",
		"launch --nproc 2 -- bench --config=FIFO": "",
		"bench --nproc 2 --config FIFO":           "",
		"bench --nproc 2 --config /dev/stdin":     "steps: 3\n",
		"doctor --nproc 2 --config /dev/stdin":    "dist: true\n",
	} {
		fifo := "/dev/stdin"
		if strings.Contains(args, "FIFO") {
			fifo = pipeOf(t, "threads: 1\n")
		}
		cmd := exec.CommandContext(ctx, os.Args[0], strings.Fields(strings.ReplaceAll(args, "FIFO", fifo))...)
		cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1")
		cmd.Stdin = strings.NewReader(stdin)
		cmd.WaitDelay = time.Second // for processes of its own
		raw, err := cmd.CombinedOutput()
		if text, ok := oneError(string(raw)); err == nil || cmd.ProcessState.ExitCode() != exitUsage || !ok || !strings.HasPrefix(text, "--config "+fifo+" can be read once") {
			t.Errorf("%s: %v, %s", args, err, raw)
		}
	}
}

// How many processes there are to be stands in the settings that each of them reads.
func TestProcessesByAConfig(t *testing.T) {
	path := writeText(t, "doctor.yaml", "dist: true\nnproc: 2\ndevice: cpu\n")
	stdout := inProcess(t, "doctor", "--config", path)
	if !strings.Contains(stdout, "rank 0") || !strings.Contains(stdout, "rank 1") {
		t.Errorf("printed %q", stdout)
	}
}

func TestDoctorOfSeveralProcessesMeets(t *testing.T) {
	code, stdout, stderr := gopeft(t, "", "doctor", "--nproc", "2")
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "--dist") {
		t.Errorf("exit %d, %q, %s", code, stdout, stderr)
	}
}

// A file behind standard output is rank 0's own, which then knows what it is.
func TestProcessesDoNotPrintIntoTheirData(t *testing.T) {
	data, text := tokenRows(t, 4)
	out, err := os.OpenFile(data, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "launch", "--nproc", "2", "--", "predict", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", data, "--dist-timeout", "10s")
	cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1")
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &stderr
	_ = cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(stderr.String(), "standard output is --data") {
		t.Errorf("exit %d, %s", code, stderr.String())
	}
	if raw, err := os.ReadFile(data); err != nil || string(raw) != text {
		t.Errorf("the rows have changed: %v", err)
	}
}

// Only rank 0 writes the file: the others may not even see its folder.
func TestOtherRanksDoNotLookAtTheOutput(t *testing.T) {
	for rank, looks := range map[string]bool{"0": true, "1": false} {
		dir := t.TempDir()
		for name, value := range map[string]string{"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"} {
			t.Setenv(name, value)
		}
		code, _, stderr := gopeft(t, "", "predict", "--model", dir, "--data", dir, "--out", dir+"/no/x", "--dist-timeout", "1s")
		if code == exitDone || strings.HasPrefix(stderr, "gopeft: write "+dir) != looks {
			t.Errorf("rank %s: exit %d, %s", rank, code, stderr)
		}
	}
}

// What a comparison has found before it is interrupted is printed.
func TestAnInterruptedComparisonPrintsWhatItHas(t *testing.T) {
	out := filepath.Join(t.TempDir(), "cmp")
	data, _ := tokenRows(t, 60)
	// The second method ends only when it is told to.
	settings := writeText(t, "cmp.yaml", "methods: [bitfit, lora]\nepochs: 1\nsettings:\n  lora: {epochs: 100000}\n")
	args := []string{"compare", "--config", settings, "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", data, "--checkpoint-every", "1", "--amp", "none",
		"--threads", "1", "--out", out, "--quiet"}
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1")
	stdout, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer stdout.Close()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	until(t, "a checkpoint", func() bool { return stepOf(filepath.Join(out, "lora")) >= 2 })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	printed, err := os.ReadFile(stdout.Name())
	if code := cmd.ProcessState.ExitCode(); err != nil || code != exitInterrupted || !bytes.Contains(printed, []byte("bitfit")) || strings.Contains(stderr.String(), "canceled") {
		t.Errorf("exit %d, %s, printed %q, %v", code, stderr.String(), printed, err)
	}
}

// A list in --config's file is several files only where files can be several.
func TestAListOfOneValue(t *testing.T) {
	path := writeText(t, "list.yaml", "resume: [true, auto]\n")
	app := &cli.App{Flags: append(outFlags(), configFlag())}
	app.Action = flagsFromFile
	if err := app.RunContext(context.Background(), []string{"x", "--config", path}); err == nil || !strings.Contains(err.Error(), `"true,auto"`) {
		t.Errorf("got %v", err)
	}
}
