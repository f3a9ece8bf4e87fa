package chat

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// toJSON is Python's json.dumps without escapes of other scripts, as transformers sets the filter: separators
// with a space, a message's role before its content.
func toJSON(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	if in.IsError() {
		return in
	}
	indent := 0
	if v := params.KwArgs["indent"]; v != nil && v.IsInteger() {
		indent = min(max(v.Integer(), 0), 16)
	}
	if err := checkSize(in.Interface()); err != nil {
		return exec.AsValue(err)
	}
	var b bytes.Buffer
	if err := writeJSON(&b, in.Interface(), indent, 0); err != nil {
		return exec.AsValue(fmt.Errorf("tojson: %w", err))
	}
	return exec.AsSafeValue(b.String())
}

func writeJSON(b *bytes.Buffer, v any, indent, depth int) error {
	if value, ok := v.(*exec.Value); ok {
		v = value.Interface()
	}
	if pairs, ok := v.(*exec.Dict); ok {
		return writeItems(b, '{', '}', len(pairs.Pairs), indent, depth, func(i int) error {
			return writeEntry(b, pairs.Pairs[i].Key.String(), pairs.Pairs[i].Value, indent, depth)
		})
	}
	r := reflect.ValueOf(v)
	switch r.Kind() {
	case reflect.Slice, reflect.Array:
		return writeItems(b, '[', ']', r.Len(), indent, depth, func(i int) error {
			return writeJSON(b, r.Index(i).Interface(), indent, depth+1)
		})
	case reflect.Map:
		type entry struct {
			key   string
			value any
		}
		var entries []entry
		for it := r.MapRange(); it.Next(); {
			entries = append(entries, entry{fmt.Sprint(it.Key().Interface()), it.Value().Interface()})
		}
		slices.SortFunc(entries, func(a, b entry) int {
			if a.key == "role" || b.key == "role" { // the order in which a message is written
				return strings.Compare(b.key, a.key)
			}
			return strings.Compare(a.key, b.key)
		})
		return writeItems(b, '{', '}', len(entries), indent, depth, func(i int) error {
			return writeEntry(b, entries[i].key, entries[i].value, indent, depth)
		})
	case reflect.Func, reflect.Chan, reflect.Pointer, reflect.Struct:
		return errors.New("a value that is no data")
	}
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // Encode ends its line
	return nil
}

func writeEntry(b *bytes.Buffer, key string, value any, indent, depth int) error {
	if err := writeJSON(b, key, indent, depth+1); err != nil {
		return err
	}
	b.WriteString(": ")
	return writeJSON(b, value, indent, depth+1)
}

func writeItems(b *bytes.Buffer, open, shut byte, n, indent, depth int, item func(int) error) error {
	line := func(depth int) {
		if indent > 0 {
			b.WriteByte('\n')
			b.WriteString(strings.Repeat(" ", indent*depth))
		}
	}
	b.WriteByte(open)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
			if indent == 0 {
				b.WriteByte(' ')
			}
		}
		line(depth + 1)
		if err := item(i); err != nil {
			return err
		}
	}
	if n > 0 {
		line(depth)
	}
	b.WriteByte(shut)
	return nil
}
