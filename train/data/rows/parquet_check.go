package rows

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// The Parquet library makes room for what a file's lengths say before it looks at
// the bytes, and unpacks as much as there is. What follows holds lengths against
// the file first. The rest it checks itself, with errors or with panics, which
// guarded turns into errors.
const (
	maxPageBytes  = 256 << 20 // one page, decompressed
	maxPageValues = 64 << 20
	maxPageHeader = 1 << 20
)

// checkFooter walks the footer: its length, and those of all lists in it.
func checkFooter(f *os.File, size int64) error {
	const frame = 12 // magic, and footer length and magic
	if size < frame {
		return fmt.Errorf("%d bytes are no parquet file", size)
	}
	var tail [8]byte
	if _, err := f.ReadAt(tail[:], size-8); err != nil {
		return err
	}
	if magic := string(tail[4:]); magic != "PAR1" {
		return fmt.Errorf("no parquet file, or cut off: it ends in %q", magic)
	}
	length := int64(binary.LittleEndian.Uint32(tail[:4]))
	if length > size-frame {
		return fmt.Errorf("a footer of %d bytes in a file of %d", length, size)
	}
	footer := make([]byte, length)
	if _, err := f.ReadAt(footer, size-8-length); err != nil {
		return err
	}
	if _, err := thriftLength(footer); err != nil {
		return fmt.Errorf("footer: %w", err)
	}
	return nil
}

// checkGroup holds a row group's column chunks against schema and file. That there is one for every column the library
// has checked; of a chunk of another type or length than declared it would make other values, without an error.
func (r *parquetReader) checkGroup(group *format.RowGroup, schema *parquet.Schema, paths [][]string) error {
	for i, path := range paths {
		meta := &group.Columns[i].MetaData
		column, _ := schema.Lookup(path...)
		var err error
		switch {
		case parquet.Kind(meta.Type) != column.Node.Type().Kind():
			err = fmt.Errorf("stored as %v, declared as %v", meta.Type, column.Node.Type().Kind())
		case strings.HasPrefix(meta.Codec.String(), "LZ4"):
			// The library decodes pyarrow's LZ4 pages only while they are small.
			err = errors.New("compressed with LZ4, which is not supported: write it with snappy, zstd or gzip")
		case column.MaxRepetitionLevel == 0 && meta.NumValues != group.NumRows:
			err = fmt.Errorf("%d values for %d rows", meta.NumValues, group.NumRows)
		default:
			err = r.checkPages(meta)
		}
		if err != nil {
			return fmt.Errorf("column %q: %w", strings.Join(path, "."), err)
		}
	}
	return nil
}

// checkPages walks the page headers of a column chunk.
func (r *parquetReader) checkPages(meta *format.ColumnMetaData) error {
	at := meta.DataPageOffset
	if meta.DictionaryPageOffset != 0 {
		at = meta.DictionaryPageOffset
	}
	size := meta.TotalCompressedSize
	if at < 0 || size < 0 || at > r.file.Size()-size || meta.DataPageOffset < at || meta.DataPageOffset > at+size {
		return fmt.Errorf("%d bytes at %d are outside of the file", size, at)
	}
	for end := at + size; at < end; {
		header, n, err := r.pageHeader(at, end)
		if err != nil {
			return fmt.Errorf("page at byte %d: %w", at, err)
		}
		values := max(header.DataPageHeader.V.NumValues, header.DataPageHeaderV2.V.NumValues, header.DictionaryPageHeader.V.NumValues)
		packed, plain := int64(header.CompressedPageSize), header.UncompressedPageSize
		at += n
		switch {
		case packed < 0 || packed > end-at:
			return fmt.Errorf("a page of %d bytes at byte %d leaves the column", packed, at)
		case plain < 0 || plain > maxPageBytes:
			return fmt.Errorf("the page at byte %d is %d bytes, more than %d", at, plain, maxPageBytes)
		case values > maxPageValues:
			return fmt.Errorf("the page at byte %d has %d values, more than %d", at, values, maxPageValues)
		}
		codec, levels := meta.Codec, int64(0)
		if v2 := header.DataPageHeaderV2; v2.Valid { // whose levels come first, as they are
			levels = int64(v2.V.DefinitionLevelsByteLength) + int64(v2.V.RepetitionLevelsByteLength)
			if levels < 0 || levels > packed || levels > int64(plain) {
				return fmt.Errorf("the page at byte %d is shorter than its levels, %d bytes", at, levels)
			}
			if v2.V.IsCompressed.Valid && !v2.V.IsCompressed.V {
				codec = format.Uncompressed
			}
		}
		if err := checkInflated(io.NewSectionReader(r.f, at+levels, packed-levels), codec, int64(plain)-levels); err != nil {
			return fmt.Errorf("the page at byte %d: %w", at, err)
		}
		at += packed
	}
	return nil
}

// checkInflated reads a page through, since the library decompresses as much as there is: a page must not hold more than
// its header says.
func checkInflated(in io.Reader, codec format.CompressionCodec, plain int64) error {
	more := fmt.Errorf("it holds more than the %d bytes that its header says", plain)
	switch codec {
	case format.Snappy: // in one piece, behind its length
		var head [binary.MaxVarintLen64]byte
		n, err := io.ReadFull(in, head[:])
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return err
		}
		if size, k := binary.Uvarint(head[:n]); k <= 0 || size > uint64(plain) {
			return more
		}
		return nil
	case format.Gzip:
		gz, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		in = gz
	case format.Brotli:
		in = brotli.NewReader(in)
	case format.Zstd:
		d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxPageBytes))
		if err != nil {
			return err
		}
		defer d.Close()
		in = d
	default:
		return nil
	}
	n, err := io.Copy(io.Discard, io.LimitReader(in, plain+1))
	if err == nil && n > plain {
		err = more
	}
	return err
}

// pageHeader reads the page header at a place and tells its length.
func (r *parquetReader) pageHeader(at, end int64) (header format.PageHeader, n int64, err error) {
	for window := int64(4 << 10); ; window *= 16 {
		raw := make([]byte, min(window, end-at))
		if _, err := r.f.ReadAt(raw, at); err != nil && !errors.Is(err, io.EOF) {
			return header, 0, err
		}
		length, err := thriftLength(raw)
		if err != nil {
			if errors.Is(err, errThriftCut) && window < end-at && window < maxPageHeader {
				continue
			}
			return header, 0, err
		}
		var protocol thrift.CompactProtocol
		err = thrift.NewDecoder(protocol.NewReaderFromBytes(raw[:length])).Decode(&header)
		return header, int64(length), err
	}
}

var errThriftCut = errors.New("metadata cut off")

// thriftLength tells how long the Thrift struct at raw's start is. The library reads metadata safely, but for two things
// that are looked for here: it makes room for as many elements as a list claims to have, and calls itself once for
// every level of nesting, until the stack is full and the program ends.
func thriftLength(raw []byte) (int, error) {
	var protocol thrift.CompactProtocol
	w := thriftWalker{protocol.NewReaderFromBytes(raw), len(raw)}
	err := w.value(thrift.STRUCT, 0)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errThriftCut
	}
	return w.BytesRead(), err
}

// thriftWalker reads over values without keeping them.
type thriftWalker struct {
	thrift.BytesReader
	size int
}

func (w thriftWalker) value(kind thrift.Type, depth int) (err error) {
	const deepest = 64
	if depth > deepest {
		return errors.New("metadata nested too deep")
	}
	switch kind {
	case thrift.TRUE, thrift.FALSE, thrift.I8:
		_, err = w.ReadInt8()
	case thrift.I16, thrift.I32, thrift.I64:
		_, err = w.ReadInt64()
	case thrift.DOUBLE:
		_, err = w.ReadFloat64()
	case thrift.BINARY:
		_, err = w.ReadBytes() // a view of raw
	case thrift.STRUCT:
		return w.structure(depth)
	case thrift.LIST, thrift.SET:
		var l thrift.List
		if l, err = w.ReadList(); err == nil {
			err = w.elements(l.Size, depth, l.Type)
		}
	case thrift.MAP:
		var m thrift.Map
		if m, err = w.ReadMap(); err == nil {
			err = w.elements(m.Size, depth, m.Key, m.Value)
		}
	default:
		err = fmt.Errorf("metadata of unknown type %d", kind)
	}
	return err
}

func (w thriftWalker) structure(depth int) error {
	for {
		field, err := w.ReadField()
		if err != nil || field.Type == thrift.STOP {
			return err
		}
		if field.Type == thrift.TRUE || field.Type == thrift.FALSE { // the type is the value
			continue
		}
		if err := w.value(field.Type, depth+1); err != nil {
			return err
		}
	}
}

// elements walks n times one value of each kind. Each takes at least a byte, so
// more of them than bytes are left is a lie.
func (w thriftWalker) elements(n int32, depth int, kinds ...thrift.Type) error {
	if int(n) > w.size-w.BytesRead() {
		return errThriftCut
	}
	for range n {
		for _, kind := range kinds {
			if err := w.value(kind, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
