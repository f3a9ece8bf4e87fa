package dist

import (
	"encoding/json"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"gopeft/bindings"
	"gopeft/bindings/fault"
)

// words is a store whose calls end in time. The library's own end when the store's host is gone, but not where the
// process that keeps it has stopped.
type words struct {
	store *bindings.Store
	limit time.Duration
	hung  atomic.Bool // a call has not ended: the next ones would wait for it
}

// errSilent is that of a store that does not answer.
var errSilent = errors.New("it does not answer")

func (w *words) call(limit time.Duration, fn func() error) error {
	if w.hung.Load() {
		return errSilent
	}
	done := make(chan error, 1)
	go func() { done <- fault.Guard(fn) }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		w.hung.Store(true)
		return errSilent
	}
}

func (w *words) set(key string, value []byte) error {
	return w.call(w.limit, func() error { return w.store.Set(key, value) })
}

func (w *words) get(key string) (value []byte, ok bool, err error) { return w.getWithin(w.limit, key) }

func (w *words) getWithin(limit time.Duration, key string) ([]byte, bool, error) {
	type answer struct {
		value []byte
		ok    bool
	}
	answers := make(chan answer, 1) // a late one is of no use to anybody
	err := w.call(limit, func() error {
		value, ok, err := w.store.Get(key)
		answers <- answer{value, ok}
		return err
	})
	if err != nil {
		return nil, false, err
	}
	a := <-answers
	return a.value, a.ok, nil
}

func (w *words) setJSON(key string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return w.set(key, raw)
}

func (w *words) getJSON(limit time.Duration, key string, v any) (ok bool, err error) {
	raw, ok, err := w.getWithin(limit, key)
	if err != nil || !ok {
		return false, err
	}
	return true, json.Unmarshal(raw, v)
}

// close ends the connection. One that hangs is left to the end of the process.
func (w *words) close() {
	if !w.hung.Load() {
		w.store.Close()
	}
}

func rankKey(name string, rank int) string { return name + "/" + strconv.Itoa(rank) }
