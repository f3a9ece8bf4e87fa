package fsutil

import (
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
)

// Checksum is what a file was when it was written. CRC-32C finds what disks and
// copies do to bytes, every change within 32 bits among it, and CPUs compute it
// faster than memory is read: of states there are gigabytes.
type Checksum struct {
	Bytes  int64  `json:"bytes"`
	CRC32C string `json:"crc32c"`
}

// Summer is a writer that sums up what is written to it.
type Summer struct {
	crc hash.Hash32
	n   int64
}

// NewSummer returns a Summer of nothing.
func NewSummer() *Summer { return &Summer{crc: crc32.New(crc32.MakeTable(crc32.Castagnoli))} }

// Write implements io.Writer.
func (s *Summer) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	return s.crc.Write(p)
}

// Sum is the checksum of all that was written.
func (s *Summer) Sum() Checksum { return Checksum{s.n, fmt.Sprintf("%08x", s.crc.Sum32())} }

// Compare says how the file at path differs from what it was, "" if it does not.
func (c Checksum) Compare(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := NewSummer()
	if _, err := io.CopyBuffer(s, struct{ io.Reader }{f}, make([]byte, 1<<20)); err != nil {
		return "", err
	}
	switch sum := s.Sum(); {
	case sum.Bytes != c.Bytes:
		return fmt.Sprintf("it has %d bytes and was written with %d", sum.Bytes, c.Bytes), nil
	case sum.CRC32C != c.CRC32C:
		return fmt.Sprintf("its checksum is %s and was %s", sum.CRC32C, c.CRC32C), nil
	}
	return "", nil
}
