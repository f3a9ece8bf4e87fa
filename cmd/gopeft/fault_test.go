package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/bindings/fault"
	"gopeft/model/modeltest"
)

// A model that another program writes to while it is read ends a command with a line.
func TestModelThatIsWrittenTo(t *testing.T) {
	shorten := func(path string) error { return os.Truncate(path, 0) }
	overwrite := func(path string) error {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.Write(raw)
		return errors.Join(err, f.Close())
	}
	for _, c := range []struct {
		threads string
		harm    func(path string) error
		want    string
	}{
		{"1", shorten, "it was shortened"}, {"2", shorten, "it was shortened"}, // where libtorch computes, and where its helpers do
		{"1", overwrite, "was overwritten while it was read"},
	} {
		model := filepath.Join(t.TempDir(), "model\x1b[2J")
		if err := os.CopyFS(model, os.DirFS(modeltest.Testdata(t, "distilbert/tiny"))); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "predict", "--model", model, "--data", "-", "--format", "jsonl", "--threads", c.threads, "--quiet")
		cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, rows := tokenRows(t, stretch)
		_, errIn := io.WriteString(in, rows)
		lines := bufio.NewReader(out)
		_, errOut := lines.ReadString('\n')
		if err := errors.Join(errIn, errOut, c.harm(filepath.Join(model, "model.safetensors"))); err != nil {
			t.Fatal(err, stderr.String())
		}
		_, _ = io.WriteString(in, rows) // it may have ended already
		in.Close()
		_, _ = io.Copy(io.Discard, lines)
		_ = cmd.Wait()
		said := stderr.String()
		if code := cmd.ProcessState.ExitCode(); code != exitFailed || strings.Count(said, "\n") != 1 || !strings.Contains(said, c.want) || strings.Contains(said, "\x1b") {
			t.Errorf("%s threads: exit %d: %q, want %q", c.threads, code, said, c.want)
		}
	}
}

// A panic of a goroutine that others wait for is a fault of the program's own, whatever was said around it.
func TestPanicsOfGoroutinesAreFaults(t *testing.T) {
	for _, trace := range []bool{false, true} {
		err := fmt.Errorf("rows.csv: %w", fault.Guard(func() error { panic("no such case\nand more") }))
		var stderr strings.Builder
		if code := conclude(err, trace, &stderr); code != exitFault {
			t.Errorf("exit %d", code)
		}
		said := stderr.String()
		if strings.Contains(said, "goroutine") != trace || !strings.HasPrefix(said, "gopeft: a fault of gopeft's own: no such case (") || !trace && strings.Count(said, "\n") != 1 {
			t.Errorf("said %q", said)
		}
	}
}
