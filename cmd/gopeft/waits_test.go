package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopeft/model/modeltest"
)

// Whatever a command waits for, a signal ends it, and nothing stays behind.
func TestSignalsEndACommandThatWaits(t *testing.T) {
	tiny, llama := modeltest.Testdata(t, "distilbert/tiny"), modeltest.Testdata(t, "llama/gqa")
	data, row := tokenRows(t, 3000)
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	row, _, _ = strings.Cut(row, "\n")
	for i, args := range []string{
		"predict --model " + tiny + " --data - --out " + dir + "/rows",
		"predict --model " + tiny + " --data " + fifo,
		"predict --model " + tiny + " --data " + data + " --out " + fifo, // nobody reads it
		"predict --model " + tiny + " --data " + data,                    // nor its standard output, once the pipe is full
		"eval --model " + tiny + " --data -",
		"embed --model " + tiny + " --data - --out " + dir + "/x.npy",
		"generate --model " + llama + " --prompts " + fifo,
		"train --model " + tiny + " --method lora --train " + fifo + " --out " + dir + "/run",
		"train --config " + fifo,
		"compare --config " + fifo,
		"merge --config " + fifo,
		"prepare --data " + fifo + " --out " + dir + "/parts",
		"train --nproc 2 --config /dev/stdin",
		"launch --nproc 2 -- bench --config /dev/stdin",
	} {
		sig := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}[i%3]
		said := ""
		// On a machine that is busy the program may not be there yet: it ends then without a word, as any program does.
		for wait := time.Second; said == "" && wait < 20*time.Second; wait *= 2 {
			said = signalled(t, strings.Fields(args), row+"\n"+row[:10], wait, sig)
		}
		if !strings.HasSuffix(said, "gopeft: interrupted\n") {
			t.Errorf("%s: %v: %q", args, sig, said)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 { // the pipe, and the settings of the run that did not begin
		t.Errorf("left: %v, %v", entries, err)
	}
}

// signalled starts the program, with some input, sends it a signal when it has had some time to come to where it waits, and
// returns what it said. It must end by itself.
func signalled(t *testing.T, args []string, input string, wait time.Duration, sig os.Signal) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(in, input)
	time.Sleep(wait)
	if err := cmd.Process.Signal(sig); err != nil {
		t.Errorf("%s: ended before it was told to: %v", args, err)
	}
	hung := time.AfterFunc(20*time.Second, func() {
		t.Errorf("%s: %v: it has not ended", args, sig)
		_ = cmd.Process.Kill()
	})
	_ = cmd.Wait()
	hung.Stop()
	in.Close()
	return stderr.String()
}

func TestSIGHUPLeavesACheckpoint(t *testing.T) {
	out := filepath.Join(t.TempDir(), "run")
	cmd, stderr := start(t, append(append([]string{"train"}, endless(t)...), "--method", "lora", "--out", out)...)
	until(t, "a checkpoint", func() bool { return stepOf(out) >= 2 })
	for range 2 { // a launcher and its supervisor may both tell it
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || !strings.Contains(stderr.String(), "--resume goes on") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}
