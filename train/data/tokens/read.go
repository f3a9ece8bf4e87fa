package tokens

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"gopeft/model/fsutil"
)

// File is tokenized data in a mapped file, checked whole when it was opened.
type File struct {
	m      *fsutil.Mapping
	header header
}

// damage is what is wrong with a file that cannot be used.
type damage struct{ what string }

func (d *damage) Error() string { return d.what }

func damaged(format string, args ...any) error { return &damage{fmt.Sprintf(format, args...)} }

// readHeader reads and checks what stands behind a file's body. Its checksum, for all of the file, is not looked at.
func readHeader(f *os.File, key string) (h header, sum []byte, checked int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return h, nil, 0, err
	}
	size := info.Size()
	if size < int64(len(magic)+trailerSize) {
		return h, nil, 0, damaged("it is cut off")
	}
	head, tail := make([]byte, len(magic)), make([]byte, trailerSize)
	if _, err := f.ReadAt(head, 0); err != nil {
		return h, nil, 0, err
	}
	if _, err := f.ReadAt(tail, size-int64(trailerSize)); err != nil {
		return h, nil, 0, err
	}
	length := binary.LittleEndian.Uint64(tail)
	end := size - int64(trailerSize)
	switch {
	case string(head) != magic:
		return h, nil, 0, damaged("it is of another format")
	case string(tail[8+32:]) != magic:
		return h, nil, 0, damaged("it is cut off")
	case length > mostHeader || int64(length) > end-int64(len(magic)):
		return h, nil, 0, damaged("its header would take %d bytes", length)
	}
	raw := make([]byte, length)
	if _, err := f.ReadAt(raw, end-int64(length)); err != nil {
		return h, nil, 0, err
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return h, nil, 0, damaged("its header cannot be read: %v", err)
	}
	if h.Key != key {
		return h, nil, 0, damaged("it is of other data")
	}
	if err := h.check(end - int64(length)); err != nil {
		return h, nil, 0, damaged("%v", err)
	}
	return h, tail[8 : 8+32], end + 8, nil
}

// open opens a file and checks every byte of it. A *damage says that there is one that cannot be used.
func open(ctx context.Context, path, key string) (*File, error) {
	f, err := fsutil.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, want, checked, err := readHeader(f, key)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	if err := fsutil.Copy(ctx, sum, io.NewSectionReader(f, 0, checked)); err != nil {
		return nil, err
	}
	if !bytes.Equal(sum.Sum(nil), want) {
		return nil, damaged("its checksum is not that of its bytes")
	}
	m, err := fsutil.Map(f)
	if err != nil {
		return nil, err
	}
	return &File{m, h}, nil
}

// Info is what was said of the data when the file was made.
func (f *File) Info() Info { return f.header.Info }

// Hash joins the hashes of all parts.
func (f *File) Hash() (all string) {
	for _, p := range f.header.Parts {
		all += p.Hash
	}
	return all
}

// Close unmaps the file: no part may be read any more.
func (f *File) Close() error { return f.m.Close() }

// Part gives a part by name, nil if the data has none of it.
func (f *File) Part(name string) *Part {
	for i := range f.header.Parts {
		if f.header.Parts[i].Name == name {
			return &Part{f, &f.header.Parts[i]}
		}
	}
	return nil
}

// Part is a part of a file. Its methods may be called by several goroutines.
type Part struct {
	file *File
	part *part
}

// Len is the number of examples.
func (p *Part) Len() int { return int(p.part.Count) }

// Lengths gives how many tokens each example has.
func (p *Part) Lengths() ([]int, error) {
	return numbers(p, p.part.Lengths, func(v uint32) int { return int(v) })
}

// Labels gives the class of each example; nil where there are none.
func (p *Part) Labels() ([]int, error) {
	return numbers(p, p.part.Labels, func(v uint32) int { return int(int32(v)) })
}

// Sources gives the index of the file that each example is from; nil where there is one file.
func (p *Part) Sources() ([]uint16, error) {
	return numbers(p, p.part.Sources, func(v uint32) uint16 { return uint16(v) })
}

// numbers reads a list a piece at a time, so that its pages do not stay.
func numbers[T any](p *Part, s section, of func(uint32) T) ([]T, error) {
	if s.Size == 0 {
		return nil, nil
	}
	const piece = 1 << 20
	out := make([]T, 0, s.Size/4)
	for at := s.At; at < s.At+s.Size; at += piece {
		err := p.file.m.Read(at, min(at+piece, s.At+s.Size), func(b []byte) error {
			for ; len(b) >= 4; b = b[4:] {
				out = append(out, of(binary.LittleEndian.Uint32(b)))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Example reads an example.
func (p *Part) Example(i int) (Example, error) {
	if i < 0 || i >= p.Len() {
		return Example{}, fmt.Errorf("example %d of %d", i, p.Len())
	}
	e, err := p.example(int64(i))
	if err != nil {
		return e, fmt.Errorf("example %d: %w", i, err)
	}
	return e, nil
}

func (p *Part) example(i int64) (e Example, err error) {
	var from, to int64
	var tokens int
	err = p.read(p.part.Ends, max(0, i-1)*8, min(i+1, 2)*8, func(b []byte) error {
		if to = int64(binary.LittleEndian.Uint64(b[len(b)-8:])); i > 0 {
			from = int64(binary.LittleEndian.Uint64(b))
		}
		return nil
	})
	if err != nil {
		return e, err
	}
	number := func(s section, to *int) error {
		return p.read(s, i*4, 4, func(b []byte) error { *to = int(int32(binary.LittleEndian.Uint32(b))); return nil })
	}
	if err := number(p.part.Lengths, &tokens); err != nil {
		return e, err
	}
	if p.part.Labels.Size > 0 {
		if err := number(p.part.Labels, &e.Label); err != nil {
			return e, err
		}
	}
	err = p.read(p.part.Records, from, to-from, func(b []byte) (err error) {
		e.IDs, e.Targets, err = decodeRecord(b, p.file.header.Width, tokens, p.file.header.Causal)
		return err
	})
	return e, err
}

// read reads n bytes of a section, from the one given on.
func (p *Part) read(s section, from, n int64, use func(b []byte) error) error {
	if from < 0 || from > s.Size || n < 0 || n > s.Size-from {
		return errRecord
	}
	return p.file.m.Read(s.At+from, s.At+from+n, use)
}
