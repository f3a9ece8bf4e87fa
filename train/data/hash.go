package data

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
)

// HashFile gives the SHA-256 of a file's bytes in hexadecimal.
func HashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("data: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Hash gives the SHA-256 of what a model sees of the set: texts or ids in order,
// labels and label names. It is equal for the same examples whatever file or
// format they came from.
func (s *Set) Hash() string {
	w := newHashWriter("classification")
	w.number(len(s.Labels))
	for _, name := range s.Labels {
		w.text(name)
	}
	for _, ex := range s.Examples {
		w.text(ex.Text)
		w.ids(ex.IDs)
		w.number(ex.Label)
	}
	return w.sum()
}

// Hash gives the SHA-256 of what a model sees of the set.
func (s *CausalSet) Hash() string {
	w := newHashWriter("causal")
	for _, ex := range s.Examples {
		w.text(ex.Prompt)
		w.text(ex.Answer)
		w.ids(ex.IDs)
		w.ids(ex.Targets)
		w.number(len(ex.Messages))
		for _, m := range ex.Messages {
			w.text(m.Role)
			w.text(m.Content)
		}
	}
	return w.sum()
}

// hashWriter writes values with their lengths, so that no two lists of values
// give the same bytes.
type hashWriter struct {
	h   hash.Hash
	buf []byte
}

func newHashWriter(kind string) *hashWriter {
	w := &hashWriter{h: sha256.New()}
	w.text(kind)
	return w
}

func (w *hashWriter) number(n int) {
	w.buf = binary.LittleEndian.AppendUint64(w.buf[:0], uint64(n))
	w.h.Write(w.buf)
}

func (w *hashWriter) text(s string) {
	w.number(len(s))
	w.buf = append(w.buf[:0], s...)
	w.h.Write(w.buf)
}

func (w *hashWriter) ids(ids []int64) {
	w.number(len(ids))
	for _, id := range ids {
		w.number(int(id))
	}
}

func (w *hashWriter) sum() string { return hex.EncodeToString(w.h.Sum(nil)) }
