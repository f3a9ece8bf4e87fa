package bindings

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"gopeft/bindings/csrc/c10d"
)

// quietC10D keeps libtorch's distributed part from writing its own lines, once for the process.
var quietC10D = sync.OnceFunc(c10d.Quiet)

// StoreOptions say where a store is, and who keeps it.
type StoreOptions struct {
	Host    string
	Port    int
	Serve   bool          // this process keeps it
	Listen  int           // on the listening socket of this descriptor; 0: on Host:Port
	Prefix  string        // of all keys
	Timeout time.Duration // of each operation, the opening among them
}

// Store is words under keys that the processes of a run share (libtorch's TCPStore). It is used from any goroutine,
// inside Do and outside.
type Store struct {
	mu sync.Mutex
	p  unsafe.Pointer
}

// ErrStoreClosed is that of a store after Close.
var ErrStoreClosed = errors.New("the store is closed")

// OpenStore opens a store. It tries again until the timeout where nobody serves it yet.
func OpenStore(o StoreOptions) (*Store, error) {
	quietC10D()
	serve := c10d.Connect
	switch {
	case o.Serve && o.Listen > 0:
		serve = c10d.ServeSocket
	case o.Serve:
		serve = c10d.ServeHere
	}
	p, msg := c10d.OpenStore(o.Host, o.Port, serve, o.Listen, o.Prefix, o.Timeout.Milliseconds())
	if msg != "" {
		return nil, c10dError(msg)
	}
	return &Store{p: p}, nil
}

// Set gives a key a value. It does not wait until that has arrived; a later Get of this process does.
func (s *Store) Set(key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p == nil {
		return ErrStoreClosed
	}
	return c10dError(c10d.Set(s.p, key, value))
}

// Get is a key's value, at once; ok reports whether it has one.
func (s *Store) Get(key string) (value []byte, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p == nil {
		return nil, false, ErrStoreClosed
	}
	value, ok, msg := c10d.Get(s.p, key)
	return value, ok, c10dError(msg)
}

// Close ends the connection, and the store where this process keeps it. It waits for a call under way.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.p != nil {
		c10d.CloseStore(s.p)
		s.p = nil
	}
}

// c10dError makes an error of a message; nil of none.
func c10dError(msg string) error {
	if msg == "" {
		return nil
	}
	return fmt.Errorf("c10d: %s", firstLine(msg))
}
