// Package spool keeps records on disk for the time of a process: what would not fit into memory is appended once and
// read back in any order.
//
//	s, err := spool.Create(dir)
//	…
//	at, err := s.Append(record)
//	err = s.Flush()
//	record, err = s.Read(nil, at)
//
// # Terms
//
//   - record: some bytes, read back as they were appended
//   - place: where a record begins, which Append tells and Read takes
package spool

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"gopeft/model/fsutil"
)

// File holds records. Append and Flush are for one goroutine; after Flush any number may Read.
type File struct {
	f    *os.File
	w    *bufio.Writer
	size int64

	// Grown is told the size now and then while records are appended; nil: no one is.
	Grown func(size int64)
	told  int64
}

// step is by how much the file grows before Grown is told again.
const step = 4 << 20

// Create makes a file in dir, which must exist. It has no name there: whatever ends the process, the space is free then.
func Create(dir string) (*File, error) {
	f, err := fsutil.Nameless(dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return &File{f: f, w: bufio.NewWriterSize(f, 1<<18)}, nil
}

// Append adds a record and tells its place.
func (s *File) Append(record []byte) (at int64, err error) {
	at = s.size
	var head [4]byte
	if uint64(len(record)) > 1<<32-1 {
		return 0, fmt.Errorf("spool: a record of %d bytes", len(record))
	}
	binary.LittleEndian.PutUint32(head[:], uint32(len(record)))
	if _, err = s.w.Write(head[:]); err == nil {
		_, err = s.w.Write(record)
	}
	if err != nil {
		return 0, fmt.Errorf("spool: %w", err)
	}
	s.size += int64(len(head) + len(record))
	if s.Grown != nil && s.size >= s.told+step {
		s.told = s.size
		s.Grown(s.size)
	}
	return at, nil
}

// Flush makes what was appended readable.
func (s *File) Flush() error {
	if err := s.w.Flush(); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// Read gives the record at a place, in buf if it has the capacity.
func (s *File) Read(buf []byte, at int64) ([]byte, error) {
	const first = 4096 // most records come whole with the first read
	if cap(buf) < first {
		buf = make([]byte, first)
	}
	buf = buf[:first]
	n, err := s.f.ReadAt(buf, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if n < 4 {
		return nil, fmt.Errorf("spool: no record at %d", at)
	}
	size := int(binary.LittleEndian.Uint32(buf))
	if int64(size) > s.size-at-4 {
		return nil, fmt.Errorf("spool: the record at %d is not whole", at)
	}
	if 4+size <= n {
		return buf[4 : 4+size], nil
	}
	if cap(buf) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := s.f.ReadAt(buf, at+4); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return buf, nil
}

// Close frees the space.
func (s *File) Close() error { return s.f.Close() }
