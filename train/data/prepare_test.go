package data

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPrepareWritesWhatLoadsBack(t *testing.T) {
	tricky := []string{"a \"quoted\", text\nof two lines", "=1+1\t☃", " spaces ", "", "cr\rlf\r\nend", "\\.", "'", "last"}
	var b strings.Builder
	b.WriteString(`[`)
	for i, s := range tricky {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString(`{"label":"` + string('a'+rune(i%2)) + `","text":"` + strings.NewReplacer("\"", `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, `\`, `\\`).Replace(s) + `"}`)
	}
	b.WriteString(`]`)
	out := filepath.Join(t.TempDir(), "new", "folder")
	p, err := Prepare(t.Context(), PrepareOptions{
		Input: write(t, "in.json", b.String()), Out: out,
		Ratios: []float64{0.5, 0.25, 0.25}, Stratify: true, Load: LoadOptions{Seed: 9},
	})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for i, file := range p.Files {
		got, err := Load(t.Context(), file, LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for j, ex := range got.Examples {
			want := p.Sets[i].Examples[j]
			if ex.Text != strings.ReplaceAll(want.Text, "\r\n", "\n") || ex.Name != want.Name {
				t.Errorf("%s: %q %q, want %q %q", file, ex.Text, ex.Name, want.Text, want.Name)
			}
			texts = append(texts, ex.Text)
		}
	}
	if len(texts) != len(tricky) {
		t.Errorf("%d texts of %d", len(texts), len(tricky))
	}
	entries, err := os.ReadDir(out)
	if err != nil || len(entries) != 3 {
		t.Errorf("left in the folder: %v, %v", entries, err)
	}
	if len(p.Notes) == 0 {
		t.Error("no notes")
	}
}

// A part that a run with fewer parts has not is gone: its rows are in the others.
func TestPrepareLeavesNoPartOfAnEarlierRun(t *testing.T) {
	in := write(t, "in.csv", "text,label\n"+strings.Repeat("a,x\nb,y\n", 20))
	out := t.TempDir()
	o := PrepareOptions{Input: in, Out: out, Ratios: []float64{0.5, 0.25, 0.25}}
	if _, err := Prepare(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	o.Ratios = []float64{0.5, 0.5}
	if _, err := Prepare(t.Context(), o); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("got %v", err)
	}
	o.Replace = true
	if _, err := Prepare(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(out, "test.csv")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("test.csv of the first run: %v", err)
	}
}

func TestPrepareVader(t *testing.T) {
	var b strings.Builder
	for i := range 30 {
		b.WriteString(string(rune('0'+i%10)) + "\t" + []string{"1.5", "-0.2", "0.0"}[i%3] + "\tsome film\r\n")
	}
	out := t.TempDir()
	p, err := Prepare(t.Context(), PrepareOptions{
		Input: write(t, "movie_GroundTruth.txt", b.String()), Out: out, Ratios: []float64{0.7, 0.1, 0.2}, Load: LoadOptions{Seed: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	sizes := []int{len(p.Sets[0].Examples), len(p.Sets[1].Examples), len(p.Sets[2].Examples)}
	if diff := cmp.Diff([]int{14, 2, 4}, sizes); diff != "" {
		t.Error(diff)
	}
	text, err := os.ReadFile(filepath.Join(out, "train.csv"))
	if err != nil || !strings.HasPrefix(string(text), "text,label\nsome film,") {
		t.Errorf("%q, %v", text, err)
	}
	if notes := strings.Join(p.Notes, " "); !strings.Contains(notes, "10 rows without a clear label left out") {
		t.Error(notes)
	}
}

func TestPrepareRefuses(t *testing.T) {
	in := write(t, "in.csv", table(20, 2))
	out := t.TempDir()
	if err := os.WriteFile(filepath.Join(out, "val.csv"), []byte("precious"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Prepare(t.Context(), PrepareOptions{Input: in, Out: out})
	wantError(t, err, "val.csv exists")
	for _, opts := range []PrepareOptions{
		{Input: in, Out: t.TempDir(), Ratios: []float64{0.5}},
		{Input: in, Out: t.TempDir(), Ratios: []float64{0.25, 0.25, 0.25, 0.25}},
		{Input: in, Out: filepath.Join(in, "below a file")},
		{Input: in, Out: t.TempDir(), Load: LoadOptions{NoLabels: true}},
		{Input: write(t, "one.csv", table(20, 1)), Out: t.TempDir()},
		{Input: write(t, "bad.csv", table(20, 2)+"x\n"), Out: t.TempDir()},
		{Input: write(t, "few.csv", table(2, 2)), Out: t.TempDir()},
		{Input: write(t, "ids.jsonl", `{"input_ids":[1],"label":0}`+"\n"+`{"input_ids":[1],"label":1}`), Out: t.TempDir()},
	} {
		if _, err := Prepare(t.Context(), opts); err == nil {
			t.Errorf("%+v is accepted", opts)
		}
		if entries, _ := os.ReadDir(opts.Out); len(entries) != 0 {
			t.Errorf("a failed run left %v", entries)
		}
	}
	if p, err := Prepare(t.Context(), PrepareOptions{Input: in, Out: out, Replace: true}); err != nil || len(p.Files) != 3 {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Prepare(ctx, PrepareOptions{Input: in, Out: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
