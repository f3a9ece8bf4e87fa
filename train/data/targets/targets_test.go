package targets_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"gopeft/train/data/targets"
)

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string
		says  string
	}{
		{" 1.5 ", "[1.5]", ""}, {"-2e3", "[-2000]", ""}, {json.Number("0.25"), "[0.25]", ""}, {int64(3), "[3]", ""}, {float32(0.5), "[0.5]", ""},
		{[]any{json.Number("1"), "2", 3.5}, "[1 2 3.5]", ""},
		{"", "", "no target"}, {nil, "", "no target"}, {"high", "", `target "high" is no number`}, {"NaN", "", "finite"}, {"inf", "", "finite"}, {"1e400", "", "finite"},
		{json.Number("1e39"), "", "finite"}, {math.NaN(), "", "finite"}, {true, "", "a bool"}, {[]any{}, "", "empty list"}, {[]any{"1", "x"}, "", "no number"},
		{map[string]any{}, "", "an object"},
	} {
		got, err := targets.Numbers(c.value)
		if c.says == "" && (err != nil || fmt.Sprint(got) != c.want) {
			t.Errorf("%v: got %v, %v, want %s", c.value, got, err, c.want)
		}
		if c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%v: got %v, want %q", c.value, err, c.says)
		}
	}
}

func TestLabels(t *testing.T) {
	for _, c := range []struct {
		value any
		want  string
		says  string
	}{
		{[]any{"a", "b"}, "[a b]", ""}, {`["a;b", "c"]`, "[a;b c]", ""}, {"a;b", "[a b]", ""}, {" a | b ", "[a b]", ""}, {"a, b", "[a, b]", ""}, {"a;", "[a]", ""},
		{"", "[]", ""}, {nil, "[]", ""}, {"[]", "[]", ""}, {json.Number("3"), "[3]", ""},
		{"['a', 'b']", "", "no JSON list"}, {`["a"] b`, "", "no JSON list"}, {map[string]any{}, "", "an object"},
	} {
		got, err := targets.Labels(c.value)
		if c.says == "" && (err != nil || fmt.Sprint(got) != c.want) {
			t.Errorf("%v: got %v, %v, want %s", c.value, got, err, c.want)
		}
		if c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%v: got %v, want %q", c.value, err, c.says)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, v := range []any{"1", " TRUE ", true, json.Number("1"), int64(1), 1.0} {
		if got, err := targets.Flag(v); err != nil || !got {
			t.Errorf("%v: %v, %v", v, got, err)
		}
	}
	for _, v := range []any{"0", "False", false, int64(0), "0.0"} {
		if got, err := targets.Flag(v); err != nil || got {
			t.Errorf("%v: %v, %v", v, got, err)
		}
	}
	for _, v := range []any{"", nil, "2", "yes", 0.5} {
		if _, err := targets.Flag(v); err == nil || !strings.Contains(err.Error(), "0 or 1") {
			t.Errorf("%v: %v", v, err)
		}
	}
}
