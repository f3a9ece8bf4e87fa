package metrics

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScoresEqualScikitLearns(t *testing.T) {
	content, err := os.ReadFile("testdata/scikit-learn.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name              string
		Labels, Predicted []int
		Classes           int
		Accuracy          float64
		MacroF1           float64 `json:"macro_f1"`
		MicroF1           float64 `json:"micro_f1"`
		WeightedF1        float64 `json:"weighted_f1"`
		Precision, Recall []float64
		F1                []float64
		Confusion         [][]int
	}
	if err := json.Unmarshal(content, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for _, want := range cases {
		t.Run(want.Name, func(t *testing.T) {
			c, err := Count(want.Labels, want.Predicted, want.Classes)
			if err != nil {
				t.Fatal(err)
			}
			got := c.Scores(nil)
			same := func(name string, got, want float64) {
				t.Helper()
				if math.Abs(got-want) > 1e-12 {
					t.Errorf("%s %v, want %v", name, got, want)
				}
			}
			same("accuracy", got.Accuracy, want.Accuracy)
			same("macro F1", got.MacroF1, want.MacroF1)
			same("micro F1", got.MicroF1, want.MicroF1)
			same("weighted F1", got.WeightedF1, want.WeightedF1)
			for k := range want.Classes {
				s := c.Class(k)
				same("precision", s.Precision, want.Precision[k])
				same("recall", s.Recall, want.Recall[k])
				same("F1", s.F1, want.F1[k])
			}
			if diff := cmp.Diff(want.Confusion, got.Confusion); diff != "" {
				t.Errorf("confusion (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNothingCounted(t *testing.T) {
	c := NewConfusion(2)
	if s := c.Scores(nil); s.Accuracy != 0 || s.MacroF1 != 0 || s.WeightedF1 != 0 {
		t.Errorf("scores %+v", s)
	}
}

func TestBadRowsAreNamed(t *testing.T) {
	tests := []struct {
		labels, predicted []int
		want              string
	}{
		{[]int{0}, nil, "1 labels, 0 predictions"},
		{[]int{0, 2}, []int{0, 0}, "row 1: label 2"},
		{[]int{0, 1}, []int{0, -1}, "row 1: label 1, prediction -1"},
	}
	for _, test := range tests {
		if _, err := Count(test.labels, test.predicted, 2); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want one with %q", err, test.want)
		}
	}
}

func TestVeryManyClasses(t *testing.T) {
	const classes = 1_000_000 // whose matrix would take 8 TB
	c, err := Count([]int{0, 5, classes - 1, 7}, []int{0, 5, classes - 1, 8}, classes)
	if err != nil {
		t.Fatal(err)
	}
	if c.Accuracy() != 0.75 || c.At(7, 8) != 1 || c.At(8, 7) != 0 || math.Abs(c.MacroF1()-0.6) > 1e-12 || c.Table() != nil {
		t.Errorf("accuracy %v, macro F1 %v", c.Accuracy(), c.MacroF1())
	}
	few := NewConfusion(LargestTable + 1)
	var text strings.Builder
	if s := few.Scores(nil); s.Confusion != nil || few.WriteText(&text, nil) != nil || strings.Count(text.String(), "\n") != LargestTable+2 {
		t.Errorf("%d rows, %d lines", len(s.Confusion), strings.Count(text.String(), "\n"))
	}
}
