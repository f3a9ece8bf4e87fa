// Package targets reads what a row of data is labelled with where that is not one class: numbers, or any number of names.
package targets

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"gopeft/train/data/rows"
)

// Number reads a value as a finite number that fp32 holds.
func Number(v any) (float32, error) {
	var n float64
	var err error
	switch v := v.(type) {
	case string:
		text := strings.TrimSpace(v)
		if text == "" {
			return 0, errors.New("no target")
		}
		n, err = strconv.ParseFloat(text, 64)
	case json.Number:
		n, err = v.Float64()
	case int64:
		n = float64(v)
	case float64:
		n = v
	case float32:
		n = float64(v)
	case nil:
		return 0, errors.New("no target")
	default:
		return 0, fmt.Errorf("target is %s: a number is wanted", rows.KindOf(v))
	}
	if math.IsNaN(n) || math.IsInf(n, 0) || errors.Is(err, strconv.ErrRange) || math.Abs(n) > math.MaxFloat32 {
		return 0, fmt.Errorf("target %s: a finite number is wanted", rows.Brief(v))
	}
	if err != nil {
		return 0, fmt.Errorf("target %s is no number", rows.Brief(v))
	}
	return float32(n), nil
}

// Numbers reads a value that is a number, or a list of them.
func Numbers(v any) ([]float32, error) {
	list, ok := v.([]any)
	if !ok {
		n, err := Number(v)
		return []float32{n}, err
	}
	if len(list) == 0 {
		return nil, errors.New("targets are an empty list")
	}
	out := make([]float32, len(list))
	for i, e := range list {
		var err error
		if out[i], err = Number(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Flag reads a value of a column that tells whether a label is given: 0 or 1, true or false.
func Flag(v any) (bool, error) {
	text := strings.ToLower(strings.TrimSpace(fmt.Sprint(v)))
	switch text {
	case "0", "false", "0.0":
		return false, nil
	case "1", "true", "1.0":
		return true, nil
	}
	return false, fmt.Errorf("%s where 0 or 1 is wanted", rows.Brief(v))
}

// Labels reads a value that is a list of labels: a list, a text that is one in JSON, or a text with labels between ; or |.
// An empty one has none.
func Labels(v any) ([]any, error) {
	switch v := v.(type) {
	case []any:
		return v, nil
	case nil:
		return nil, nil
	case string:
		text := strings.TrimSpace(v)
		if strings.HasPrefix(text, "[") {
			var list []any
			d := json.NewDecoder(strings.NewReader(text))
			d.UseNumber()
			if err := d.Decode(&list); err != nil || d.More() {
				return nil, fmt.Errorf(`labels %s are no JSON list: want ["a", "b"], or a;b or a|b`, rows.Brief(text))
			}
			return list, nil
		}
		if text == "" {
			return nil, nil
		}
		var out []any
		for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' || r == '|' }) {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
		return out, nil
	case map[string]any:
		return nil, fmt.Errorf("labels are %s: a list is wanted", rows.KindOf(v))
	}
	return []any{v}, nil // one number or bool
}
