package chat

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// jsonWriter writes as Python's json.dumps.
type jsonWriter struct {
	bytes.Buffer
	item, key string // separators
	lines     bool   // an element a line
	indent    string
	ascii     bool // with escapes of other scripts
	sorted    bool
}

// toJSON is json.dumps without escapes of other scripts, as transformers sets the filter.
func toJSON(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	a, err := arguments(params, 0, "ensure_ascii", "indent", "separators", "sort_keys")
	if err != nil {
		return exec.AsValue(err)
	}
	w := &jsonWriter{item: ", ", key: ": ", ascii: a[0] != nil && a[0].IsTrue(), sorted: a[3] != nil && a[3].IsTrue()}
	if !none(a[1]) {
		w.item, w.lines, w.indent = ",", true, a[1].String()
		if a[1].IsInteger() {
			w.indent = strings.Repeat(" ", min(max(a[1].Integer(), 0), 17))
		}
		if len(w.indent) > 16 {
			return exec.AsValue(errors.New("indents by 16 characters at most"))
		}
	}
	if !none(a[2]) {
		if !a[2].IsList() || a[2].Len() != 2 {
			return exec.AsValue(errors.New("takes two separators"))
		}
		w.item, w.key = a[2].Index(0).String(), a[2].Index(1).String()
	}
	if err := w.write(in, 0); err != nil {
		return exec.AsValue(err)
	}
	return exec.AsSafeValue(w.Buffer.String())
}

func (w *jsonWriter) write(v *exec.Value, depth int) error {
	if dict, ok := v.Interface().(*exec.Dict); ok {
		return w.dict(dict, depth)
	}
	switch {
	case v.IsNil():
		w.WriteString("null")
	case v.IsBool():
		w.WriteString(strings.ToLower(v.String()))
	case v.IsNumber():
		w.WriteString(v.String())
	case v.IsString():
		w.text(v.String())
	case v.IsList() && v.Val.Kind() != reflect.Pointer:
		return w.items('[', ']', v.Len(), depth, func(i int) error { return w.write(v.Index(i), depth+1) })
	default:
		return fmt.Errorf("%s is no data", kind(v))
	}
	return nil
}

func (w *jsonWriter) dict(dict *exec.Dict, depth int) error {
	pairs := dict.Pairs
	if w.sorted {
		pairs = slices.Clone(pairs)
		slices.SortStableFunc(pairs, func(a, b *exec.Pair) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	}
	return w.items('{', '}', len(pairs), depth, func(i int) error {
		name := pairs[i].Key.String()
		switch {
		case pairs[i].Key.IsBool():
			name = strings.ToLower(name)
		case pairs[i].Key.IsNil():
			name = "null"
		}
		w.text(name)
		w.WriteString(w.key)
		return w.write(pairs[i].Value, depth+1)
	})
}

func (w *jsonWriter) items(open, shut byte, n, depth int, item func(int) error) error {
	w.WriteByte(open)
	for i := range n {
		if i > 0 {
			w.WriteString(w.item)
		}
		w.line(depth + 1)
		if err := item(i); err != nil {
			return err
		}
		if w.Len() > maxValue {
			return errTooLarge
		}
	}
	if n > 0 {
		w.line(depth)
	}
	w.WriteByte(shut)
	return nil
}

func (w *jsonWriter) line(depth int) {
	if w.lines {
		w.WriteByte('\n')
		w.WriteString(strings.Repeat(w.indent, depth))
	}
}

func (w *jsonWriter) text(s string) {
	short := map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}
	w.WriteByte('"')
	for _, r := range s {
		escape, ok := short[r]
		switch {
		case ok:
			w.WriteString(escape)
		case w.ascii && r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(w, `\u%04x\u%04x`, high, low)
		case r < ' ' || w.ascii && r > '~':
			fmt.Fprintf(w, `\u%04x`, r)
		default:
			w.WriteRune(r)
		}
	}
	w.WriteByte('"')
}
