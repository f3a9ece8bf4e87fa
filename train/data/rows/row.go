package rows

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Row is one record of a data file: named values in the file's order.
//
// A value is a string (CSV, TSV, text), or what JSON and Parquet can hold:
// string, bool, json.Number, int64, float64, nil, []any, map[string]any.
type Row struct {
	File   string
	Line   int // physical line the row starts on, from 1; 0 where the format has none
	Number int // data row, from 1, counting bad rows

	names  []string
	values []any
}

// Columns names the row's values in order. The slice is shared: do not modify.
func (r Row) Columns() []string { return r.names }

// Lookup returns the value of the column with exactly that name.
func (r Row) Lookup(column string) (any, bool) {
	// Rows have few columns and tables share names: a scan beats a map per row.
	if i := slices.Index(r.names, column); i >= 0 {
		return r.values[i], true
	}
	return nil, false
}

// Text returns a column as text: a string as it is, a number or bool as JSON
// writes it. Null, lists and objects are errors.
func (r Row) Text(column string) (string, error) {
	v, ok := r.Lookup(column)
	if !ok {
		return "", r.Errorf("no column %q", column)
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case float64:
		return floatText(v, 64), nil
	case float32:
		return floatText(float64(v), 32), nil
	case bool:
		return strconv.FormatBool(v), nil
	case nil:
		return "", r.Errorf("column %q is null", column)
	}
	return "", r.Errorf("column %q holds %s, not text", column, KindOf(v))
}

// floatText is the shortest text of a number, as JSON writes it: with an exponent only when it is very large or small.
func floatText(v float64, bits int) string {
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		return strconv.FormatFloat(v, 'e', -1, bits)
	}
	return strconv.FormatFloat(v, 'f', -1, bits)
}

// IDs returns a column that holds token ids: a non-empty list of integers that
// fit an int32 and are at least min.
func (r Row) IDs(column string, min int64) ([]int64, error) {
	v, ok := r.Lookup(column)
	if !ok {
		return nil, r.Errorf("no column %q", column)
	}
	list, ok := v.([]any)
	if !ok {
		return nil, r.Errorf("column %q holds %s, not a list of token ids", column, KindOf(v))
	}
	if len(list) == 0 {
		return nil, r.Errorf("column %q is an empty list", column)
	}
	ids := make([]int64, len(list))
	for i, e := range list {
		id, ok := Integer(e)
		if !ok || id < min || id > math.MaxInt32 {
			return nil, r.Errorf("column %q: element %d is %s, not a token id", column, i, Brief(e))
		}
		ids[i] = id
	}
	return ids, nil
}

// Errorf makes the error that blames this row.
func (r Row) Errorf(format string, args ...any) error {
	return &Error{File: r.File, Line: r.Line, Row: r.Number, Err: fmt.Errorf(format, args...)}
}

// Error is what is wrong with one row. The reader that returned it can go on
// with the next row.
type Error struct {
	File string
	Line int // from 1; 0 if the format has no lines
	Row  int // data row, from 1
	Err  error
}

func (e *Error) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("%s: line %d: %v", e.File, e.Line, e.Err)
	}
	return fmt.Sprintf("%s: row %d: %v", e.File, e.Row, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// IsBad reports whether err blames one row alone, so that the next one can be read.
func IsBad(err error) bool {
	var bad *Error
	return errors.As(err, &bad)
}

// Integer reads a JSON or Parquet value that is a whole number, 3.0 included.
func Integer(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, true
		}
		f, err := v.Float64()
		if err != nil {
			return 0, false
		}
		return WholeFloat(f)
	case float64:
		return WholeFloat(v)
	case float32:
		return WholeFloat(float64(v))
	}
	return 0, false
}

// WholeFloat gives a float that is a whole number as an integer, if it is one that a float64 holds exactly.
func WholeFloat(f float64) (int64, bool) {
	const exact = 1 << 53 // beyond it a float64 no longer tells integers apart
	if f != math.Trunc(f) || math.Abs(f) > exact {
		return 0, false
	}
	return int64(f), true
}

// KindOf names a value's kind in an error, such as "a list".
func KindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "text"
	case bool:
		return "a bool"
	case json.Number, int64, float64, float32:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("%T", v)
}

// Brief shows a value in an error: short, on one line.
func Brief(v any) string {
	s := fmt.Sprint(v)
	if _, ok := v.(string); ok {
		s = strconv.Quote(s)
	}
	if v == nil {
		s = "null"
	}
	const most = 60
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// BriefList names columns or labels in an error: quoted, bounded.
func BriefList(names []string) string {
	const most = 20
	var b strings.Builder
	for i, name := range names {
		if i == most {
			fmt.Fprintf(&b, ", … (%d in all)", len(names))
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(Brief(name))
	}
	return b.String()
}
