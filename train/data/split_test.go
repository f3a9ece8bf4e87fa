package data

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The streams are pinned: another machine or Go version must draw the same. The
// figures are those of PCG-DXSM, splitmix64's finaliser and Lemire's method
// written apart from Go.
func TestRandomnessIsPinned(t *testing.T) {
	rng := newRNG(42, forSplit, 0)
	got := []uint64{rng.Uint64(), rng.Uint64(), below(rng, 1000), below(rng, 3)}
	if diff := cmp.Diff([]uint64{16841317953049373279, 2506455446189168221, 8, 0}, got); diff != "" {
		t.Errorf("draws (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{4, 2, 1, 5, 3, 0, 6, 7, 9, 8}, permutation(newRNG(7, forShuffle, 3), 10)); diff != "" {
		t.Errorf("permutation (-want +got):\n%s", diff)
	}
}

func TestBelowIsUniform(t *testing.T) {
	rng := newRNG(1, forSample, 0)
	counts := make([]int, 6)
	for range 60_000 {
		counts[below(rng, 6)]++
	}
	for i, n := range counts {
		if n < 9_600 || n > 10_400 { // 4 standard deviations
			t.Errorf("%d drawn %d times of 60000", i, n)
		}
	}
}

func TestSplitSizesAreTheRatios(t *testing.T) {
	cases := []struct {
		n      int
		ratios []float64
		want   []int
	}{
		{10, []float64{0.7, 0.1, 0.2}, []int{7, 1, 2}},
		{50_000, []float64{0.7, 0.1, 0.2}, []int{35_000, 5_000, 10_000}},
		{10_568, []float64{0.7, 0.1, 0.2}, []int{7398, 1057, 2113}},
		{11, []float64{0.8, 0.1, 0.1}, []int{9, 1, 1}},
		{1, []float64{0.8, 0.1, 0.1}, []int{1, 0, 0}},
		{5, []float64{1}, []int{5}},
		{7, []float64{1. / 3, 1. / 3, 1. / 3}, []int{3, 2, 2}},
		{0, []float64{0.5, 0.5}, []int{0, 0}},
	}
	for _, c := range cases {
		parts, err := SplitIndices(c.n, c.ratios, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		var sizes, all []int
		for _, p := range parts {
			sizes = append(sizes, len(p))
			all = append(all, p...)
		}
		if diff := cmp.Diff(c.want, sizes); diff != "" {
			t.Errorf("%d by %v (-want +got):\n%s", c.n, c.ratios, diff)
		}
		slices.Sort(all)
		for i, j := range all {
			if i != j {
				t.Fatalf("%d by %v: not every index once", c.n, c.ratios)
			}
		}
	}
	for _, ratios := range [][]float64{{0.5, 0.4}, {0.5, 0.6}, {1.5, -0.5}, {0, 1}, {}} {
		if _, err := SplitIndices(10, ratios, 1, nil); err == nil {
			t.Errorf("ratios %v are accepted", ratios)
		}
	}
	if _, err := SplitIndices(3, []float64{1}, 0, []int{1}); err == nil {
		t.Error("too few classes are accepted")
	}
}

func TestSplitDependsOnSeedAlone(t *testing.T) {
	split := func(seed uint64) [][]int {
		parts, err := SplitIndices(100, []float64{0.7, 0.1, 0.2}, seed, nil)
		if err != nil {
			t.Fatal(err)
		}
		return parts
	}
	if diff := cmp.Diff(split(3), split(3)); diff != "" {
		t.Error(diff)
	}
	if cmp.Equal(split(3), split(4)) {
		t.Error("seeds 3 and 4 split alike")
	}
}

func TestStratifiedSplitKeepsShares(t *testing.T) {
	classes := make([]int, 1000)
	for i := range classes {
		classes[i] = 0
		if i%10 == 0 {
			classes[i] = 1
		}
		if i == 500 {
			classes[i] = 2
		}
	}
	parts, err := SplitIndices(1000, []float64{0.7, 0.1, 0.2}, 5, classes)
	if err != nil {
		t.Fatal(err)
	}
	var counts [3][3]int
	for p, part := range parts {
		for _, i := range part {
			counts[p][classes[i]]++
		}
	}
	want := [3][3]int{{630, 69, 1}, {90, 10, 0}, {180, 20, 0}}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("classes by part (-want +got):\n%s", diff)
	}
	// A prefix of a part is mixed, not one class after the other.
	ones := 0
	for _, i := range parts[0][:200] {
		ones += min(classes[i], 1)
	}
	if ones < 5 || ones > 40 {
		t.Errorf("%d of the first 200 are of the rare classes", ones)
	}
}

// table makes a CSV of n rows, the label being row number mod classes.
func table(n, classes int) string {
	var b strings.Builder
	b.WriteString("text,label\n")
	for i := range n {
		fmt.Fprintf(&b, "text %d,%c\n", i, 'a'+i%classes)
	}
	return b.String()
}

func TestSample(t *testing.T) {
	path := write(t, "a.csv", table(100, 3))
	load := func(opts LoadOptions) (*Set, error) { return Load(t.Context(), path, opts) }
	set, err := load(LoadOptions{Sample: 20, Seed: 1})
	if err != nil || len(set.Examples) != 20 || set.Stats.Rows != 20 {
		t.Fatal(set, err)
	}
	if !slices.IsSortedFunc(set.Examples, func(a, b Example) int { return a.Row - b.Row }) {
		t.Error("a sample is not in file order")
	}
	again, _ := load(LoadOptions{Sample: 20, Seed: 1})
	other, _ := load(LoadOptions{Sample: 20, Seed: 2})
	if set.Hash() != again.Hash() || set.Hash() == other.Hash() {
		t.Error("a sample does not depend on the seed alone")
	}
	balanced, err := load(LoadOptions{Sample: 20, Seed: 1, Balanced: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{7, 7, 6}, balanced.Counts()); diff != "" {
		t.Error(diff)
	}
	if _, err := load(LoadOptions{Sample: 101, Balanced: true}); err == nil {
		t.Error("a balanced sample of more than there is")
	}
	_, err = load(LoadOptions{Sample: 100, Limit: 30, Balanced: true})
	wantError(t, err, `class "a" has 10 examples`)
	if set, err := load(LoadOptions{Sample: 1000}); err != nil || len(set.Examples) != 100 {
		t.Error("a sample of more than there is takes all", err)
	}
	if set, err := load(LoadOptions{Limit: 7}); err != nil || len(set.Examples) != 7 || set.Examples[6].Row != 7 {
		t.Error("limit", err)
	}
	_, err = load(LoadOptions{Sample: 5, Balanced: true, NoLabels: true})
	wantError(t, err, "needs labels")
}

func TestLoadSplits(t *testing.T) {
	ctx := t.Context()
	train := write(t, "train.csv", table(40, 3))
	val := write(t, "val.csv", "text,label\nnew,b\ntext 3,a\n")

	s, err := LoadSplits(ctx, Sources{Train: train, Val: val}, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Test != nil || len(s.Val.Examples) != 2 || s.Val.Examples[0].Label != 1 {
		t.Errorf("%+v", s.Val)
	}
	if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "1 of 2 validation texts are also in the training data") {
		t.Errorf("notes: %s", notes)
	}

	s, err = LoadSplits(ctx, Sources{Data: train, Seed: 3}, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Train.Examples) != 32 || len(s.Val.Examples) != 4 || len(s.Test.Examples) != 4 {
		t.Error("default ratios")
	}
	s, err = LoadSplits(ctx, Sources{Data: train, Ratios: []float64{0.5, 0.5}, Stratify: true}, LoadOptions{Limit: 20})
	if err != nil || s.Test != nil || len(s.Train.Examples) != 11 {
		t.Error("two parts of the first 20", err)
	}
	if diff := cmp.Diff([]int{4, 4, 3}, s.Train.Counts()); diff != "" {
		t.Error(diff)
	}

	unseen := write(t, "unseen.csv", "text,label\nnew,b\nx,d\n")
	_, err = LoadSplits(ctx, Sources{Train: train, Test: unseen}, LoadOptions{})
	wantError(t, err, "unseen.csv: line 3", `label "d" is not one of those trained on: "a", "b", "c"`)
	s, err = LoadSplits(ctx, Sources{Train: train, Test: unseen}, LoadOptions{SkipBadRows: true})
	if err != nil || s.Test.Stats.Skipped != 1 {
		t.Error("skipping an unseen label", err)
	}
	rare := write(t, "rare.csv", table(30, 2)+"lonely,z\n")
	found := false
	for seed := range uint64(20) {
		_, err := LoadSplits(ctx, Sources{Data: rare, Ratios: []float64{0.5, 0.5}, Seed: seed}, LoadOptions{})
		if err != nil {
			wantError(t, err, "rare.csv: line 32", `label "z" has no example in the training part`)
			found = true
		}
	}
	if !found {
		t.Error("a class of one was trained on with 20 seeds")
	}
	if _, err := LoadSplits(ctx, Sources{Data: rare, Stratify: true}, LoadOptions{}); err != nil {
		t.Errorf("stratified, a class of one is trained on: %v", err)
	}

	_, err = LoadSplits(ctx, Sources{Train: write(t, "one.csv", "text,label\na,x\nb,x\n")}, LoadOptions{})
	wantError(t, err, "one.csv", "all of class")
	_, err = LoadSplits(ctx, Sources{Train: train, Val: write(t, "none.csv", "text,label\n")}, LoadOptions{})
	wantError(t, err, "none.csv: no examples")
	_, err = LoadSplits(ctx, Sources{Data: write(t, "few.csv", "text,label\na,x\nb,y\n")}, LoadOptions{})
	wantError(t, err, "few.csv: 2 examples are too few")

	for _, src := range []Sources{
		{}, {Val: val}, {Data: train, Train: train}, {Data: train, Ratios: []float64{1}},
		{Train: train, Ratios: []float64{0.5, 0.5}}, {Data: train, Ratios: []float64{0.5, 0.4}},
	} {
		if _, err := LoadSplits(ctx, src, LoadOptions{}); err == nil {
			t.Errorf("%+v is accepted", src)
		}
	}
	if _, err := LoadSplits(ctx, Sources{Train: train, Val: filepath.Join(t.TempDir(), "absent.csv")}, LoadOptions{}); err == nil {
		t.Error("an absent file is accepted")
	}
}

func TestFolderOfReviewsKeepsItsParts(t *testing.T) {
	root := t.TempDir()
	for _, part := range []string{"train", "test"} {
		for _, label := range []string{"pos", "neg"} {
			dir := filepath.Join(root, part, label)
			if err := os.MkdirAll(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			for i := range 9 {
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d_1.txt", i)), fmt.Appendf(nil, "%s %s %d", part, label, i), 0o666); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, ratios := range [][]float64{nil, {0.8, 0.1, 0.1}, {0.9, 0.1}} {
		s, err := LoadSplits(t.Context(), Sources{Data: root, Ratios: ratios, Seed: 1}, LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Train.Examples) != 16 || len(s.Val.Examples) != 2 || len(s.Test.Examples) != 18 {
			t.Errorf("%v: %d, %d and %d examples", ratios, len(s.Train.Examples), len(s.Val.Examples), len(s.Test.Examples))
		}
		for i, set := range []*Set{s.Train, s.Val, s.Test} {
			for _, ex := range set.Examples {
				if strings.HasPrefix(ex.Text, "test") != (i == 2) {
					t.Errorf("%v: part %d holds %q", ratios, i, ex.Text)
				}
			}
		}
		if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "its own test part") {
			t.Errorf("not said: %s", notes)
		}
	}
}
