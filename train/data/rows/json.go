package rows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// textReader gives each line as column "text", empty lines included, so that
// answers line up with lines.
type textReader struct {
	src *source
	buf []byte
}

var textColumns = []string{"text"}

func (r *textReader) Next() (Row, error) {
	var err error
	if r.buf, err = r.src.readLine(r.buf); err != nil {
		return Row{}, err
	}
	r.src.row++
	text, err := r.src.decode(string(r.buf))
	r.buf = forNext(r.buf)
	if err != nil {
		return Row{}, r.src.bad(r.src.line, err)
	}
	return tableRow(r.src, r.src.line, textColumns, []string{text}), nil
}

func (r *textReader) Close() error { return r.src.Close() }

// jsonlReader reads one object per line; blank lines are no rows.
type jsonlReader struct {
	src *source
	buf []byte
}

func (r *jsonlReader) Next() (Row, error) {
	for {
		var err error
		if r.buf, err = r.src.readLine(r.buf); err != nil {
			return Row{}, err
		}
		raw := bytes.TrimSpace(r.buf)
		if len(raw) == 0 {
			continue
		}
		r.src.row++
		row, err := objectRow(r.src, r.src.line, raw)
		r.buf = forNext(r.buf)
		return row, err
	}
}

func (r *jsonlReader) Close() error { return r.src.Close() }

// jsonReader reads an array of objects, or objects one after the other, without
// holding more than one object.
type jsonReader struct {
	src   *source
	array bool
	first bool
	done  bool
	buf   []byte
}

func newJSON(src *source) (Reader, error) {
	r := &jsonReader{src: src, first: true}
	src.line = 1
	c, err := r.skipSpace()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: empty: a JSON array of objects is wanted", src.name)
	}
	if err != nil {
		return nil, err
	}
	switch c {
	case '[':
		r.array = true
		_, err = src.br.ReadByte()
	case '{':
	default:
		err = fmt.Errorf("%s: starts with %q: a JSON array of objects is wanted", src.name, c)
	}
	return r, err
}

// Next returns the next object. What is wrong between objects is final: there is
// no telling where the next row starts.
func (r *jsonReader) Next() (Row, error) {
	if r.done {
		return Row{}, io.EOF
	}
	if err := r.separator(); err != nil {
		return Row{}, err
	}
	line := r.src.line
	if err := r.object(); err != nil {
		return Row{}, err
	}
	r.src.row++
	row, err := objectRow(r.src, line, r.buf)
	r.buf = forNext(r.buf)
	return row, err
}

// separator reads on to the brace of the next object, or to the end.
func (r *jsonReader) separator() error {
	c, err := r.skipSpace()
	if !r.array {
		if err == nil && c != '{' {
			err = r.badStructure(fmt.Sprintf("%q where an object should start", c))
		}
		return err
	}
	if errors.Is(err, io.EOF) {
		return r.badStructure("the array is not closed")
	}
	if err != nil {
		return err
	}
	if c == ']' {
		r.src.br.ReadByte()
		if c, err = r.skipSpace(); err == nil {
			return r.badStructure(fmt.Sprintf("%q after the array's end", c))
		}
		r.done = errors.Is(err, io.EOF)
		return err
	}
	if !r.first {
		if c != ',' {
			return r.badStructure(fmt.Sprintf("%q where a comma should be", c))
		}
		r.src.br.ReadByte()
		if c, err = r.skipSpace(); err != nil {
			return r.badStructure("the array is not closed")
		}
	}
	r.first = false
	if c != '{' {
		return r.badStructure(fmt.Sprintf("%q where an object should start", c))
	}
	return nil
}

// object collects one object's bytes, from brace to matching brace.
func (r *jsonReader) object() error {
	r.buf = r.buf[:0]
	start, depth, quoted, escaped := r.src.line, 0, false, false
	for {
		c, err := r.src.br.ReadByte()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s: the object that starts on line %d is not closed", r.src.name, start)
		}
		if err != nil {
			return fmt.Errorf("%s: line %d: %w", r.src.name, r.src.line, err)
		}
		if len(r.buf) >= r.src.opts.maxRow() {
			return fmt.Errorf("%s: the object that starts on line %d is longer than %d bytes", r.src.name, start, r.src.opts.maxRow())
		}
		r.buf = append(r.buf, c)
		switch {
		case c == '\n':
			r.src.line++
		case escaped:
			escaped = false
		case quoted:
			escaped = c == '\\'
			quoted = c != '"'
		case c == '"':
			quoted = true
		case c == '{', c == '[':
			depth++
		case c == '}', c == ']':
			if depth--; depth == 0 {
				return nil
			}
		}
	}
}

// skipSpace peeks at the next byte that is not white space.
func (r *jsonReader) skipSpace() (byte, error) {
	for {
		head, err := r.src.br.Peek(1)
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, fmt.Errorf("%s: line %d: %w", r.src.name, r.src.line, err)
		}
		switch head[0] {
		case '\n':
			r.src.line++
		case ' ', '\t', '\r':
		default:
			return head[0], nil
		}
		r.src.br.ReadByte()
	}
}

// badStructure is an error between objects, which ends the reading.
func (r *jsonReader) badStructure(what string) error {
	return fmt.Errorf("%s: line %d: %s", r.src.name, r.src.line, what)
}

func (r *jsonReader) Close() error { return r.src.Close() }

// objectRow decodes one object. Keys are exact, and a key twice is a bad row:
// encoding/json alone would keep the last silently.
func objectRow(src *source, line int, raw []byte) (Row, error) {
	if !utf8.Valid(raw) {
		text, err := src.decode(string(raw))
		if err != nil {
			return Row{}, src.bad(line, err)
		}
		raw = []byte(text)
	}
	row := Row{File: src.name, Line: line, Number: src.row}
	if err := decodeObject(raw, &row); err != nil {
		return Row{}, src.bad(line, err)
	}
	return row, nil
}

func jsonFault(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		if syntax.Error() == "unexpected end of JSON input" {
			return errors.New("the object is cut off")
		}
		return fmt.Errorf("bad JSON at byte %d: %w", syntax.Offset, err)
	}
	return fmt.Errorf("bad JSON: %w", err)
}
