package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/model/modeltest"
)

func TestOnlyErrorsOfWritingNameTheFile(t *testing.T) {
	own := errors.New("adapter x is broken")
	for _, c := range []struct {
		name   string
		folder string
		work   func(io.Writer) error
		prefix bool
	}{
		{"of the work", "", func(io.Writer) error { return own }, false},
		{"of the work, after a line", "", func(w io.Writer) error {
			_, err := io.WriteString(w, "a line\n")
			return errors.Join(err, own)
		}, false},
		{"of opening the file", "no", func(io.Writer) error { return nil }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), c.folder, "rows.jsonl")
			err := writeFile(context.Background(), path, c.work)
			if err == nil || strings.HasPrefix(err.Error(), "write "+path) != c.prefix || !c.prefix && !errors.Is(err, own) {
				t.Errorf("got %v", err)
			}
			if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) > 0 {
				t.Errorf("it leaves %v", entries)
			}
		})
	}
	t.Run("of a full disk", func(t *testing.T) {
		if err := writeFile(context.Background(), "/dev/full/x", func(io.Writer) error { return nil }); err == nil || !strings.HasPrefix(err.Error(), "write /dev/full/x: ") {
			t.Error(err)
		}
	})
	t.Run("none", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "rows.jsonl")
		if err := writeFile(context.Background(), path, func(w io.Writer) error { _, err := fmt.Fprint(w, "a"); return err }); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "a" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// A command that cannot load what it needs says so, not that its output could not be written.
func TestErrorsOfLoadingDoNotNameTheOutput(t *testing.T) {
	tiny, llama := modeltest.Testdata(t, "distilbert/tiny"), modeltest.Testdata(t, "llama/gqa")
	data, _ := tokenRows(t, 5)
	out := filepath.Join(t.TempDir(), "rows.jsonl")
	none := filepath.Join(t.TempDir(), "none")
	for _, args := range [][]string{
		{"predict", "--model", tiny, "--adapter", none, "--data", data, "--out", out},
		{"predict", "--model", tiny, "--data", none, "--out", out},
		{"eval", "--model", none, "--data", data, "--per-row", out},
		{"eval", "--model", tiny, "--data", none, "--per-row", out},
		{"generate", "--model", llama, "--adapter", none, "--prompts", data, "--out", out},
		{"generate", "--model", llama, "--prompts", none, "--out", out},
		{"merge", "--model", tiny, "--adapter", none, "--out", out},
	} {
		code, _, stderr := gopeft(t, "", append(args, "--quiet")...)
		if code == exitDone || strings.Contains(stderr, out) || !strings.Contains(stderr, none) {
			t.Errorf("gopeft %v: exit %d, %s", args, code, stderr)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("gopeft %v has left %s", args, out)
		}
	}
	code, _, stderr := gopeft(t, "", "predict", "--model", tiny, "--data", data, "--out", filepath.Join(none, "x.jsonl"), "--quiet")
	if code != exitFailed || !strings.HasPrefix(stderr, "gopeft: write "+none) {
		t.Errorf("exit %d, %s", code, stderr)
	}
}
