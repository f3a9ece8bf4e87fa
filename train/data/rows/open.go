package rows

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"

	"gopeft/model/fsutil"
)

// Format is a file format that [Open] reads.
type Format string

const (
	AutoFormat Format = ""      // by name and content
	CSV        Format = "csv"   // header line, RFC 4180
	TSV        Format = "tsv"   // header line, one row per line
	JSONL      Format = "jsonl" // one object per line
	JSON       Format = "json"  // an array of objects, or objects one after the other
	Parquet    Format = "parquet"
	PlainText  Format = "text"    // one text per line, column "text"
	Vader      Format = "vader"   // id, mean rating, text; see the vaderSentiment package
	Folder     Format = "aclimdb" // {train,test}/{pos,neg}/*.txt
)

// Encoding says what becomes of text that is not UTF-8.
type Encoding string

const (
	StrictUTF8  Encoding = ""             // a row that is not UTF-8 is a bad row
	ReplaceUTF8 Encoding = "replace"      // bad bytes become U+FFFD
	Windows1252 Encoding = "windows-1252" // what is not UTF-8 (a CSV or Parquet value, a TSV line, a JSON object) is read as Windows-1252
)

// DefaultMaxRowBytes bounds one row of any text format.
const DefaultMaxRowBytes = 64 << 20

// Options says how a file is read. The zero value is right for most.
type Options struct {
	Format      Format   // default: by the name's ending (.gz aside) and the content
	Encoding    Encoding // default: a row that is not UTF-8 is a bad row
	MaxRowBytes int      // default DefaultMaxRowBytes
	Comma       byte     // the CSV separator, default ','
	QuotedTSV   bool     // TSV in the dialect of spreadsheets: quotes as in CSV

	// Context ends the wait for a stream's other end; nil: that is waited for as long as it takes. An option, because most
	// readers are files, which nobody waits for.
	Context context.Context
}

func (o Options) maxRow() int {
	if o.MaxRowBytes <= 0 {
		return DefaultMaxRowBytes
	}
	return o.MaxRowBytes
}

// Reader reads a data file row by row.
type Reader interface {
	// Next returns the next row, io.EOF after the last. After a *Error the
	// reader stands behind the bad row and may be asked for the next one; any
	// other error is final.
	Next() (Row, error)
	// Close releases the file.
	Close() error
}

// Open opens a data file or an aclImdb folder; "-" is standard input. Gzip is
// recognised by content, whatever the name.
func Open(path string, opts Options) (Reader, error) {
	if path == "-" {
		return New(io.NopCloser(os.Stdin), "standard input", opts) // closed by who gave it
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	if info.IsDir() {
		if opts.Format != AutoFormat && opts.Format != Folder {
			return nil, fmt.Errorf("%s is a folder, not a %s file", path, opts.Format)
		}
		return openFolder(path, opts)
	}
	if !info.Mode().IsRegular() { // a pipe, which is read once; opening it waits for its other end too
		ctx := opts.Context
		if ctx == nil {
			ctx = context.Background()
		}
		opts.Context = nil
		return New(fsutil.NewReader(ctx, func() (io.ReadCloser, error) { return os.Open(path) }), path, opts)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("data: %w", err)
	}
	opts.Context = nil
	var magic [4]byte
	n, err := f.ReadAt(magic[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return nil, fmt.Errorf("data: %w", err)
	}
	isParquet := string(magic[:n]) == "PAR1"
	if opts.Format == Parquet || opts.Format == AutoFormat && (isParquet || formatOf(path) == Parquet) {
		return openParquet(f, info.Size(), path, opts)
	}
	return New(f, path, opts)
}

// New reads rows from a stream; name stands in errors and, with
// AutoFormat, tells the format (a name without a known ending: JSONL if the
// content starts with '{', JSON if with '[', else plain text). The reader owns
// r and closes it, also when New fails.
func New(r io.ReadCloser, name string, opts Options) (Reader, error) {
	if in := r; opts.Context != nil {
		r = fsutil.NewReader(opts.Context, func() (io.ReadCloser, error) { return in, nil })
	}
	rows, err := newReader(r, name, opts)
	if err != nil {
		r.Close()
		return nil, err
	}
	return rows, nil
}

func newReader(r io.ReadCloser, name string, opts Options) (Reader, error) {
	switch opts.Encoding {
	case StrictUTF8, ReplaceUTF8, Windows1252:
	default:
		return nil, fmt.Errorf("unknown encoding %q: use %q or %q", opts.Encoding, ReplaceUTF8, Windows1252)
	}
	src := &source{name: name, opts: opts, closer: r}
	in, err := src.uncompressed(bufio.NewReaderSize(r, 1<<16))
	if err != nil {
		return nil, err
	}
	src.meter = &meter{r: in, left: unmetered}
	src.br = bufio.NewReaderSize(src.meter, 1<<16)
	if err := src.skipBOM(); err != nil {
		return nil, err
	}
	format := opts.Format
	if format == AutoFormat {
		if format, err = src.sniff(); err != nil {
			return nil, err
		}
	}
	switch format {
	case CSV:
		return newCSV(src, ',')
	case TSV:
		if opts.QuotedTSV {
			return newCSV(src, '\t')
		}
		return newTSV(src)
	case JSONL:
		return &jsonlReader{src: src}, nil
	case JSON:
		return newJSON(src)
	case PlainText:
		return &textReader{src: src}, nil
	case Vader:
		return &vaderReader{src: src}, nil
	case Parquet:
		return nil, fmt.Errorf("%s: parquet cannot be read from a stream or through gzip: give the plain file", name)
	case Folder:
		return nil, fmt.Errorf("%s: the aclImdb layout is a folder", name)
	}
	return nil, fmt.Errorf("%s: unknown format %q", name, format)
}

// formatOf tells the format by a file's name, AutoFormat if it does not.
func formatOf(name string) Format {
	name = strings.TrimSuffix(strings.ToLower(filepath.Base(name)), ".gz")
	if strings.HasSuffix(name, "_groundtruth.txt") {
		return Vader
	}
	switch filepath.Ext(name) {
	case ".csv":
		return CSV
	case ".tsv", ".tab":
		return TSV
	case ".jsonl", ".ndjson":
		return JSONL
	case ".json":
		return JSON
	case ".parquet":
		return Parquet
	case ".txt":
		return PlainText
	}
	return AutoFormat
}

// source is an opened text stream: decompressed, without BOM, metered.
type source struct {
	name   string
	opts   Options
	br     *bufio.Reader
	meter  *meter
	closer io.Closer
	line   int  // lines read so far
	row    int  // rows read so far
	away   bool // what comes belongs to a line that was too long
}

func (s *source) Close() error { return s.closer.Close() }

func (s *source) uncompressed(br *bufio.Reader) (io.Reader, error) {
	head, err := br.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	if !bytes.Equal(head, []byte{0x1f, 0x8b}) {
		if strings.HasSuffix(strings.ToLower(s.name), ".gz") {
			return nil, fmt.Errorf("%s: not gzip, in spite of its name", s.name)
		}
		return br, nil
	}
	z, err := gzip.NewReader(br)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return z, nil
}

// skipBOM drops a UTF-8 byte-order mark and refuses what is no text at all.
func (s *source) skipBOM() error {
	head, err := s.br.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	switch {
	case bytes.HasPrefix(head, []byte("\xef\xbb\xbf")):
		s.br.Discard(3)
	case bytes.HasPrefix(head, []byte("\xff\xfe")), bytes.HasPrefix(head, []byte("\xfe\xff")):
		return fmt.Errorf("%s: UTF-16 text: save it as UTF-8", s.name)
	case bytes.HasPrefix(head, []byte("\x28\xb5\x2f\xfd")):
		return fmt.Errorf("%s: zstd-compressed: unpack it first, or use gzip", s.name)
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return fmt.Errorf("%s: a zip archive: unpack it first", s.name)
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return fmt.Errorf("%s: a tar archive: unpack it first", s.name)
	}
	return nil
}

func (s *source) sniff() (Format, error) {
	if f := formatOf(s.name); f != AutoFormat {
		return f, nil
	}
	head, err := s.br.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%s: %w", s.name, err)
	}
	switch head = bytes.TrimLeft(head, " \t\r\n"); {
	case bytes.HasPrefix(head, []byte("{")):
		return JSONL, nil
	case bytes.HasPrefix(head, []byte("[")):
		return JSON, nil
	}
	return PlainText, nil
}

// decode applies the encoding policy to one value.
func (s *source) decode(text string) (string, error) {
	if utf8.ValidString(text) {
		return text, nil
	}
	switch s.opts.Encoding {
	case ReplaceUTF8:
		return strings.ToValidUTF8(text, "\uFFFD"), nil
	case Windows1252:
		return charmap.Windows1252.NewDecoder().String(text)
	}
	return "", errNotUTF8
}

var errNotUTF8 = errors.New("not UTF-8: convert the file, as in `iconv -f windows-1252 -t utf-8`")

// readLine returns the next line without its end (LF or CRLF). The slice is
// valid until the next call. A line over the limit is a *Error, returned as soon
// as the limit is passed: what is left of it, which may be without end, is read
// away by the next call.
func (s *source) readLine(buf []byte) ([]byte, error) {
	buf = buf[:0]
	some := false
	for {
		part, err := s.br.ReadSlice('\n')
		unended := errors.Is(err, bufio.ErrBufferFull)
		if s.away {
			if err != nil && !unended {
				return buf, s.readError(err)
			}
			s.away = unended
			continue
		}
		some = some || len(part) > 0
		if len(buf)+len(part) > s.opts.maxRow()+2 {
			s.away = unended
			s.line++
			s.row++
			return buf[:0], s.bad(s.line, errTooLong(s.opts.maxRow()))
		}
		buf = append(buf, part...)
		switch {
		case unended:
			continue
		case errors.Is(err, io.EOF) && some:
		case err != nil:
			return buf, s.readError(err)
		}
		s.line++
		buf = bytes.TrimSuffix(buf, []byte("\n"))
		return bytes.TrimSuffix(buf, []byte("\r")), nil
	}
}

// forNext is buf for the next row, or none where it is so large that it had better be freed.
func forNext(buf []byte) []byte {
	if cap(buf) > 1<<20 {
		return nil
	}
	return buf[:0]
}

// readError is an error of reading, or the end.
func (s *source) readError(err error) error {
	if errors.Is(err, io.EOF) {
		return io.EOF
	}
	return fmt.Errorf("%s: after line %d: %w", s.name, s.line, err)
}

func (s *source) bad(line int, err error) error {
	return &Error{File: s.name, Line: line, Row: s.row, Err: err}
}

func errTooLong(limit int) error { return fmt.Errorf("longer than %d bytes", limit) }

// meter stops a parser that would swallow a whole file as one row.
type meter struct {
	r    io.Reader
	left int

	separator  byte // of columns, which are counted too; 0: none
	separators int  // that may come yet
}

const unmetered = int(^uint(0) >> 1)

var (
	errMeter      = errors.New("row too long")
	errSeparators = errors.New("too many columns")
)

func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errMeter
	}
	if m.separators < 0 {
		return 0, errSeparators
	}
	n, err := m.r.Read(p[:min(len(p), m.left)])
	m.left -= n
	if m.separator != 0 {
		m.separators -= bytes.Count(p[:n], []byte{m.separator})
	}
	return n, err
}
