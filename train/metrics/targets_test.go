package metrics

import (
	"encoding/json"
	"math"
	"os"
	"testing"
)

// The scores are those of scikit-learn and scipy, by their names.
func TestTargetsScoreAsScikitLearns(t *testing.T) {
	raw, err := os.ReadFile("testdata/targets.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Regression struct {
			Want, Got [][]float32
			Scores    map[string]float64
		}
		MultiLabel struct {
			Want, Got [][]bool
			Scores    map[string]float64
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		got  []Figure
		want map[string]float64
	}{
		{Regression(golden.Regression.Want, golden.Regression.Got), golden.Regression.Scores},
		{MultiLabel(golden.MultiLabel.Want, golden.MultiLabel.Got), golden.MultiLabel.Scores},
	} {
		if len(c.got) != len(c.want) || len(c.got) == 0 {
			t.Fatalf("%d figures, want %d", len(c.got), len(c.want))
		}
		for _, f := range c.got {
			if want, ok := c.want[f.Name]; !ok || math.Abs(f.Value-want) > 1e-6 {
				t.Errorf("%s is %v, want %v", f.Name, f.Value, want)
			}
		}
	}
}

func TestScoresOfNumbersThatTellNothing(t *testing.T) {
	same := [][]float32{{1}, {1}}
	for _, f := range Regression(same, [][]float32{{1}, {3}}) {
		if want := map[string]float64{"mse": 2, "mae": 1}; f.Less != (want[f.Name] > 0) || f.Less && f.Value != want[f.Name] || !f.Less && !math.IsNaN(f.Value) {
			t.Errorf("%s of equal numbers is %v", f.Name, f.Value)
		}
	}
	for _, f := range Regression(nil, nil) {
		if !math.IsNaN(f.Value) {
			t.Errorf("%s of no rows is %v", f.Name, f.Value)
		}
	}
	for _, f := range MultiLabel(nil, nil) {
		if f.Value != 0 {
			t.Errorf("%s of no rows is %v", f.Name, f.Value)
		}
	}
}
