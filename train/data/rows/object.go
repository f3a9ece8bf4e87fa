package rows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// maxValues bounds the values of a row, of all its lists and objects: each takes many times the memory of its few bytes.
	maxValues = 1 << 21
	// objectValues is how many values an object counts for, beside its own.
	objectValues = 8
)

// decodeObject decodes an object that is valid UTF-8. Beside it and its values no memory is taken.
func decodeObject(raw []byte, row *Row) error {
	raw = bytes.TrimSpace(raw)
	end := len(raw)
	if end > 0 && raw[0] == '{' {
		end = objectEnd(raw)
	}
	if err := json.Unmarshal(raw[:end], &struct{}{}); err != nil { // which checks it whole
		if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
			return fmt.Errorf("%s where an object is wanted", wrong.Value)
		}
		return jsonFault(err)
	}
	if raw[0] != '{' { // null, which any type takes
		return fmt.Errorf("%s where an object is wanted", raw)
	}
	if rest := bytes.TrimSpace(raw[end:]); len(rest) > 0 {
		return fmt.Errorf("%s after the object", Brief(string(rest[:min(len(rest), 100)])))
	}
	d := valid{b: raw[:end], left: maxValues}
	return d.members(func(key string) error {
		if slices.Contains(row.names, key) {
			return fmt.Errorf("key %s twice", Brief(key))
		}
		if len(row.names) == maxColumns {
			return fmt.Errorf("more than %d keys", maxColumns)
		}
		value, err := d.value()
		row.names, row.values = append(row.names, key), append(row.values, value)
		return err
	})
}

// objectEnd is where the object that text begins with ends, or all of text if it does not.
func objectEnd(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i += textEnd(text[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(text)
}

// textEnd is where the string that text begins with ends, behind its quote, or all of text if it does not.
func textEnd(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// valid decodes what is known to be valid JSON. Numbers stay as they are written.
type valid struct {
	b    []byte
	at   int
	left int // values that there may be yet
}

// next skips white space and gives the byte behind it.
func (d *valid) next() byte {
	for ; ; d.at++ {
		switch c := d.b[d.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
}

func (d *valid) value() (any, error) {
	if d.left--; d.left < 0 {
		return nil, fmt.Errorf("more than %d values", maxValues)
	}
	switch d.next() {
	case '"':
		return d.text()
	case '{':
		d.left -= objectValues
		m := map[string]any{}
		return m, d.members(func(key string) (err error) {
			m[key], err = d.value()
			return err
		})
	case '[':
		list := []any{}
		return list, d.items(']', func() error {
			v, err := d.value()
			list = append(list, v)
			return err
		})
	case 't':
		d.at += len("true")
		return true, nil
	case 'f':
		d.at += len("false")
		return false, nil
	case 'n':
		d.at += len("null")
		return nil, nil
	}
	from := d.at
	for d.at < len(d.b) && strings.IndexByte("+-.0123456789eE", d.b[d.at]) >= 0 {
		d.at++
	}
	return json.Number(d.b[from:d.at]), nil
}

func (d *valid) text() (s string, err error) {
	raw := d.b[d.at : d.at+textEnd(d.b[d.at:])]
	d.at += len(raw)
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	return s, json.Unmarshal(raw, &s)
}

// members calls use with each key of an object, to take its value.
func (d *valid) members(use func(key string) error) error {
	d.next()
	return d.items('}', func() error {
		d.next()
		key, err := d.text()
		if err != nil {
			return err
		}
		d.next()
		d.at++ // the colon
		return use(key)
	})
}

// items calls use for each item of a list or object, up to the bracket that closes it.
func (d *valid) items(closing byte, use func() error) error {
	d.at++ // the bracket that opens it
	for {
		switch d.next() {
		case closing:
			d.at++
			return nil
		case ',':
			d.at++
		}
		if err := use(); err != nil {
			return err
		}
	}
}
