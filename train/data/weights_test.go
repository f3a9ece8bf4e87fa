package data_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"gopeft/train/data"
)

func TestClassWeights(t *testing.T) {
	for _, c := range []struct {
		setting string
		labels  []string
		counts  []int
		want    []float32
		says    string
	}{
		{"", []string{"a", "b"}, nil, nil, ""},
		// scikit-learn 1.9: compute_class_weight("balanced", classes=[0, 1, 2], y=[2, 0, 1, 1, 1, 2, 1, 0, 1, 1, 1])
		{"balanced", []string{"0", "1", "2"}, []int{2, 7, 2}, []float32{11. / 6, 11. / 21, 11. / 6}, ""},
		{"b=2.5", []string{"a", "b"}, nil, []float32{1, 2.5}, ""},
		{" b = 2 , a=0.5", []string{"a", "b"}, nil, []float32{0.5, 2}, ""},
		{"yes, it is=3,no=1e1", []string{"no", "yes, it is"}, nil, []float32{10, 3}, ""},
		{"x=y=4", []string{"x=y", "z"}, nil, []float32{4, 1}, ""},
		{"1=4", []string{"neg", "pos"}, nil, []float32{1, 4}, ""}, // an index, as labels in data may be
		{"01=4", []string{"0", "1"}, nil, []float32{1, 4}, ""},

		{"balanced", []string{"a", "b"}, []int{3, 0}, nil, `class "b" has no row`},
		{"a=0", []string{"a", "b"}, nil, nil, "want a number above 0"},
		{"a=-1", []string{"a", "b"}, nil, nil, "want a number above 0"},
		{"a=NaN", []string{"a", "b"}, nil, nil, "want a number above 0"},
		{"a=inf", []string{"a", "b"}, nil, nil, "want a number above 0"},
		{"a=1e60", []string{"a", "b"}, nil, nil, "want a number above 0"},
		{"a=much", []string{"a", "b"}, nil, nil, "want a number above 0"},
		{"c=2", []string{"a", "b"}, nil, nil, `label "c" is not one of those trained on`},
		{"a=1,a=2", []string{"a", "b"}, nil, nil, "twice"},
		{"=2", []string{"a", "b"}, nil, nil, "has no label"},
		{"Balanced", []string{"a", "b"}, []int{1, 1}, nil, "no LABEL=W"},
		{"a=2,b", []string{"a", "b"}, nil, nil, "no LABEL=W"},
	} {
		got, err := data.ClassWeights(c.setting, c.labels, c.counts)
		switch {
		case c.says != "":
			if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q: got %v, want one line with %q", c.setting, err, c.says)
			}
		case err != nil:
			t.Errorf("%q: %v", c.setting, err)
		case !slices.EqualFunc(got, c.want, func(a, b float32) bool { return math.Abs(float64(a-b)) < 1e-6 }) || (got == nil) != (c.want == nil):
			t.Errorf("%q: got %v, want %v", c.setting, got, c.want)
		}
	}
}
