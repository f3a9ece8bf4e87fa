package fsutil

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"gopeft/bindings/fault"
)

// Mapping is a file mapped for reading at random places. Its pages are the file's, shared by all processes that map it.
type Mapping struct {
	data  []byte
	path  string
	info  fs.FileInfo  // when it was mapped
	reads atomic.Int64 // bytes that reads may have made resident since they were last given back
}

const (
	// faultBytes is what a read of one byte may make resident: the kernel maps the pages around it too.
	faultBytes = 64 << 10
	// residentBytes bounds what reads leave resident.
	residentBytes = 64 << 20
)

// Map maps the file that f is open on; f may be closed afterwards.
func Map(f *os.File) (*Mapping, error) {
	m, err := mapFile(f, unix.PROT_READ, unix.MAP_SHARED)
	if err == nil {
		// Without read-ahead: what lies behind a place read is seldom wanted next.
		_ = unix.Madvise(m.data, unix.MADV_RANDOM)
	}
	return m, err
}

// MapPrivate is Map for use in place, by Bytes. The pages may be written to: that
// copies the page and never reaches the file.
func MapPrivate(f *os.File) (*Mapping, error) {
	return mapFile(f, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_NORESERVE)
}

func mapFile(f *os.File, protection, flags int) (*Mapping, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", f.Name())
	case size == 0:
		return nil, fmt.Errorf("%s: the file is empty", f.Name())
	case size > math.MaxInt:
		return nil, fmt.Errorf("%s: %d bytes are more than this system can map", f.Name(), size)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), protection, flags)
	if err != nil {
		return nil, fmt.Errorf("%s: map the file: %w", f.Name(), err)
	}
	return &Mapping{data: data, path: f.Name(), info: info}, nil
}

// Unchanged is an error where the file that is mapped was written to since. One
// that was put in its place is another file, and no error.
func (m *Mapping) Unchanged() error {
	now, err := os.Stat(m.path)
	if err != nil || !os.SameFile(now, m.info) || now.Size() == m.info.Size() && now.ModTime().Equal(m.info.ModTime()) {
		return nil
	}
	return fmt.Errorf("%s was overwritten while it was read", m.path)
}

// Bytes is the whole file, valid until Close.
func (m *Mapping) Bytes() []byte { return m.data }

// GiveBack lets the system take the memory of whole pages of a mapping: they no
// longer count as resident, and are read from the file again if touched. What was
// written to them is lost.
func GiveBack(pages []byte) error { return unix.Madvise(pages, unix.MADV_DONTNEED) }

// Size is the file's size when it was mapped.
func (m *Mapping) Size() int64 { return int64(len(m.data)) }

// Read calls use with bytes [from, to) of the file. They must not be kept: the memory of what was read is given back from
// time to time, so that it does not grow with the file. It is an error if the file cannot be read any more. Read may be
// called by several goroutines.
func (m *Mapping) Read(from, to int64, use func(b []byte) error) error {
	if from < 0 || from > to || to > m.Size() {
		return fmt.Errorf("%s: bytes %d to %d of %d were asked for", m.path, from, to, m.Size())
	}
	err := fault.Guard(func() error { return use(m.data[from:to:to]) })
	if errors.Is(err, fault.ErrMapping) {
		return fmt.Errorf("%s: %w", m.path, err)
	}
	if m.reads.Add(to-from+faultBytes) > residentBytes {
		m.reads.Store(0)
		_ = GiveBack(m.data) // advice alone: the bytes stay what they are
	}
	return err
}

// Close unmaps the file. No Read may be running, or follow.
func (m *Mapping) Close() error {
	if m == nil || m.data == nil {
		return nil
	}
	data := m.data
	m.data = nil
	return unix.Munmap(data)
}
