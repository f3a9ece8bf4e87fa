package main

import (
	"context"
	"errors"
	"io"
	"os"
	"unicode/utf8"

	"golang.org/x/term"

	"gopeft/model/fsutil"
)

// output passes writes on and keeps the first error, because not every caller of Fprint looks at it.
type output struct {
	to       io.Writer
	file     *os.File // that to ends in; nil: in none
	failed   error
	terminal bool   // to is one, which no text may steer
	begun    []byte // of a character whose other bytes are still to come
}

// newOutput writes to standard output, or what stands for it, until ctx ends: a pipe's reader may have stopped reading.
func newOutput(ctx context.Context, stdout io.Writer) *output {
	f, ok := stdout.(*os.File)
	if !ok {
		return &output{to: stdout}
	}
	return &output{to: fsutil.NewWriter(ctx, f), file: f, terminal: term.IsTerminal(int(f.Fd()))}
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (n int, err error) {
	if o.terminal {
		n, err = len(p), o.show(append(o.begun, p...))
	} else {
		n, err = o.to.Write(p)
	}
	if err != nil && o.failed == nil {
		o.failed = err
	}
	return n, err
}

// show writes text as a terminal may have it, but for the beginning of a character at its end.
func (o *output) show(text []byte) error {
	end := len(text)
	for i := max(0, end-utf8.UTFMax+1); i < len(text); i++ {
		if utf8.RuneStart(text[i]) && !utf8.FullRune(text[i:]) {
			end = i
			break
		}
	}
	o.begun = append([]byte(nil), text[end:]...)
	_, err := io.WriteString(o.to, printable(string(text[:end])))
	return err
}

// finish writes what is left, and gives the first error there was.
func (o *output) finish() error {
	if len(o.begun) > 0 && o.failed == nil {
		_, o.failed = io.WriteString(o.to, printable(string(o.begun)))
	}
	return o.failed
}

// closedOutput stands for a standard output that was closed before the program began.
type closedOutput struct{}

// Write implements io.Writer.
func (closedOutput) Write([]byte) (int, error) { return 0, errors.New("standard output is closed") }
