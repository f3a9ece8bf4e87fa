package fsutil

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"
	"time"
)

// What an interrupted command has to say is still printed, where someone reads it.
func TestLastWordsAreWritten(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var got bytes.Buffer
	w := NewWriter(ctx, &got)
	for _, text := range []string{"a ", "table\n"} {
		if n, err := io.WriteString(w, text); n != len(text) || err != nil {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	if got.String() != "a table\n" {
		t.Errorf("written: %q", got.String())
	}
}

// Where nobody reads, a write is given up soon after the context's end, and all others at once.
func TestAWriteThatNobodyReadsIsGivenUp(t *testing.T) {
	_, to := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	w := NewWriter(ctx, to)
	time.AfterFunc(50*time.Millisecond, cancel)
	for _, most := range []time.Duration{50*time.Millisecond + 10*lastWords, lastWords / 2} {
		begun := time.Now()
		n, err := io.WriteString(w, "x")
		if took := time.Since(begun); n != 0 || !errors.Is(err, context.Canceled) || took > most {
			t.Errorf("%d, %v after %v, want at most %v", n, err, took, most)
		}
	}
}

// Nothing stays open of a stream that is closed before its end, though its context lasts.
func TestCloseEndsReading(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	r := NewReader(ctx, func() (io.ReadCloser, error) { return from, nil })
	wrote := make(chan error, 1)
	go func() {
		_, err := to.Write(make([]byte, 100*bufferSize))
		wrote <- err
	}()
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-wrote:
		if err == nil {
			t.Error("everything was read")
		}
	case <-time.After(10 * time.Second):
		t.Error("the pipe stays open")
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("a read after that: %d, %v", n, err)
	}
}
