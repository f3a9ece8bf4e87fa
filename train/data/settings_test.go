package data

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSettingsCheck(t *testing.T) {
	for _, c := range []struct {
		name string
		s    Settings
		want string
	}{
		{"three files", Settings{Train: "a.csv", Val: "b.csv", Test: "c.csv", Split: []float64{0.8, 0.1, 0.1}, Stratify: true}, ""},
		{"one file", Settings{Data: "a.csv", Split: []float64{0.9, 0.1}}, ""},
		{"one file, split left out", Settings{Data: "a.csv"}, ""},
		{"no data", Settings{Val: "b.csv"}, "no data: give --train, or --data with --split"},
		{"both", Settings{Data: "a.csv", Test: "c.csv"}, "--data is one file that --split divides: it goes with none of --train, --val and --test"},
		{"length below 0", Settings{Train: "a.csv", MaxLength: -1}, "--max-length is -1, want at least 0"},
		{"limit below 0", Settings{Train: "a.csv", Limit: -2}, "--limit is -2, want at least 0"},
		{"sample below 0", Settings{Train: "a.csv", Sample: -3}, "--sample is -3, want at least 0"},
		{"one share", Settings{Data: "a.csv", Split: []float64{1}}, "--split: 1 ratios: give train,val or train,val,test"},
		{"shares over 1", Settings{Data: "a.csv", Split: []float64{0.8, 0.3}}, "--split: the ratios sum to 1.1, not 1"},
		{"shares of no file", Settings{Train: "a.csv", Split: []float64{0.8, 0.3}}, ""},
	} {
		got := ""
		if err := c.s.Check(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: error %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSettingsBecomeOptions(t *testing.T) {
	s := Settings{Train: "d/a.csv", Val: "b.csv", Split: []float64{0.5, 0.5}, Stratify: true, TextColumn: "t", LabelColumn: "l",
		Limit: 5, Sample: 3, SkipBadRows: true, Template: "{q} -> {a}"}
	if diff := cmp.Diff(Sources{Train: "d/a.csv", Val: "b.csv", Seed: 7}, s.Sources(7)); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	one := Settings{Data: "d/e.csv", Split: []float64{0.5, 0.5}, Stratify: true}
	if diff := cmp.Diff(Sources{Data: "d/e.csv", Ratios: []float64{0.5, 0.5}, Stratify: true, Seed: 7}, one.Sources(7)); diff != "" {
		t.Errorf("sources of one file (-want +got):\n%s", diff)
	}
	load := LoadOptions{TextColumn: "t", LabelColumn: "l", Labels: []string{"x"}, SkipBadRows: true, Limit: 5, Sample: 3, Seed: 7}
	if diff := cmp.Diff(load, s.LoadOptions([]string{"x"}, 7)); diff != "" {
		t.Errorf("load options (-want +got):\n%s", diff)
	}
	causal := CausalOptions{Template: "{q} -> {a}", TextColumn: "t", SkipBadRows: true, Limit: 5, Sample: 3, Seed: 7}
	if diff := cmp.Diff(causal, s.CausalOptions(7)); diff != "" {
		t.Errorf("causal options (-want +got):\n%s", diff)
	}
	if s.Name() != "a.csv" || one.Name() != "e.csv" {
		t.Errorf("names %q and %q", s.Name(), one.Name())
	}
}
