package inputs

import (
	"context"
	"fmt"

	"gopeft/bindings/fault"
)

// small is what is hashed before a run begins: it takes no time that anyone notices.
const small = 16 << 20

// Watch holds a run to its inputs.
type Watch struct {
	dir    string
	now    Record
	was    Record
	ctx    context.Context // of the run: once it is cancelled nothing is waited for
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done
}

// Begin compares the inputs of the run in dir with those it was begun with, was, unless it is nil, and hashes what has to be
// in the background. The record is written when that is done.
func Begin(ctx context.Context, dir string, now Record, was *Record) (*Watch, error) {
	w := &Watch{dir: dir, now: now, done: make(chan struct{}), ctx: ctx}
	if was != nil {
		w.was = *was
		if err := w.now.since(w.was); err != nil {
			return nil, err
		}
	}
	if err := w.hash(ctx, func(f File) bool { return f.Bytes <= small }); err != nil {
		return nil, err
	}
	if was == nil { // killed before the rest is hashed, the run still knows its inputs by their identity
		if err := w.now.write(dir); err != nil {
			return nil, err
		}
	}
	inner, cancel := context.WithCancel(ctx)
	w.cancel = cancel
	go func() {
		defer close(w.done)
		w.err = fault.Guard(func() error {
			if err := w.hash(inner, func(File) bool { return true }); err != nil {
				return err
			}
			return w.now.write(dir)
		})
	}()
	return w, nil
}

// hash hashes the chosen files that are not yet, and compares.
func (w *Watch) hash(ctx context.Context, chosen func(File) bool) error {
	for i := range w.now.Files {
		f := &w.now.Files[i]
		if f.SHA256 != "" || !chosen(*f) {
			continue
		}
		sum, err := Hash(ctx, f.path)
		if err != nil {
			return err
		}
		if old := w.was.hashOf(f.Name); old != "" && old != sum {
			return &ChangedError{f.path, "has another content"}
		}
		f.SHA256 = sum
	}
	return nil
}

// Settle returns once all inputs are known to be those of the run, or not to be. A run that was interrupted does not wait.
// A nil Watch has nothing to wait for. It also finds a file that was overwritten in place, which may have changed weights that are read where they lie.
func (w *Watch) Settle() error {
	if w == nil {
		return nil
	}
	select {
	case <-w.done:
		if w.err != nil && w.ctx.Err() == nil {
			return w.err
		}
	case <-w.ctx.Done():
	}
	for i := range w.now.Files { // not copied: after an interrupt their hashes may still be written
		f := &w.now.Files[i]
		id, err := identify(f.path)
		if err == nil && id.Device == f.Device && id.Inode == f.Inode && (id.Bytes != f.Bytes || id.Modified != f.Modified) {
			return fmt.Errorf("%s was overwritten while the run read it: its last checkpoint, from before, is kept", f.path)
		}
	}
	return nil
}

// Files are the inputs with their hashes, for which it waits.
func (w *Watch) Files(ctx context.Context) ([]File, error) {
	select {
	case <-w.done:
		return w.now.Files, w.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends the work in the background. A nil Watch has none.
func (w *Watch) Close() {
	if w != nil {
		w.cancel()
		<-w.done
	}
}

// Check compares the inputs with a record and waits for the hashes that takes.
func Check(ctx context.Context, now Record, was *Record) error {
	if was == nil {
		return nil
	}
	w := Watch{now: now, was: *was}
	if err := w.now.since(w.was); err != nil {
		return err
	}
	return w.hash(ctx, func(f File) bool { return w.was.hashOf(f.Name) != "" })
}
