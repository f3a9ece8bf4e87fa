package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"gopeft/train/data/rows"

	"github.com/google/go-cmp/cmp"
)

func TestColumnsAreGuessedFromUsualNames(t *testing.T) {
	cases := []struct {
		names []string
		text  string // given
		label string // given
		want  Columns
	}{
		{[]string{"text", "label"}, "", "", Columns{Text: "text", Label: "label", TextGuessed: true, LabelGuessed: true}},
		{[]string{"review", "sentiment"}, "", "", Columns{Text: "review", Label: "sentiment", TextGuessed: true, LabelGuessed: true}},
		{[]string{"label", "sentence"}, "", "", Columns{Text: "sentence", Label: "label", TextGuessed: true, LabelGuessed: true}},
		{[]string{"Id", "Review", "Class"}, "", "", Columns{Text: "Review", Label: "Class", ID: "Id", TextGuessed: true, LabelGuessed: true}},
		{[]string{"idx", "lyrics", "label"}, "", "", Columns{Text: "lyrics", Label: "label", ID: "idx", TextGuessed: true, LabelGuessed: true}},
		{[]string{"a", "b"}, "a", "b", Columns{Text: "a", Label: "b"}},
		{[]string{"title", "text", "category"}, "title", "", Columns{Text: "title", Label: "category", LabelGuessed: true}},
		{[]string{"text", "input_ids", "label"}, "", "", Columns{IDs: "input_ids", Label: "label", LabelGuessed: true}},
		{[]string{"text", "input_ids", "label"}, "text", "", Columns{Text: "text", Label: "label", LabelGuessed: true}},
		{[]string{"title", "description", "label"}, "", "", Columns{Text: "description", Label: "label", TextGuessed: true, LabelGuessed: true}},
		{[]string{"sentence", "rating"}, "", "", Columns{Text: "sentence", Label: "rating", TextGuessed: true, LabelGuessed: true}},
	}
	for _, c := range cases {
		got, err := findColumns("f", c.names, c.text, c.label, true)
		if err != nil {
			t.Errorf("%q: %v", c.names, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.names, diff)
		}
	}
	for _, c := range []struct {
		names       []string
		text, label string
		want        string
	}{
		{[]string{"text", "b"}, "", "", `no label column among "text", "b"`},
		{[]string{"a", "b", "label"}, "", "", `no text column among "a", "b", "label"`},
		{[]string{"text", "label"}, "Text", "", `no text column "Text"`},
		{[]string{"text", "label"}, "", "class", `no label column "class"`},
		{[]string{"text", "label"}, "input_ids", "", `no text column "input_ids"`},
		{[]string{"text", "label"}, "label", "label", "cannot be both"},
	} {
		_, err := findColumns("f.csv", c.names, c.text, c.label, true)
		wantError(t, err, "f.csv", c.want)
	}
	c := Columns{Text: "review", TextGuessed: true, Label: "y"}
	if got, want := c.String(), `text column "review" (guessed), label column "y"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLabelsHaveAStableOrder(t *testing.T) {
	cases := []struct {
		name string
		rows string // the label column
		want []string
	}{
		{"names", "positive negative positive", []string{"negative", "positive"}},
		{"integers by value", "10 9 -2 -10 0 9", []string{"-10", "-2", "0", "9", "10"}},
		{"from 1", "4 2 3 1", []string{"1", "2", "3", "4"}},
		{"written as floats", "1.0 0.0 1.0", []string{"0", "1"}},
		{"mixed", "b 10 9 a", []string{"10", "9", "a", "b"}},
		{"odd names", "+ - 1-2 +", []string{"+", "-", "1-2"}},
		{"case counts", "Pos pos", []string{"Pos", "pos"}},
		{"leading zeros and signs", "01 1 +1 -0 0", []string{"0", "1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var b strings.Builder
			b.WriteString("text,label\n")
			for _, label := range strings.Fields(c.rows) {
				fmt.Fprintf(&b, "words, %s \n", label)
			}
			content := strings.ReplaceAll(b.String(), "words, ", "words,\" ")
			content = strings.ReplaceAll(content, " \n", " \"\n") // quoted, to keep the spaces
			set, err := Load(t.Context(), write(t, "a.csv", content), LoadOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, set.Labels); diff != "" {
				t.Errorf("labels (-want +got):\n%s", diff)
			}
			for _, ex := range set.Examples {
				if set.Labels[ex.Label] != ex.Name {
					t.Errorf("label %d is %q, the row has %q", ex.Label, set.Labels[ex.Label], ex.Name)
				}
			}
		})
	}
}

func TestLabelsOfJSON(t *testing.T) {
	content := `{"text":"a","label":2}` + "\n" + `{"text":"b","label":"0"}` + "\n" + `{"text":"c","label":1.0}` + "\n" + `{"text":"d","label":1e1}`
	set, err := Load(t.Context(), write(t, "a.jsonl", content), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"0", "1", "2", "10"}, set.Labels); diff != "" {
		t.Error(diff)
	}
	set, err = Load(t.Context(), write(t, "a.jsonl", `{"text":"a","label":true}`+"\n"+`{"text":"a","label":false}`), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"false", "true"}, set.Labels); diff != "" {
		t.Error(diff)
	}
}

func TestGivenLabelsWin(t *testing.T) {
	csv := write(t, "a.csv", "text,label\na,pos\nb,0\nc, neg \n")
	set, err := Load(t.Context(), csv, LoadOptions{Labels: []string{"pos", "neg", "neutral"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, ex := range set.Examples {
		got = append(got, ex.Label)
	}
	if diff := cmp.Diff([]int{0, 0, 1}, got); diff != "" {
		t.Errorf("names and indices (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"pos", "neg", "neutral"}, set.Labels); diff != "" {
		t.Error(diff)
	}

	// Integer names are names, not indices.
	numbers := write(t, "b.csv", "text,label\na,4\nb,0\n")
	set, err = Load(t.Context(), numbers, LoadOptions{Labels: []string{"4", "0"}})
	if err != nil || set.Examples[0].Label != 0 || set.Examples[1].Label != 1 {
		t.Errorf("integer names: %+v, %v", set, err)
	}
	_, err = Load(t.Context(), write(t, "c.csv", "text,label\na,1\n"), LoadOptions{Labels: []string{"4", "0"}})
	wantError(t, err, "c.csv: line 2", `label "1" is not one of those trained on: "4", "0"`)
	_, err = Load(t.Context(), csv, LoadOptions{Labels: []string{"pos", "pos"}})
	wantError(t, err, `"pos" twice`)
	_, err = Load(t.Context(), csv, LoadOptions{Labels: []string{"pos", ""}})
	wantError(t, err, "entry 1")
}

func TestBadLabelsAndTexts(t *testing.T) {
	cases := []struct{ name, file, content, want string }{
		{"no label", "a.csv", "text,label\na,\n", "a.csv: line 2: no label"},
		{"blank label", "a.csv", "text,label\na,  \n", "line 2: no label"},
		{"fraction", "a.csv", "text,label\na,0.5\n", `line 2: label "0.5" is no class`},
		{"fraction in JSON", "a.jsonl", `{"text":"a","label":0.5}`, "line 1: label 0.5 is no class"},
		{"null label", "a.jsonl", `{"text":"a","label":null}`, "line 1: no label"},
		{"label list", "a.jsonl", `{"text":"a","label":[1]}`, "label is a list"},
		{"label absent from a later row", "a.jsonl", `{"text":"a","label":1}` + "\n" + `{"text":"b"}`, `line 2: no column "label"`},
		{"text absent from a later row", "a.jsonl", `{"text":"a","label":1}` + "\n" + `{"Text":"b","label":1}`, `line 2: no column "text"`},
		{"text null", "a.jsonl", `{"text":null,"label":1}`, `column "text" is null`},
		{"text object", "a.jsonl", `{"text":{},"label":1}`, `column "text" holds an object`},
		{"ids no list", "a.jsonl", `{"input_ids":"1 2","label":1}`, `column "input_ids" holds text`},
		{"ids empty", "a.jsonl", `{"input_ids":[],"label":1}`, "empty list"},
		{"ids negative", "a.jsonl", `{"input_ids":[1,-1],"label":1}`, "element 1 is -1"},
		{"ids fraction", "a.jsonl", `{"input_ids":[1.5],"label":1}`, "element 0 is 1.5"},
		{"ids huge", "a.jsonl", `{"input_ids":[99999999999999999999],"label":1}`, "element 0 is 99999999999999999999"},
		{"ids over int32", "a.jsonl", `{"input_ids":[2147483648],"label":1}`, "not a token id"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, c.file, c.content)
			_, err := Load(t.Context(), path, LoadOptions{})
			wantError(t, err, c.want)
			set, err := Load(t.Context(), path, LoadOptions{SkipBadRows: true})
			if err != nil {
				t.Fatal(err)
			}
			if set.Stats.Skipped != 1 {
				t.Errorf("%d skipped", set.Stats.Skipped)
			}
			wantError(t, set.Stats.FirstSkipped, c.want)
		})
	}
}

func TestWhatIsCounted(t *testing.T) {
	content := "id,text,label\n1,a,0\n2,,1\n1,\"  \",0\n,c,1\n,d,0\nx\n3,e,\n1,f,1\n"
	set, err := Load(t.Context(), write(t, "a.csv", content), LoadOptions{SkipBadRows: true})
	if err != nil {
		t.Fatal(err)
	}
	s := set.Stats
	if s.Rows != 6 || s.Skipped != 2 || s.EmptyTexts != 2 || s.DuplicateIDs != 2 {
		t.Errorf("%+v", s)
	}
	wantError(t, s.FirstSkipped, "line 7: 1 columns")
	notes := strings.Join(set.Notes(), "\n")
	for _, want := range []string{`a.csv: text column "text" (guessed), label column "label" (guessed)`, "2 bad rows skipped (the first: ", "2 empty texts", "2 rows with an id"} {
		if !strings.Contains(notes, want) {
			t.Errorf("notes %q do not say %q", notes, want)
		}
	}
	if diff := cmp.Diff([]int{3, 3}, set.Counts()); diff != "" {
		t.Error(diff)
	}

	vader, err := Load(t.Context(), write(t, "m_GroundTruth.txt", "1\t1.5\tgood\n2\t0\tmeh\n3\t-2\tbad\n3\t0.0\tso\n"), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if vader.Stats.LeftOut != 2 || vader.Stats.Rows != 2 {
		t.Errorf("%+v", vader.Stats)
	}
	if diff := cmp.Diff([]string{"negative", "positive"}, vader.Labels); diff != "" {
		t.Error(diff)
	}
}

func TestExampleReaderStreams(t *testing.T) {
	r, err := OpenExamples(write(t, "a.jsonl", `{"input_ids":[5,6],"adapter":"x","id":7}`+"\n"+`{"input_ids":[8]}`+"\nbad\n"+`{"input_ids":[9]}`), LoadOptions{NoLabels: true, Extra: []string{"adapter"}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	first, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	want := Example{IDs: []int64{5, 6}, Label: Unlabelled, ID: "7", File: first.File, Line: 1, Row: 1, Extra: []string{"x"}}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if ex, err := r.Next(); err != nil || ex.Extra[0] != "" {
		t.Error(ex, err)
	}
	if _, err := r.Next(); !rows.IsBad(err) {
		t.Errorf("bad row: %v", err)
	}
	if ex, err := r.Next(); err != nil || ex.IDs[0] != 9 || ex.Row != 4 {
		t.Errorf("after the bad row: %+v, %v", ex, err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("end: %v", err)
	}
	if r.Columns().IDs != "input_ids" || r.Stats().Rows != 3 {
		t.Error(r.Columns(), r.Stats())
	}
}

func TestLoadRefuses(t *testing.T) {
	var free strings.Builder
	free.WriteString("text,label\n")
	for i := range 200 {
		fmt.Fprintf(&free, "a,some text %d\n", i)
	}
	_, err := Load(t.Context(), write(t, "a.csv", free.String()), LoadOptions{})
	wantError(t, err, `column "label" has 200 different values in 200 rows`)

	one, err := Load(t.Context(), write(t, "one.csv", "text,label\na,1\nb,1\nc,0\n"), LoadOptions{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, one.CheckTrainable(), "one.csv: the 2 training examples are all of class \"1\"", "sorted")
	none, err := Load(t.Context(), write(t, "none.csv", "text,label\n"), LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, none.CheckTrainable(), "none.csv: no examples")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Load(ctx, write(t, "b.csv", "text,label\na,1\n"), LoadOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestHashIsOfTheContent(t *testing.T) {
	load := func(name, content string) *Set {
		set, err := Load(t.Context(), write(t, name, content), LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	csv := load("a.csv", "text,label\nab,0\nc,1\n")
	json := load("a.jsonl", `{"label":0,"text":"ab"}`+"\n"+`{"label":1,"text":"c"}`)
	if csv.Hash() != json.Hash() {
		t.Error("the same examples from CSV and JSONL differ")
	}
	for _, other := range []string{"text,label\na,0\nbc,1\n", "text,label\nab,1\nc,0\n", "text,label\nc,1\nab,0\n", "text,label\nab,0\n", "text,label\nab,a\nc,b\n"} {
		if load("b.csv", other).Hash() == csv.Hash() {
			t.Errorf("%q has the same hash", other)
		}
	}
}

// endless gives a table of n rows without holding it.
type endless struct {
	n, max int
	rest   []byte
}

func (e *endless) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		switch {
		case e.n == e.max:
			return 0, io.EOF
		case e.n == 0:
			e.rest = []byte("text,label\n")
		default:
			e.rest = []byte("\"some words, and more of them\",1\n")
		}
		e.n++
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// A long file is read in constant memory, whatever the row limit.
func TestMillionRowsStream(t *testing.T) {
	total := 1_000_000
	if testing.Short() {
		total = 50_000
	}
	r, err := rows.New(io.NopCloser(&endless{max: total + 1}), "big.csv", rows.Options{MaxRowBytes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	examples, err := NewExampleReader(r, "big.csv", LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer examples.Close()
	n := 0
	var before, most uint64
	for {
		_, err := examples.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n++; n%50_000 == 0 {
			live := liveBytes()
			if before == 0 {
				before = live
			}
			most = max(most, live)
		}
	}
	if n != total {
		t.Errorf("%d rows, want %d", n, total)
	}
	if most > before+1<<20 {
		t.Errorf("live memory grew from %d to %d bytes", before, most)
	}
}
