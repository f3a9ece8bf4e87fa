package data

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ExampleFiles() {
	files, err := Files("chats.jsonl:0.7\ncode.jsonl:0.3")
	fmt.Println(files, Weights(files), err)
	_, err = Files("chats.jsonl:0.7\ncode.jsonl")
	fmt.Println(err)
	// Output:
	// [{chats.jsonl 0.7} {code.jsonl 0.3}] [0.7 0.3] <nil>
	// chats.jsonl has a weight and code.jsonl has none: give all files a weight, or none
}

func ExampleMix() {
	// Two files of six and two rows, of which as many are wanted.
	s := Sampler{Lengths: make([]int, 8), BatchSize: 4, Mix: &Mix{Source: []uint16{0, 0, 0, 0, 0, 0, 1, 1}, Weights: []float64{1, 1}}}
	for epoch := range 2 {
		batches, err := s.Epoch(epoch)
		fmt.Println(batches, err)
	}
	// Output:
	// [[0 6 1 7] [2 6 3 7]] <nil>
	// [[4 6 5 7] [0 6 1 7]] <nil>
}

func TestFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"a:0.5", "b:1", "c"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		setting string
		want    []File
		err     string
	}{
		{"", nil, ""},
		{"c", []File{{"c", 0}}, ""},
		{"missing.csv", []File{{"missing.csv", 0}}, ""},
		{"a:0.5", []File{{"a:0.5", 0}}, ""},
		{"a:0.5\nb:1", []File{{"a:0.5", 0}, {"b:1", 0}}, ""},
		{"a:0.5:2\nb:1:1", []File{{"a:0.5", 2}, {"b:1", 1}}, ""},
		{"c:3\nd:1e-3", []File{{"c", 3}, {"d", 0.001}}, ""},
		{"odd:name.csv\nc", []File{{"odd:name.csv", 0}, {"c", 0}}, ""},
		{":0.5", []File{{":0.5", 0}}, ""},
		{"c:0.5", nil, "no other file"},
		{"c:0\nd:1", nil, "weight is 0"},
		{"c:-1\nd:1", nil, "weight is -1"},
		{"c:inf\nd:1", nil, "weight is +Inf"},
		{"c:nan\nd:1", nil, "weight is NaN"},
		{"c\nd:1", nil, "d has a weight and c has none"},
	} {
		got, err := Files(c.setting)
		if diff := cmp.Diff(c.want, got); c.err == "" && (diff != "" || err != nil) {
			t.Errorf("%q: %v (-want +got)\n%s", c.setting, err, diff)
		}
		if c.err != "" {
			wantError(t, err, c.err)
		}
	}
	s := Settings{Train: "x/c:1\ny/d.csv:3"}
	if w, err := s.Weights(); err != nil || !slices.Equal(w, []float64{1, 3}) || s.Name() != "c + d.csv" {
		t.Errorf("%v, %v, %q", w, err, s.Name())
	}
	wantError(t, Settings{Train: "c", Val: "c:1\nd:2"}.Check(), "--val", "weights are for training data")
}

// counts are how often an epoch has each example.
func counts(t *testing.T, s Sampler, epoch int) []int {
	t.Helper()
	batches, err := s.Epoch(epoch)
	if err != nil {
		t.Fatal(err)
	}
	n := make([]int, len(s.Lengths))
	for _, b := range batches {
		for _, i := range b {
			n[i]++
		}
	}
	return n
}

// The shares hold in every epoch, and over epochs no example of a source is used twice more than another.
func TestMixedEpochs(t *testing.T) {
	sizes, weights := []int{700, 40, 260}, []float64{3, 5, 2}
	s := Sampler{BatchSize: 7, Seed: 11, Mix: &Mix{Weights: weights}}
	for source, size := range sizes {
		for range size {
			s.Lengths = append(s.Lengths, 1+len(s.Lengths)%50)
			s.Mix.Source = append(s.Mix.Source, uint16(source))
		}
	}
	for _, shuffle := range []bool{false, true} {
		for _, bucket := range []bool{false, true} {
			s.Shuffle, s.Bucket = shuffle, bucket
			total := make([]int, len(s.Lengths))
			for epoch := range 5 {
				batches, err := s.Epoch(epoch)
				if err != nil {
					t.Fatal(err)
				}
				if again, _ := s.Epoch(epoch); !cmp.Equal(batches, again) {
					t.Error("an epoch asked for twice differs")
				}
				if len(batches) != (1000+6)/7 && !bucket {
					t.Errorf("%d batches", len(batches))
				}
				share := make([]int, len(sizes))
				for i, n := range counts(t, s, epoch) {
					total[i] += n
					share[s.Mix.Source[i]] += n
				}
				if diff := cmp.Diff([]int{300, 500, 200}, share); diff != "" {
					t.Errorf("epoch %d: %s", epoch, diff)
				}
				from := 0
				for source, size := range sizes {
					part := total[from : from+size]
					if slices.Max(part)-slices.Min(part) > 1 {
						t.Errorf("after epoch %d examples of source %d were used %d to %d times", epoch, source, slices.Min(part), slices.Max(part))
					}
					from += size
				}
			}
			first, err := s.Epoch(0)
			if err != nil {
				t.Fatal(err)
			}
			other := s
			other.Seed++
			if second, _ := other.Epoch(0); cmp.Equal(first, second) == shuffle {
				t.Errorf("shuffled %v: another seed gives the same order: %v", shuffle, !shuffle)
			}
		}
	}
}

func TestMixInOrderIsEven(t *testing.T) {
	s := Sampler{Lengths: make([]int, 8), BatchSize: 1, Mix: &Mix{Source: []uint16{0, 0, 0, 0, 0, 0, 1, 1}, Weights: []float64{1, 1}}}
	var got []int
	for epoch := range 2 {
		batches, err := s.Epoch(epoch)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range batches {
			got = append(got, b...)
		}
	}
	if diff := cmp.Diff([]int{0, 6, 1, 7, 2, 6, 3, 7, 4, 6, 5, 7, 0, 6, 1, 7}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestMixRefuses(t *testing.T) {
	for what, m := range map[string]*Mix{
		"3 sources of 2":    {Source: []uint16{0, 0, 0}, Weights: []float64{1}},
		"source 1, there":   {Source: []uint16{0, 1}, Weights: []float64{1}},
		"the weight 0":      {Source: []uint16{0, 1}, Weights: []float64{1, 0}},
		"and no examples":   {Source: []uint16{0, 0}, Weights: []float64{1, 1}},
		"the weight -0.100": {Source: []uint16{0, 0}, Weights: []float64{-0.1}},
	} {
		_, err := Sampler{Lengths: []int{1, 1}, BatchSize: 1, Mix: m}.Epoch(0)
		wantError(t, err, strings.TrimSuffix(what, "00"))
	}
}

// Several files are what one file of all their rows is, on disk as in memory.
func TestSeveralFilesAreOneBehindTheOther(t *testing.T) {
	table := func(name string, labels string, from int) string {
		rows := "text,label\n"
		for i, l := range strings.Fields(labels) {
			rows += fmt.Sprintf("row %d,%s\n", from+i, l)
		}
		return write(t, name, rows)
	}
	a, b := table("a.csv", strings.Repeat("y x ", 15), 0), table("b.csv", strings.Repeat("z x ", 12), 30)
	whole := table("whole.csv", strings.Repeat("y x ", 15)+strings.Repeat("z x ", 12), 0)
	for _, c := range []struct {
		several, one Sources
		opts         LoadOptions
	}{
		{Sources{Data: a + "\n" + b, Seed: 3}, Sources{Data: whole, Seed: 3}, LoadOptions{}},
		{Sources{Data: a + ":2\n" + b + ":1", Stratify: true}, Sources{Data: whole, Stratify: true}, LoadOptions{}},
		{Sources{Train: a + "\n" + b, Val: b + "\n" + a}, Sources{Train: whole, Val: table("back.csv", strings.Repeat("z x ", 12)+strings.Repeat("y x ", 15), 0)}, LoadOptions{}},
		{Sources{Train: a + "\n" + b}, Sources{Train: whole}, LoadOptions{Labels: []string{"z", "y", "x"}}},
	} {
		want, err := LoadSplits(context.Background(), c.one, c.opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, onDisk := range []bool{false, true} {
			if onDisk {
				c.opts.Spool = newSpool(t)
			}
			got, err := LoadSplits(context.Background(), c.several, c.opts)
			if err != nil {
				t.Fatal(err)
			}
			if sum, err := got.Train.Sum(context.Background()); err != nil || sum != want.Train.Hash() {
				t.Errorf("%+v: other training data, %v", c.several, err)
			}
			for i := range got.Train.Len() {
				ex, err := got.Train.Example(i)
				file := []string{a, b}[got.Train.Sources()[i]]
				if err != nil || ex.File != file || ex.Name != got.Train.Labels[ex.Label] {
					t.Fatalf("%+v, of %s, %v", ex, file, err)
				}
			}
			if notes := strings.Join(got.Notes(), "\n"); !strings.Contains(notes, a+": text column") || !strings.Contains(notes, b+": text column") {
				t.Errorf("notes %q", notes)
			}
		}
		if got, err := LoadSplits(context.Background(), c.several, LoadOptions{Limit: 20}); err != nil || c.several.Data == "" && got.Train.Len() != 40 {
			t.Errorf("a limit is of each file: %v", err)
		}
	}
	_, err := LoadSplits(context.Background(), Sources{Data: a + "\n" + filepath.Join(t.TempDir(), "none.csv")}, LoadOptions{})
	wantError(t, err, "none.csv")
}

func TestSeveralCausalFiles(t *testing.T) {
	a, b := write(t, "a.txt", "one\ntwo\nthree"), write(t, "b.csv", "prompt,completion\nask,yes\nask more,no\n")
	want := []string{"one", "two", "three", "yes", "no"}
	for _, onDisk := range []bool{false, true} {
		opts := CausalOptions{}
		if onDisk {
			opts.Spool = newSpool(t)
		}
		got, err := LoadCausalSplits(context.Background(), Sources{Train: a + ":1\n" + b + ":1"}, opts)
		if err != nil {
			t.Fatal(err)
		}
		var answers []string
		for i := range got.Train.Len() {
			ex, err := got.Train.Example(i)
			if err != nil {
				t.Fatal(err)
			}
			answers = append(answers, ex.Answer)
		}
		if !slices.Equal(answers, want) || !slices.Equal(got.Train.Sources(), []uint16{0, 0, 0, 1, 1}) || len(got.Notes()) != 2 {
			t.Errorf("%q, %v, notes %q", answers, got.Train.Sources(), got.Notes())
		}
	}
}
