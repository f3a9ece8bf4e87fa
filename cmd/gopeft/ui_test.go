package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"gopeft/model/modeltest"
)

func TestErrorsAreOneBoundedLineWithoutEscapes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"plain: ü \t日本", "plain: ü \t日本"},
		{"a\x1b[31mred\x07\x7f", `a\x1b[31mred\x07\x7f`},
		{"csi \u009b2J", `csi \x9b2J`},
		{"turned \u202etxt.exe", `turned \u202etxt.exe`},
		{"bad \xff\xc3", `bad \xff\xc3`},
		{"one\r\n\n  two\n", "one; two"},
	} {
		if got := oneLine(errors.New(c.text)); got != c.want {
			t.Errorf("%q became %q, want %q", c.text, got, c.want)
		}
	}
	long := oneLine(fmt.Errorf("begin %s end: do that", strings.Repeat("ä", 100_000)))
	if n := utf8.RuneCountInString("gopeft: " + long); n > 500 || !strings.HasPrefix(long, "begin ä") || !strings.HasSuffix(long, "ä end: do that") {
		t.Errorf("%d characters: %s", n, long)
	}
}

func TestTextsFromFilesDoNotSteerTheTerminal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	copyFolder(t, modeltest.Testdata(t, "distilbert/tiny"), dir)
	evil := `{"model_type": "\u001b]0;gone\u0007` + strings.Repeat("x", 100_000) + `"}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(evil), 0o600); err != nil {
		t.Fatal(err)
	}
	data, _ := tokenRows(t, 3)
	code, stdout, stderr := gopeft(t, "", "predict", "--model", dir, "--data", data)
	if code != exitFailed || strings.ContainsAny(stdout+stderr, "\x1b\x07") || utf8.RuneCountInString(stderr) > 501 || !strings.Contains(stderr, `x1b]0;gone`) {
		t.Errorf("exit %d, %d bytes: %.300q", code, len(stderr), stderr)
	}
}
