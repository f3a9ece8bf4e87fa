package data

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/train/data/spool"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func newSpool(t *testing.T) *spool.File {
	t.Helper()
	s, err := spool.Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// reviews is a labelled table with all that notes are made of: identifiers and texts twice, empty texts, a bad row.
func reviews(t *testing.T, n int, labels ...string) string {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	var b strings.Builder
	b.WriteString("id,text,label\n")
	for i := range n {
		text := fmt.Sprintf("review %d %s", r.IntN(n), strings.Repeat("long ", r.IntN(2000)/(1+r.IntN(50))))
		if i%17 == 3 {
			text = " "
		}
		fmt.Fprintf(&b, "%d,%s,%s\n", r.IntN(2*n), text, labels[r.IntN(len(labels))])
	}
	b.WriteString("no columns\n")
	return write(t, "reviews.csv", b.String())
}

func tokenRows(t *testing.T, n int) string {
	r := rand.New(rand.NewPCG(2, uint64(n)))
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, `{"input_ids": [%d, %d, 7], "labels": [-100, %d, 9], "label": %d}`+"\n", r.IntN(99), r.IntN(9), r.IntN(9), r.IntN(3))
	}
	return write(t, "ids.jsonl", b.String())
}

// kept is what both kinds of sets have.
type kept[E any] interface {
	*Set | *CausalSet
	Len() int
	Example(i int) (E, error)
	Sum(ctx context.Context) (string, error)
}

// compareOnDisk loads sets in memory and on disk and compares them: their notes, examples, order, hash and errors, and
// what more gives of a set.
func compareOnDisk[E any, S kept[E]](t *testing.T, load func(on *spool.File) (parts []S, notes []string, err error), more func(S) any) {
	t.Helper()
	want, wantNotes, wantErr := load(nil)
	got, notes, err := load(newSpool(t))
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("error %v, in memory %v", err, wantErr)
	}
	if diff := cmp.Diff(wantNotes, notes); diff != "" {
		t.Errorf("notes (-memory +disk):\n%s", diff)
	}
	options := cmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreFields(Example{}, "ID"), cmp.Comparer(func(a, b error) bool { return fmt.Sprint(a) == fmt.Sprint(b) })}
	for i, part := range want {
		disk := got[i]
		if part == nil || disk == nil {
			if part != disk {
				t.Errorf("part %d: one too many", i)
			}
			continue
		}
		if disk.Len() != part.Len() {
			t.Fatalf("part %d: %d examples, want %d", i, disk.Len(), part.Len())
		}
		for k := range part.Len() {
			ex, wantErr := part.Example(k)
			on, err := disk.Example(k)
			if diff := cmp.Diff(ex, on, options); diff != "" || err != nil || wantErr != nil {
				t.Fatalf("part %d, example %d: %v, %v (-memory +disk)\n%s", i, k, err, wantErr, diff)
			}
		}
		wantSum, wantErr := part.Sum(t.Context())
		if sum, err := disk.Sum(t.Context()); err != nil || wantErr != nil || sum != wantSum {
			t.Errorf("part %d: another hash, %v, %v", i, err, wantErr)
		}
		if diff := cmp.Diff(more(part), more(disk), options); diff != "" {
			t.Errorf("part %d: (-memory +disk)\n%s", i, diff)
		}
	}
}

// A set on disk is the set in memory: its examples, order, notes, hash and errors.
func TestClassificationOnDiskIsAsInMemory(t *testing.T) {
	train, val := reviews(t, 300, "b", "a", "c"), reviews(t, 90, "a", "c")
	ratios := []float64{0.7, 0.2, 0.1}
	for name, c := range map[string]struct {
		src  Sources
		opts LoadOptions
	}{
		"one file":             {Sources{Data: train}, LoadOptions{SkipBadRows: true}},
		"a bad row":            {Sources{Data: train}, LoadOptions{}},
		"stratified":           {Sources{Data: train, Ratios: ratios, Stratify: true, Seed: 5}, LoadOptions{SkipBadRows: true}},
		"sample":               {Sources{Data: train, Seed: 3}, LoadOptions{SkipBadRows: true, Sample: 100, Seed: 3}},
		"balanced":             {Sources{Data: train}, LoadOptions{SkipBadRows: true, Sample: 99, Balanced: true}},
		"limit":                {Sources{Data: train}, LoadOptions{Limit: 50}},
		"files":                {Sources{Train: train, Val: val}, LoadOptions{SkipBadRows: true}},
		"an unknown label":     {Sources{Train: val, Test: train}, LoadOptions{SkipBadRows: true}},
		"other labels":         {Sources{Train: train}, LoadOptions{SkipBadRows: true, Labels: []string{"c", "a", "b"}}},
		"a class in tests":     {Sources{Data: write(t, "rare.csv", "text,label\n"+strings.Repeat("x,a\ny,b\n", 20)+"z,c\n"), Ratios: []float64{0.02, 0.98}}, LoadOptions{}},
		"one class":            {Sources{Data: reviews(t, 50, "a")}, LoadOptions{SkipBadRows: true}},
		"too few":              {Sources{Data: write(t, "few.csv", "text,label\nx,a\ny,b\n")}, LoadOptions{}},
		"no label column":      {Sources{Data: reviews(t, 200, "a", "b"), Seed: 1}, LoadOptions{SkipBadRows: true, LabelColumn: "id"}},
		"token ids":            {Sources{Data: tokenRows(t, 60)}, LoadOptions{LabelColumn: "label"}},
		"token ids, own files": {Sources{Train: tokenRows(t, 60), Val: tokenRows(t, 60)}, LoadOptions{LabelColumn: "label"}},
	} {
		t.Run(name, func(t *testing.T) {
			compareOnDisk(t, func(on *spool.File) ([]*Set, []string, error) {
				c.opts.Spool = on
				s, err := LoadSplits(t.Context(), c.src, c.opts)
				if err != nil {
					return nil, nil, err
				}
				if on != nil && s.Train.Examples != nil {
					t.Error("the examples are in memory")
				}
				return []*Set{s.Train, s.Val, s.Test}, s.Notes(), nil
			}, func(s *Set) any {
				classes := make([]int, s.Len())
				for i := range classes {
					classes[i] = s.Class(i)
				}
				return []any{s.Labels, s.Counts(), s.Stats, classes}
			})
		})
	}
}

func TestCausalDataOnDiskIsAsInMemory(t *testing.T) {
	chats := write(t, "chats.jsonl", strings.Repeat(`{"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]}`+"\n"+
		`{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "long"}, {"role": "user", "content": "x"}]}`+"\n", 20))
	pairs := write(t, "pairs.csv", "prompt,completion\n"+strings.Repeat("ask,yes\nask more,no\n,\n", 20))
	for name, c := range map[string]struct {
		src  Sources
		opts CausalOptions
	}{
		"chats":    {Sources{Data: chats, Seed: 4}, CausalOptions{}},
		"pairs":    {Sources{Train: pairs, Val: pairs}, CausalOptions{}},
		"template": {Sources{Data: pairs}, CausalOptions{Template: "{prompt} -> {completion}", Limit: 33}},
		"sample":   {Sources{Data: tokenRows(t, 80)}, CausalOptions{Sample: 40, Seed: 9}},
		"texts":    {Sources{Train: write(t, "a.txt", "one\n\ntwo\nthree")}, CausalOptions{}},
		"too few":  {Sources{Data: write(t, "b.txt", "one")}, CausalOptions{}},
	} {
		t.Run(name, func(t *testing.T) {
			compareOnDisk(t, func(on *spool.File) ([]*CausalSet, []string, error) {
				c.opts.Spool = on
				s, err := LoadCausalSplits(t.Context(), c.src, c.opts)
				if err != nil {
					return nil, nil, err
				}
				return []*CausalSet{s.Train, s.Val, s.Test}, s.Notes(), nil
			}, func(*CausalSet) any { return nil })
		})
	}
}

// However long the texts, what a set on disk holds in memory is a few bytes an example.
func TestSetOnDiskTakesLittleMemory(t *testing.T) {
	path := write(t, "long.jsonl", strings.Repeat(`{"text": "`+strings.Repeat("word ", 1000)+`", "label": 1}`+"\n"+`{"text": "short", "label": 0}`+"\n", 4000))
	before := liveBytes()
	set, err := Load(context.Background(), path, LoadOptions{Spool: newSpool(t)})
	if err != nil {
		t.Fatal(err)
	}
	if grown := int64(liveBytes()) - int64(before); grown > 2<<20 {
		t.Errorf("%d bytes for %d examples", grown, set.Len())
	}
}

func TestAFolderOnDiskKeepsItsFilesNames(t *testing.T) {
	root := t.TempDir()
	for _, part := range []string{"train", "test"} {
		for _, label := range []string{"pos", "neg"} {
			for i := range 12 {
				writeAt(t, filepath.Join(root, part, label, fmt.Sprintf("%d_1.txt", i)), part+label)
			}
		}
	}
	want, err := LoadSplits(context.Background(), Sources{Data: root}, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := LoadSplits(context.Background(), Sources{Data: root}, LoadOptions{Spool: newSpool(t)})
	if err != nil {
		t.Fatal(err)
	}
	for k, ex := range want.Test.Examples {
		if on, err := got.Test.Example(k); err != nil || on.File != ex.File || on.Text != ex.Text {
			t.Errorf("%+v, want %+v, %v", on, ex, err)
		}
	}
	if !cmp.Equal(want.Notes(), got.Notes()) {
		t.Errorf("notes %q, want %q", got.Notes(), want.Notes())
	}
}
