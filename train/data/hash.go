package data

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math"
)

// Hash gives the SHA-256 of what a model sees of the set: texts or ids in order,
// labels and label names. It is equal for the same examples whatever file or
// format they came from. It is for examples in memory; see Sum for others.
func (s *Set) Hash() string {
	h := s.Hasher()
	for _, ex := range s.Examples {
		h.Add(ex)
	}
	return h.Sum()
}

// Sum is Hash of examples that may be on disk.
func (s *Set) Sum(ctx context.Context) (string, error) {
	h := s.Hasher()
	err := each(ctx, s.Len(), s.Example, h.Add)
	return h.Sum(), err
}

// Hash gives the SHA-256 of what a model sees of the set, whose examples are in memory.
func (s *CausalSet) Hash() string {
	h := s.Hasher()
	for _, ex := range s.Examples {
		h.AddCausal(ex)
	}
	return h.Sum()
}

// Sum is Hash of examples that may be on disk.
func (s *CausalSet) Sum(ctx context.Context) (string, error) {
	h := s.Hasher()
	err := each(ctx, s.Len(), s.Example, h.AddCausal)
	return h.Sum(), err
}

// Sum joins the hashes of the parts there are.
func (s *Splits) Sum(ctx context.Context) (string, error) {
	return sumParts(ctx, s.Train, s.Val, s.Test)
}

// Sum joins the hashes of the parts there are.
func (s *CausalSplits) Sum(ctx context.Context) (string, error) {
	return sumParts(ctx, s.Train, s.Val, s.Test)
}

func sumParts[S interface {
	*Set | *CausalSet
	Len() int
	Sum(ctx context.Context) (string, error)
}](ctx context.Context, parts ...S) (all string, err error) {
	for _, part := range parts {
		if part == nil || part.Len() == 0 {
			continue
		}
		one, err := part.Sum(ctx)
		if err != nil {
			return "", err
		}
		all += one
	}
	return all, nil
}

// each calls use for n examples in order.
func each[T any](ctx context.Context, n int, example func(i int) (T, error), use func(T)) error {
	for i := range n {
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		ex, err := example(i)
		if err != nil {
			return fmt.Errorf("data: %w", err)
		}
		use(ex)
	}
	return nil
}

// Hasher computes the hash of a set whose examples pass by.
type Hasher struct {
	w    *hashWriter
	kind Kind
}

// Hasher begins the set's hash.
func (s *Set) Hasher() Hasher {
	w := newHashWriter([]string{OneLabel: "classification", AnyLabels: "multi-label", Numbers: "regression"}[s.Kind])
	w.number(len(s.Labels))
	for _, name := range s.Labels {
		w.text(name)
	}
	return Hasher{w, s.Kind}
}

// Hasher begins the set's hash.
func (s *CausalSet) Hasher() Hasher { return Hasher{w: newHashWriter("causal")} }

// Add adds the next example.
func (h Hasher) Add(ex Example) {
	h.w.text(ex.Text)
	h.w.ids(ex.IDs)
	switch h.kind {
	case OneLabel:
		h.w.number(ex.Label)
	case AnyLabels:
		h.w.number(len(ex.Given))
		for _, class := range ex.Given {
			h.w.number(class)
		}
	case Numbers:
		h.w.number(len(ex.Values))
		for _, v := range ex.Values {
			h.w.number(int(math.Float32bits(v)))
		}
	}
}

// AddCausal adds the next example of causal data.
func (h Hasher) AddCausal(ex CausalExample) {
	h.w.text(ex.Prompt)
	h.w.text(ex.Answer)
	h.w.ids(ex.IDs)
	h.w.ids(ex.Targets)
	h.w.number(len(ex.Messages))
	for _, m := range ex.Messages {
		h.w.text(m.Role)
		h.w.text(m.Content)
	}
}

// Sum is the hash of what was added.
func (h Hasher) Sum() string { return h.w.sum() }

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
