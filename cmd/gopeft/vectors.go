package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"gopeft/model/fsutil"
	"gopeft/model/hf/files"
	"gopeft/train/classic"
)

// vectors keeps the vectors of any number of texts on the disk until all are there: their file begins with how many there are.
type vectors struct {
	path string // of the file that they are for
	f    *os.File
	w    *bufio.Writer

	rows, cols int
}

// newVectors begins a file of vectors of so many values.
func newVectors(path string, cols int) (*vectors, error) {
	dir := os.TempDir()
	if to, err := fsutil.Target(path); err == nil { // where there is room for one there should be room for two; a pipe has none
		dir = filepath.Dir(to)
	}
	f, err := fsutil.Nameless(dir)
	if err != nil {
		return nil, fmt.Errorf("keep vectors: %w", err)
	}
	return &vectors{path: path, f: f, w: bufio.NewWriterSize(f, 1<<16), cols: cols}, nil
}

// add adds the rows of x.
func (v *vectors) add(x classic.Matrix) error {
	if _, err := v.w.Write(x.Bytes()); err != nil {
		return fmt.Errorf("keep vectors beside %s: %w", v.path, err)
	}
	v.rows += x.Rows
	return nil
}

// write writes the file, by its ending in NumPy's format or as tensor "features" of a safetensors file.
func (v *vectors) write(ctx context.Context) error {
	if err := v.w.Flush(); err != nil {
		return fmt.Errorf("keep vectors beside %s: %w", v.path, err)
	}
	if _, err := v.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return writeFile(ctx, v.path, func(w io.Writer) error {
		values := func(w io.Writer) error { return fsutil.Copy(ctx, w, v.f) }
		if strings.HasSuffix(v.path, ".npy") {
			return errors.Join(writeNPYHeader(w, v.rows, v.cols), values(w))
		}
		return files.EncodeSafetensors(w, []files.Tensor{{Name: "features", DType: files.F32, Shape: []int64{int64(v.rows), int64(v.cols)}, Write: values}}, nil)
	})
}

// close frees the space. A nil vectors takes none.
func (v *vectors) close() error {
	if v == nil {
		return nil
	}
	return v.f.Close()
}

// writeNPYHeader writes what comes before the values in NumPy's format, version 1.0, for fp32 in C order.
func writeNPYHeader(w io.Writer, rows, cols int) error {
	header := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, cols)
	// The header follows 10 bytes of magic, version and length, and is padded so that the data begin at a multiple of 64.
	header += strings.Repeat(" ", (64-(10+len(header)+1)%64)%64) + "\n"
	text := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(header)))
	_, err := w.Write(append(text, header...))
	return err
}
