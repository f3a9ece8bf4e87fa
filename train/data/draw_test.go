package data

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestShotsAreBalanced(t *testing.T) {
	classes := []int{0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2}
	for _, c := range []struct {
		n    int
		want []int // how many of each class
	}{{0, []int{0, 0, 0}}, {3, []int{1, 1, 1}}, {5, []int{2, 1, 2}}, {8, []int{5, 1, 2}}, {11, []int{8, 1, 2}}} {
		for draw := range uint64(20) {
			drawn := DrawBalanced(classes, c.n, 7, draw)
			counts := make([]int, 3)
			for _, i := range drawn {
				counts[classes[i]]++
			}
			if diff := cmp.Diff(c.want, counts); diff != "" {
				t.Errorf("%d of them: %s", c.n, diff)
			}
			if len(slices.Compact(slices.Sorted(slices.Values(drawn)))) != c.n {
				t.Errorf("%d of them: one twice in %v", c.n, drawn)
			}
		}
	}
}

func TestDrawsDependOnSeedAndNumberAlone(t *testing.T) {
	classes := make([]int, 100)
	for i := range classes {
		classes[i] = i % 2
	}
	first := DrawBalanced(classes, 8, 1, 0)
	if diff := cmp.Diff(first, DrawBalanced(classes, 8, 1, 0)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(first[:4], DrawBalanced(classes, 4, 1, 0)); diff != "" {
		t.Errorf("fewer are not the first: %s", diff)
	}
	if slices.Equal(first, DrawBalanced(classes, 8, 2, 0)) || slices.Equal(first, DrawBalanced(classes, 8, 1, 1)) {
		t.Error("another seed, or another draw, gives the same")
	}
	lasts := map[int]bool{} // no class is always the last, which weighs most in a prompt
	for draw := range uint64(20) {
		lasts[classes[DrawBalanced(classes, 8, 1, draw)[7]]] = true
	}
	if len(lasts) != 2 {
		t.Error("one class is always the last")
	}
}
