package launch

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// lines writes what several processes say to one writer, a whole line at a time. What one has given as an error is not
// repeated for the others: all of them find that a file is missing.
type lines struct {
	mu     sync.Mutex
	to     io.Writer
	errors map[string]int // which rank has said a line
}

const (
	maxLine   = 64 << 10
	maxErrors = 100
	errorMark = "gopeft: " // how an error begins
)

// begin forgets what was said, for another attempt.
func (l *lines) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.errors = map[string]int{}
}

// say writes a line of the launcher's own.
func (l *lines) say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write([]byte(errorMark + text + "\n"))
}

// write writes to the end even where nobody reads it any more: the processes go on.
func (l *lines) write(p []byte) {
	if l.to != nil {
		_, _ = l.to.Write(p)
	}
}

func (l *lines) line(rank int, p []byte) {
	if bytes.HasPrefix(p, []byte(errorMark)) {
		text := strings.TrimSuffix(string(p), "\n")
		if by, ok := l.errors[text]; ok && by != rank {
			return
		}
		if len(l.errors) < maxErrors {
			l.errors[text] = rank
		}
	}
	l.write(p)
}

// lineWriter takes what one process says.
type lineWriter struct {
	to   *lines
	rank int
	part []byte // of a line that has no end yet
}

// Write implements io.Writer. It never fails.
func (w *lineWriter) Write(p []byte) (int, error) {
	w.to.mu.Lock()
	defer w.to.mu.Unlock()
	w.part = append(w.part, p...)
	for {
		end := bytes.IndexByte(w.part, '\n') + 1
		if end == 0 && len(w.part) < maxLine {
			return len(p), nil
		}
		if end == 0 {
			w.part, end = append(w.part, '\n'), len(w.part)+1
		}
		w.to.line(w.rank, w.part[:end])
		w.part = w.part[end:]
	}
}

// flush writes a last line without an end.
func (w *lineWriter) flush() {
	w.to.mu.Lock()
	defer w.to.mu.Unlock()
	if len(w.part) > 0 {
		w.to.line(w.rank, append(w.part, '\n'))
		w.part = nil
	}
}
