package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopeft/model/modeltest"
)

// copyFolder copies the files of a folder, which links may lead to.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// contents reads every file below a folder.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		files[path] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestNoCommandWritesOverWhatItReads(t *testing.T) {
	dir, tiny, llama := t.TempDir(), modeltest.Testdata(t, "distilbert/tiny"), modeltest.Testdata(t, "llama/gqa")
	t.Chdir(dir)
	copyFolder(t, tiny, "m")
	copyFolder(t, llama, "llama")
	data, _ := tokenRows(t, 9)
	raw, err := os.ReadFile(data)
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{
		"rows": string(raw), "d/train.csv": "text,label\nA,a\nB,b\nC,a\nD,b\n", "d/other.csv": "text,label\nA,a\nB,b\n", "set.yaml": "limit: 3\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Link("rows", "hard"), os.Symlink("rows", "soft"), os.Symlink("m", "to-m"), os.Link("d/other.csv", "d/test.csv")); err != nil {
		t.Fatal(err)
	}
	open, err := os.OpenFile("rows", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	before := contents(t, dir)
	fd := "/proc/self/fd/" + fmt.Sprint(open.Fd())
	for _, args := range []string{
		"predict --model m --data rows --out rows",
		"predict --model m --data rows --out ./d/../rows",
		"predict --model m --data rows --out hard",
		"predict --model m --data rows --out soft",
		"predict --model m --data soft --out rows",
		"predict --model m --data rows --out " + fd,
		"predict --model m --data " + fd + " --out rows",
		"predict --model m --data rows --config set.yaml --out set.yaml",
		"eval --model m --data rows --per-row hard",
		"generate --model llama --prompts rows --out rows",
		"embed --model m --data rows --out m/model.safetensors",
		"embed --model to-m --data rows --out m/model.safetensors",
		"embed --model m --data rows --out to-m/model.safetensors",
		"prepare --data d/train.csv --out d --overwrite",
		"prepare --data d/other.csv --out d --overwrite",
		"merge --model m --adapter m --out m --overwrite",
		"quantize --model m --to int8 --out to-m --overwrite",
		"quantize --model m --to int8 --out . --overwrite",
	} {
		code, _, stderr := gopeft(t, "", append(strings.Fields(args), "--quiet")...)
		if code != exitUsage || !strings.Contains(stderr, "would replace") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("gopeft %s: exit %d, %s", args, code, stderr)
		}
	}
	for path, content := range contents(t, dir) {
		if before[path] != content {
			t.Errorf("%s has changed or is new", path)
		}
	}
}

// A result may lie in the folder of its model, and be made again.
func TestResultsBesideTheModelCanBeMadeAgain(t *testing.T) {
	tiny := modeltest.Testdata(t, "distilbert/tiny")
	t.Chdir(t.TempDir())
	copyFolder(t, tiny, "m")
	data, _ := tokenRows(t, 5)
	for range 2 {
		must(t, "", "predict", "--model", "m", "--data", data, "--out", "m/rows.jsonl", "--quiet")
	}
}

func TestOutputsAreLookedAtBeforeAnyWork(t *testing.T) {
	dir := t.TempDir()
	for _, args := range []string{
		"predict --out " + dir, "eval --per-row " + dir, "generate --prompt x --out " + dir, "embed --out " + dir,
		"predict --out " + dir + "/no/x", "embed --out " + dir + "/no/x.npy", "generate --prompt x --out " + dir + "/no/x", "eval --per-row " + dir + "/no/x",
	} {
		// The model is not there either, which would be told later.
		code, _, stderr := gopeft(t, "", append(strings.Fields(args), "--model", dir+"/none")...)
		if code != exitFailed || !strings.HasPrefix(stderr, "gopeft: write "+dir) {
			t.Errorf("gopeft %s: exit %d, %s", args, code, stderr)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("they leave %v", entries)
	}
}

func TestOutThroughAPipe(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan []byte, 1)
	go func() {
		raw, _ := os.ReadFile(fifo)
		got <- raw
	}()
	data, _ := tokenRows(t, 4)
	must(t, "", "predict", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", data, "--out", fifo, "--quiet")
	select {
	case raw := <-got:
		if n := bytes.Count(raw, []byte("\n")); n != 4 {
			t.Errorf("%d lines came through", n)
		}
	case <-time.After(10 * time.Second):
		t.Error("the reader hangs")
	}
}

// With >> the results would be read as rows for ever.
func TestStandardOutputIsNotWhatIsRead(t *testing.T) {
	data, text := tokenRows(t, 4)
	out, err := os.OpenFile(data, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var stderr bytes.Buffer
	for _, command := range []string{"predict", "tokenize"} {
		code := program(context.Background(), []string{"gopeft", command, "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", data}, strings.NewReader(""), out, &stderr)
		if code != exitUsage || !strings.Contains(stderr.String(), "standard output is --data") {
			t.Errorf("%s: exit %d, %s", command, code, stderr.String())
		}
	}
	if raw, err := os.ReadFile(data); err != nil || string(raw) != text {
		t.Errorf("the rows have changed: %v", err)
	}
}

func TestLeftoversGoWithTheNextRun(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".rows.tmp-1abc"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	data, _ := tokenRows(t, 4)
	must(t, "", "predict", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", data, "--out", filepath.Join(dir, "rows"), "--quiet")
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left: %v", entries)
	}
}
