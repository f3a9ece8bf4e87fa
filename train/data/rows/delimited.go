package rows

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// maxColumns bounds a table's width and an object's keys: a row wider than this
// is no training data.
const maxColumns = 4096

const (
	// maxHeader bounds the line of column names.
	maxHeader = 1 << 20
	// maxSeparators bounds the separators in a row, those in quotes too: as ends of columns each would take many times its memory.
	maxSeparators = 1 << 21
)

// csvReader reads a table with quotes, separated by commas (or tabs).
type csvReader struct {
	src   *source
	csv   *csv.Reader
	names []string

	lines  int // before what csv reads
	offset int64
}

func newCSV(src *source, comma rune) (Reader, error) {
	if src.opts.Comma != 0 && comma == ',' {
		comma = rune(src.opts.Comma)
	}
	if comma == '"' || comma == '\r' || comma == '\n' || comma >= 0x80 {
		return nil, fmt.Errorf("%q cannot separate CSV columns", comma)
	}
	r := &csvReader{src: src, csv: csv.NewReader(src.br)}
	r.csv.Comma, src.meter.separator = comma, byte(comma)
	names, err := r.record(min(maxHeader, src.opts.maxRow()))
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: empty: no header line", src.name)
	}
	if err != nil {
		return nil, err
	}
	r.names, err = header(src.name, names)
	r.csv.FieldsPerRecord = len(r.names)
	return r, err
}

// record reads one record of at most limit bytes.
func (r *csvReader) record(limit int) ([]string, error) {
	// What one record may pull from the file: itself, and a buffer's worth ahead.
	r.src.meter.left, r.src.meter.separators = limit+r.src.br.Size(), maxSeparators
	begin := r.offset + r.csv.InputOffset()
	record, err := r.csv.Read()
	if err == nil {
		size := 0
		for i := range record {
			size += len(record[i])
			if record[i], err = r.src.decode(record[i]); err != nil {
				break
			}
		}
		if err == nil && size > limit {
			err = errTooLong(limit)
		}
		if err != nil {
			return nil, r.src.bad(r.line(), err)
		}
		return record, nil
	}
	var parse *csv.ParseError
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.EOF
	case errors.Is(err, errSeparators):
		return nil, fmt.Errorf("%s: the row at byte %d has more than %d %q", r.src.name, begin, maxSeparators, r.csv.Comma)
	case errors.Is(err, errMeter):
		return nil, fmt.Errorf("%s: the row at byte %d is longer than %d bytes: is a quote unclosed?", r.src.name, begin, limit)
	case errors.As(err, &parse) && errors.Is(err, csv.ErrQuote) && parse.Line > parse.StartLine && r.atEnd():
		// Not a bad row to skip: it took all that follows with it.
		return nil, fmt.Errorf("%s: line %d: a quote opened here is never closed (read to line %d, the end)", r.src.name, r.lines+parse.StartLine, r.lines+parse.Line)
	case errors.As(err, &parse):
		switch {
		case errors.Is(err, csv.ErrFieldCount):
			err = fmt.Errorf("%d columns where the header has %d", len(record), len(r.names))
		case errors.Is(err, csv.ErrBareQuote):
			err = fmt.Errorf(`a bare " in column %d: quote the value and double its quotes`, parse.Column)
		case errors.Is(err, csv.ErrQuote) && parse.Line > parse.StartLine:
			err = fmt.Errorf("a quote opened here is not closed properly (read to line %d)", r.lines+parse.Line)
		case errors.Is(err, csv.ErrQuote):
			err = fmt.Errorf(`a stray or unclosed " at byte %d of the line`, parse.Column)
		default:
			err = parse.Err
		}
		return nil, r.src.bad(r.lines+parse.StartLine, err)
	}
	return nil, fmt.Errorf("%s: after row %d: %w", r.src.name, r.src.row, err)
}

// atEnd reports whether the file was read to its end.
func (r *csvReader) atEnd() bool {
	_, err := r.src.br.Peek(1)
	return errors.Is(err, io.EOF)
}

func (r *csvReader) Next() (Row, error) {
	r.src.row++
	record, err := r.record(r.src.opts.maxRow())
	if err != nil {
		return Row{}, err
	}
	row := tableRow(r.src, r.line(), r.names, record)
	r.renew(record)
	return row, nil
}

// line is where the last record begins.
func (r *csvReader) line() int {
	line, _ := r.csv.FieldPos(0)
	return r.lines + line
}

// renew puts another parser in place of one that has read a long record: it would keep two copies.
func (r *csvReader) renew(record []string) {
	size := 0
	for _, field := range record {
		size += len(field)
	}
	if size < 1<<20 {
		return
	}
	last := len(record) - 1
	line, _ := r.csv.FieldPos(last)
	r.lines += line + strings.Count(record[last], "\n")
	r.offset += r.csv.InputOffset()
	old := r.csv
	r.csv = csv.NewReader(r.src.br) // which it reads as it is
	r.csv.Comma, r.csv.FieldsPerRecord = old.Comma, old.FieldsPerRecord
}

func (r *csvReader) Close() error { return r.src.Close() }

// tsvReader reads the GLUE dialect: tabs separate, lines end rows, quotes are
// ordinary characters.
type tsvReader struct {
	src   *source
	names []string
	buf   []byte
}

func newTSV(src *source) (Reader, error) {
	r := &tsvReader{src: src}
	limit := src.opts.MaxRowBytes
	src.opts.MaxRowBytes = min(maxHeader, src.opts.maxRow())
	names, err := r.fields()
	src.opts.MaxRowBytes = limit
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: empty: no header line", src.name)
	}
	if err != nil {
		return nil, err
	}
	r.names, err = header(src.name, names)
	r.src.row = 0
	return r, err
}

func (r *tsvReader) fields() ([]string, error) {
	for {
		var err error
		if r.buf, err = r.src.readLine(r.buf); err != nil {
			return nil, err
		}
		if len(r.buf) == 0 {
			continue
		}
		r.src.row++
		text, err := r.src.decode(string(r.buf))
		r.buf = forNext(r.buf)
		if err != nil {
			return nil, r.src.bad(r.src.line, err)
		}
		switch n := strings.Count(text, "\t") + 1; {
		case r.names == nil && n > maxColumns:
			return nil, tooWide(r.src.name, n)
		case r.names != nil && n != len(r.names):
			return nil, r.src.bad(r.src.line, fmt.Errorf("%d columns where the header has %d", n, len(r.names)))
		}
		return strings.Split(text, "\t"), nil
	}
}

func (r *tsvReader) Next() (Row, error) {
	fields, err := r.fields()
	if err != nil {
		return Row{}, err
	}
	return tableRow(r.src, r.src.line, r.names, fields), nil
}

func (r *tsvReader) Close() error { return r.src.Close() }

// header checks the column names of a table.
func header(file string, names []string) ([]string, error) {
	if len(names) > maxColumns {
		return nil, tooWide(file, len(names))
	}
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		names[i] = strings.TrimSpace(name)
		if strings.ContainsRune(names[i], '\r') {
			return nil, fmt.Errorf("%s: line 1: a carriage return within a column's name: lines must end in LF or CRLF", file)
		}
		// pandas writes its index under an empty name; only a second one is ambiguous.
		if seen[names[i]] {
			return nil, fmt.Errorf("%s: line 1: two columns are named %q", file, names[i])
		}
		seen[names[i]] = true
	}
	return names, nil
}

func tooWide(file string, n int) error {
	return fmt.Errorf("%s: line 1: %d columns, more than %d", file, n, maxColumns)
}

func tableRow(src *source, line int, names, fields []string) Row {
	values := make([]any, len(fields))
	for i, f := range fields {
		values[i] = f
	}
	return Row{File: src.name, Line: line, Number: src.row, names: names, values: values}
}

// vaderReader reads the ground-truth files of the VADER paper: id, mean rating
// from −4 to 4 and text, separated by tabs, without a header. The label is
// "positive" above 0 and "negative" below; rows rated exactly 0 are left out and
// counted.
type vaderReader struct {
	src     *source
	buf     []byte
	neutral int
}

var vaderColumns = []string{"id", "rating", "text", "label"}

func (r *vaderReader) Next() (Row, error) {
	for {
		var err error
		if r.buf, err = r.src.readLine(r.buf); err != nil {
			return Row{}, err
		}
		if len(r.buf) == 0 {
			continue
		}
		r.src.row++
		fields := bytes.SplitN(r.buf, []byte("\t"), 3)
		if len(fields) != 3 {
			return Row{}, r.src.bad(r.src.line, fmt.Errorf("%d columns where id, rating and text are wanted", len(fields)))
		}
		rating, err := strconv.ParseFloat(string(fields[1]), 64)
		if err != nil || math.IsNaN(rating) || math.Abs(rating) > 4 {
			return Row{}, r.src.bad(r.src.line, fmt.Errorf("rating %s is no number from -4 to 4", Brief(string(fields[1]))))
		}
		if rating == 0 {
			r.neutral++
			continue
		}
		text, err := r.src.decode(string(fields[2]))
		if err != nil {
			return Row{}, r.src.bad(r.src.line, err)
		}
		label := "positive"
		if rating < 0 {
			label = "negative"
		}
		values := []string{strings.ToValidUTF8(string(fields[0]), "\uFFFD"), string(fields[1]), text, label}
		return tableRow(r.src, r.src.line, vaderColumns, values), nil
	}
}

// LeftOut counts the rows that the format gives no label to.
func (r *vaderReader) LeftOut() int { return r.neutral }

func (r *vaderReader) Close() error { return r.src.Close() }
