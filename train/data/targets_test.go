package data

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeData writes a file of the test.
func writeData(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRowsWithTargets(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		opts             LoadOptions
		labels, rows     string // label names, and the targets of the rows
		says             string
	}{
		{"a number", "a.csv", "text,score\na,1.5\nb,-2\n", LoadOptions{Kind: Numbers}, "[score]", "[1.5] [-2]", ""},
		{"numbers", "a.jsonl", `{"text":"a","label":[1,2]}` + "\n" + `{"text":"b","label":[3,4.5]}` + "\n", LoadOptions{Kind: Numbers}, "[label_0 label_1]", "[1 2] [3 4.5]", ""},
		{"columns of numbers", "a.csv", "x,y,text\n1,2,a\n3,4,b\n", LoadOptions{Kind: Numbers, LabelColumn: "y, x"}, "[y x]", "[2 1] [4 3]", ""},
		{"a number of a known head", "a.csv", "text,score\na,1\n", LoadOptions{Kind: Numbers, Labels: []string{"stars"}}, "[stars]", "[1]", ""},
		{"columns of a known head", "a.csv", "x,y,text\n1,2,a\n", LoadOptions{Kind: Numbers, LabelColumn: "y,x", Labels: []string{"x", "y"}}, "[x y]", "[1 2]", ""},
		{"lists", "a.jsonl", `{"text":"a","labels":["q","p"]}` + "\n" + `{"text":"b","labels":[]}` + "\n" + `{"text":"c","labels":["p","p","r"]}` + "\n", LoadOptions{Kind: AnyLabels},
			"[p q r]", "[1 1 0] [0 0 0] [1 0 1]", ""},
		{"numbers of labels", "a.jsonl", `{"text":"a","labels":[10,2]}` + "\n" + `{"text":"b","labels":[1]}` + "\n", LoadOptions{Kind: AnyLabels}, "[1 2 10]", "[0 1 1] [1 0 0]", ""},
		{"texts", "a.csv", "text,tags\na,p; q\nb,\nc,q|r\nd,\"[\"\"p\"\"]\"\n", LoadOptions{Kind: AnyLabels}, "[p q r]", "[1 1 0] [0 0 0] [0 1 1] [1 0 0]", ""},
		{"columns of flags", "a.csv", "text,toxic,insult\na,1,0\nb,0,1\n", LoadOptions{Kind: AnyLabels, LabelColumn: "toxic,insult"}, "[toxic insult]", "[1 0] [0 1]", ""},
		{"lists of a known head", "a.jsonl", `{"text":"a","labels":["q"]}` + "\n", LoadOptions{Kind: AnyLabels, Labels: []string{"r", "q"}}, "[r q]", "[0 1]", ""},

		{"no number", "a.csv", "text,score\na,high\n", LoadOptions{Kind: Numbers}, "", "", `a.csv: line 2: column "score": target "high" is no number`},
		{"NaN", "a.csv", "text,score\na,1\nb,NaN\n", LoadOptions{Kind: Numbers}, "", "", `a.csv: line 3: column "score": target "NaN": a finite number is wanted`},
		{"another width", "a.jsonl", `{"text":"a","label":[1,2]}` + "\n" + `{"text":"b","label":3}` + "\n", LoadOptions{Kind: Numbers}, "", "", "line 2: 1 targets, want 2"},
		{"another width than the head's", "a.csv", "text,score\na,1\n", LoadOptions{Kind: Numbers, Labels: []string{"x", "y"}}, "", "", "1 targets, want 2"},
		{"an unknown label", "a.jsonl", `{"text":"a","labels":["q","z"]}` + "\n", LoadOptions{Kind: AnyLabels, Labels: []string{"r", "q"}}, "", "", `label "z" is not one of those trained on`},
		{"no flag", "a.csv", "text,p,q\na,1,2\n", LoadOptions{Kind: AnyLabels, LabelColumn: "p,q"}, "", "", `column "q": "2" where 0 or 1 is wanted`},
		{"no such column", "a.csv", "text,p\na,1\n", LoadOptions{Kind: AnyLabels, LabelColumn: "p,q"}, "", "", `no label column "q"`},
		{"a column twice", "a.csv", "text,p\na,1\n", LoadOptions{Kind: AnyLabels, LabelColumn: "p,p"}, "", "", "twice"},
		{"no label column", "a.csv", "text,p,q\na,1,2\n", LoadOptions{Kind: Numbers}, "", "", "no label column among"},
	} {
		t.Run(c.name, func(t *testing.T) {
			set, err := Load(context.Background(), writeData(t, c.file, c.text), c.opts)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("got %v, want one line with %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var rows []string
			for _, ex := range set.Examples {
				if ex.Label != Unlabelled {
					t.Errorf("row %d has a class", ex.Row)
				}
				rows = append(rows, fmt.Sprint(ex.Targets(set.Kind, len(set.Labels))))
			}
			if got := strings.Join(rows, " "); fmt.Sprint(set.Labels) != c.labels || got != c.rows {
				t.Errorf("labels %v, rows %s; want %s, %s", set.Labels, got, c.labels, c.rows)
			}
		})
	}
}

// Targets are part of what a set's hash tells apart, and of what parts and joined files keep.
func TestSetsOfTargets(t *testing.T) {
	ctx := context.Background()
	load := func(kind Kind, text string) *Set {
		set, err := Load(ctx, writeData(t, "a.csv", text), LoadOptions{Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	seen := map[string]string{}
	for _, text := range []string{"text,label\na,1\nb,2\n", "text,label\na,1\nb,3\n", "text,label\na,2\nb,1\n"} {
		for _, kind := range []Kind{OneLabel, AnyLabels, Numbers} {
			what := fmt.Sprint(kind, text)
			hash := load(kind, text).Hash()
			if kind == AnyLabels && strings.Contains(text, "3") || kind == OneLabel {
				continue // names tell
			}
			if other, ok := seen[hash]; ok {
				t.Errorf("%q and %q have one hash", what, other)
			}
			seen[hash] = what
		}
	}
	one, two := writeData(t, "one.csv", "text,tags\na,q\nb,p;q\n"), writeData(t, "two.csv", "text,tags\nc,r;p\n")
	splits, err := LoadSplits(ctx, Sources{Train: one + "\n" + two, Val: two}, LoadOptions{Kind: AnyLabels})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(splits.Train.Labels)
	for _, ex := range append(splits.Train.Examples, splits.Val.Examples...) {
		got += fmt.Sprint(ex.Given)
	}
	if want := "[p q r][1][0 1][0 2][0 2]"; got != want {
		t.Errorf("joined: %s, want %s", got, want)
	}
	for _, c := range []struct {
		kind Kind
		text string
		says string
	}{{AnyLabels, "text,tags\na,\nb,\n", "no row has a label"}, {Numbers, "text,score\n,1\n,2\n", "every text is empty"}} {
		if err := load(c.kind, c.text).CheckTrainable(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("got %v, want %q", err, c.says)
		}
	}
	if err := load(Numbers, "text,score\na,1\nb,1\n").CheckTrainable(); err != nil {
		t.Error(err)
	}
}
