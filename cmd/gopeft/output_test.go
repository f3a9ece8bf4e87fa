package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"gopeft/model/modeltest"
)

func TestOutputOnATerminal(t *testing.T) {
	for _, c := range []struct {
		writes []string
		want   string
	}{
		{[]string{"plain\ttext ─ é\n"}, "plain\ttext ─ é\n"},
		{[]string{"\x1b]0;title\x07", "\x1b[2J\r\x7f"}, `\x1b]0;title\x07\x1b[2J\x0d\x7f`},
		{[]string{"a\xe2", "\x94", "\x80b", "\xf0\x9f\x98", "\x80"}, "a─b😀"},
		{[]string{"a\xc2", "\x9b31m"}, `a\x9b31m`},
		{[]string{"cut \xe2\x94"}, `cut \xe2\x94`},
		{[]string{"bad \xff\xfe", "\x80"}, `bad \xff\xfe\x80`},
	} {
		var seen bytes.Buffer
		o := &output{to: &seen, terminal: true}
		for _, text := range c.writes {
			if n, err := o.Write([]byte(text)); n != len(text) || err != nil {
				t.Errorf("%q: %d, %v", text, n, err)
			}
		}
		if err := o.finish(); err != nil || seen.String() != c.want {
			t.Errorf("%q shows %q, want %q, %v", c.writes, seen.String(), c.want, err)
		}
	}
}

// Results that nobody can get are no success.
func TestStandardOutputThatIsClosed(t *testing.T) {
	data, _ := tokenRows(t, 3000)
	tiny := modeltest.Testdata(t, "distilbert/tiny")
	for _, c := range []struct{ command, want string }{
		{"predict --threads 1 --quiet --model " + tiny + " --data " + data + " >&-", "1 gopeft: standard output is closed\n"},
		{"inspect --model " + tiny + " >&-", "1 gopeft: standard output is closed\n"},
		{"--version >&-", "1 gopeft: write results: standard output is closed\n"},
		{"predict --threads 1 --quiet --model " + tiny + " --data " + data + " > /dev/full", "1 gopeft: write /dev/stdout: no space left on device\n"},
		{"predict --threads 1 --quiet --model " + tiny + " --data " + data + " --out " + t.TempDir() + "/rows >&-", "0 "}, // it has none to write there
	} {
		cmd := exec.Command("sh", "-c", `"$0" `+c.command+`; code=$?; printf '%s ' $code >&3`, os.Args[0])
		cmd.Env = append(os.Environ(), "GOPEFT_TEST_PROGRAM=1")
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		cmd.Stderr, cmd.ExtraFiles = &stderr, []*os.File{w}
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		code := make([]byte, 9)
		n, err := r.Read(code)
		r.Close()
		if got := string(code[:n]) + stderr.String(); err != nil || got != c.want {
			t.Errorf("%s: %q, want %q, %v", c.command, got, c.want, err)
		}
	}
}
