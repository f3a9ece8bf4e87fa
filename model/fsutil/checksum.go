package fsutil

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
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
	f, err := OpenRegular(path)
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

// CopyFile writes the bytes of the file at path to w, as long as ctx lasts. A device or a pipe, which may have no end, is
// an error.
func CopyFile(ctx context.Context, w io.Writer, path string) error {
	f, err := OpenRegular(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return Copy(ctx, w, f)
}

// Copy is io.Copy that ends with ctx.
func Copy(ctx context.Context, w io.Writer, r io.Reader) error {
	buf := make([]byte, 1<<20)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// HashFile gives the SHA-256 of a file's bytes in hexadecimal.
func HashFile(ctx context.Context, path string) (string, error) {
	h := sha256.New()
	if err := CopyFile(ctx, h, path); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
