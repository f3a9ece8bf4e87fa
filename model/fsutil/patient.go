package fsutil

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync/atomic"
	"time"

	"gopeft/bindings/fault"
)

// A read of a terminal or a pipe waits for whoever is at its other end, and so do
// a write and opening a pipe by its name. These let go when their context ends;
// what waits then waits on by itself, until the process ends or it can go on.

// Await runs work, and returns the context's error if that ends first. What work
// changes may be looked at only where it has come to its end.
func Await(ctx context.Context, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- fault.Guard(work) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// NewReader returns what reads from the stream that open gives, as long as ctx
// lasts.
func NewReader(ctx context.Context, open func() (io.ReadCloser, error)) io.ReadCloser {
	r := &reader{parts: make(chan part)}
	r.ctx, r.cancel = context.WithCancel(ctx)
	go r.fill(open)
	return r
}

type part struct {
	data []byte
	err  error
}

type reader struct {
	ctx    context.Context
	cancel func()
	parts  chan part
	left   []byte
	err    error
}

func (r *reader) fill(open func() (io.ReadCloser, error)) {
	in, err := open()
	if err == nil {
		defer in.Close()
	}
	for {
		var p part
		if err == nil {
			p.data = make([]byte, bufferSize)
			var n int
			n, err = in.Read(p.data)
			p.data = p.data[:n]
		}
		p.err = err
		select {
		case r.parts <- p:
		case <-r.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// Read implements io.Reader.
func (r *reader) Read(b []byte) (int, error) {
	for len(r.left) == 0 && r.err == nil {
		select {
		case p := <-r.parts:
			r.left, r.err = p.data, p.err
		case <-r.ctx.Done():
			r.err = r.ctx.Err()
		}
	}
	if len(r.left) == 0 {
		return 0, r.err
	}
	n := copy(b, r.left)
	r.left = r.left[n:]
	return n, nil
}

// Close implements io.Closer: nothing is read any more, and whoever writes to the
// stream is told so.
func (r *reader) Close() error {
	r.cancel()
	r.left, r.err = nil, os.ErrClosed
	return nil
}

// lastWords is how long a write may take whose context has ended.
const lastWords = time.Second

// NewWriter returns what writes to w. Once ctx has ended a write waits only a moment
// for the other end: enough for last words, if someone reads them. After one that was
// given up there are no more.
func NewWriter(ctx context.Context, w io.Writer) io.Writer { return &writer{ctx: ctx, w: w} }

type writer struct {
	ctx     context.Context
	w       io.Writer
	givenUp atomic.Bool
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (n int, err error) {
	if w.givenUp.Load() {
		return 0, w.ctx.Err()
	}
	own := bytes.Clone(p) // the caller may change p while a write that was given up goes on
	type written struct {
		n   int
		err error
	}
	done := make(chan written, 1)
	go func() {
		n, err := w.w.Write(own)
		done <- written{n, err}
	}()
	select {
	case d := <-done:
		return d.n, d.err
	case <-w.ctx.Done():
	}
	select {
	case d := <-done:
		return d.n, d.err
	case <-time.After(lastWords):
		w.givenUp.Store(true)
		return 0, w.ctx.Err()
	}
}
