package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopeft/model/modeltest"
)

// A device has no end and a pipe perhaps no writer: neither is a settings file.
func TestSmallFilesAreRegularOnes(t *testing.T) {
	tiny, adapter := modeltest.Testdata(t, "distilbert/tiny"), modeltest.Testdata(t, "peft/distilbert-seqcls-lora")
	data, _ := tokenRows(t, 3)
	for _, file := range []string{"m/config.json", "m/tokenizer.json", "m/vocab.txt", "m/tokenizer_config.json", "m/chat_template.jinja", "m/special_tokens_map.json",
		"a/adapter_config.json", "a/gopeft.yaml", "settings.yaml"} {
		for kind, put := range map[string]func(string) error{
			"device": func(path string) error { return os.Symlink("/dev/zero", path) },
			"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
			"folder": func(path string) error { return os.Mkdir(path, 0o777) },
		} {
			if file == "settings.yaml" && kind == "pipe" {
				continue // --config may be one
			}
			dir := t.TempDir()
			copyFolder(t, tiny, filepath.Join(dir, "m"))
			copyFolder(t, adapter, filepath.Join(dir, "a"))
			path := filepath.Join(dir, file)
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			args := []string{"predict", "--model", dir + "/m", "--adapter", dir + "/a", "--data", data, "--quiet"}
			if file == "settings.yaml" {
				args = append(args, "--config", path)
			}
			begun := time.Now()
			code, _, stderr := gopeft(t, "", args...)
			// The rows are of token ids, for which a tokenizer is opened and need not be there.
			isTokenizer := strings.HasPrefix(file, "m/") && file != "m/config.json"
			if !isTokenizer && (code == exitDone || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, file)) || time.Since(begun) > 5*time.Second {
				t.Errorf("%s a %s: exit %d after %v, %s", file, kind, code, time.Since(begun), stderr)
			}
			if isTokenizer {
				code, _, stderr = gopeft(t, "", "tokenize", "--model", dir+"/m", "--data", data)
				if code != exitFailed || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, filepath.Base(file)) || time.Since(begun) > 5*time.Second {
					t.Errorf("tokenize, %s a %s: exit %d after %v, %s", file, kind, code, time.Since(begun), stderr)
				}
			}
		}
	}
}
