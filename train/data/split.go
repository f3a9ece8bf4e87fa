package data

import (
	"fmt"
	"math"
	"slices"

	"gopeft/train/data/rows"
)

// SplitIndices divides 0..n-1 at random into parts of the given ratios, which
// must be positive and sum to 1. Part sizes are the ratios' shares of n, rounded
// by largest remainder. With classes (of length n) every class is divided so on
// its own, which keeps their proportions; the parts are then shuffled, so that a
// prefix of a part is a random sample of it.
func SplitIndices(n int, ratios []float64, seed uint64, classes []int) ([][]int, error) {
	if err := CheckRatios(ratios); err != nil {
		return nil, err
	}
	if classes != nil && len(classes) != n {
		return nil, fmt.Errorf("split: %d classes for %d examples", len(classes), n)
	}
	rng := newRNG(seed, forSplit, 0)
	order := permutation(rng, n)
	parts := make([][]int, len(ratios))
	if classes == nil {
		deal(parts, order, ratios)
		return parts, nil
	}
	byClass := map[int][]int{}
	for _, i := range order {
		byClass[classes[i]] = append(byClass[classes[i]], i)
	}
	keys := make([]int, 0, len(byClass))
	for class := range byClass {
		keys = append(keys, class)
	}
	slices.Sort(keys)
	for _, class := range keys {
		deal(parts, byClass[class], ratios)
	}
	for _, part := range parts {
		shuffle(rng, part)
	}
	return parts, nil
}

// CheckRatios reports shares that are not positive or do not sum to 1.
func CheckRatios(ratios []float64) error {
	sum := 0.0
	for _, r := range ratios {
		if !(r > 0 && r <= 1) { // NaN fails too
			return fmt.Errorf("split: ratio %v is not between 0 and 1", r)
		}
		sum += r
	}
	if math.Abs(sum-1) > 1e-6 {
		return fmt.Errorf("split: the ratios sum to %.6g, not 1", sum)
	}
	return nil
}

// deal cuts order into consecutive pieces and appends them to the parts.
func deal(parts [][]int, order []int, ratios []float64) {
	sizes := apportion(len(order), ratios)
	for i, size := range sizes {
		parts[i] = append(parts[i], order[:size]...)
		order = order[size:]
	}
}

// apportion rounds n·ratio to integers that sum to n, by largest remainder. Of
// equal remainders the earlier part's counts more, so that the only example of a class is training data.
func apportion(n int, ratios []float64) []int {
	sizes := make([]int, len(ratios))
	rest := make([]float64, len(ratios))
	left := n
	for i, r := range ratios {
		share := r * float64(n)
		// 0.7·10 is 7 less a rounding error.
		sizes[i] = min(int(math.Floor(share+1e-9)), left)
		rest[i] = share - float64(sizes[i])
		left -= sizes[i]
	}
	for ; left > 0; left-- {
		most := 0
		for i := range rest {
			if rest[i] > rest[most]+1e-9 {
				most = i
			}
		}
		sizes[most]++
		rest[most]--
	}
	return sizes
}

// Split divides a set by [SplitIndices]; with stratify every class keeps its
// share. A class that only the later parts hold is an error: nothing trained on
// the first part could know it.
func (s *Set) Split(ratios []float64, seed uint64, stratify bool) ([]*Set, error) {
	var classes []int
	if stratify && s.Labels != nil {
		classes = make([]int, s.Len())
		for i := range classes {
			classes[i] = s.Class(i)
		}
	}
	indices, err := SplitIndices(s.Len(), ratios, seed, classes)
	if err != nil {
		return nil, err
	}
	sets := make([]*Set, len(indices))
	for i, part := range indices {
		sets[i] = s.pick(part)
		if len(part) == 0 {
			return nil, fmt.Errorf("%s: %d examples are too few to split %v", s.File, s.Len(), ratios)
		}
	}
	return sets, checkSeen(sets)
}

// checkSeen reports the first example of a class that the first set lacks.
func checkSeen(sets []*Set) error {
	counts := sets[0].Counts()
	for _, set := range sets[1:] {
		for i := range set.Len() {
			if class := set.Class(i); class >= 0 && counts[class] == 0 {
				ex, err := set.Example(i)
				if err != nil {
					return err
				}
				return rows.Row{File: ex.File, Line: ex.Line, Number: ex.Row}.
					Errorf("label %q has no example in the training part: stratify the split, or use another seed", set.Labels[ex.Label])
			}
		}
	}
	return nil
}

// pick gives the set of the examples at these indices, with the same labels.
func (s *Set) pick(indices []int) *Set {
	part := &Set{File: s.File, Kind: s.Kind, Labels: s.Labels, Columns: s.Columns, sources: pickSources(s.sources, indices)}
	if s.disk != nil {
		part.disk = s.disk.pick(indices)
	} else {
		part.Examples = make([]Example, len(indices))
	}
	for i, j := range indices {
		if s.disk == nil {
			part.Examples[i] = s.Examples[j]
		}
		if s.empty(j) {
			part.Stats.EmptyTexts++
		}
	}
	part.Stats.Rows = len(indices)
	return part
}

func pickSources(sources []uint16, indices []int) []uint16 {
	if sources == nil {
		return nil
	}
	part := make([]uint16, len(indices))
	for i, j := range indices {
		part[i] = sources[j]
	}
	return part
}

// sample keeps the random sample that the options ask for.
func (s *Set) sample(opts LoadOptions) error {
	n := opts.Sample
	if n <= 0 || n >= s.Len() && !opts.Balanced {
		return nil
	}
	order := permutation(newRNG(opts.Seed, forSample, 0), s.Len())
	if opts.Balanced {
		var err error
		if order, err = s.balanced(order, n); err != nil {
			return err
		}
	} else {
		order = order[:n]
	}
	slices.Sort(order)
	picked := s.pick(order)
	s.Examples, s.disk = picked.Examples, picked.disk
	s.Stats.Rows, s.Stats.EmptyTexts = picked.Stats.Rows, picked.Stats.EmptyTexts
	return nil
}

// balanced keeps the first of each class in order, n in all; what does not divide
// evenly goes to the first classes.
func (s *Set) balanced(order []int, n int) ([]int, error) {
	if len(s.Labels) == 0 {
		return nil, fmt.Errorf("%s: a balanced sample needs labels", s.File)
	}
	want := make([]int, len(s.Labels))
	for i := range want {
		want[i] = n / len(want)
		if i < n%len(want) {
			want[i]++
		}
	}
	for i, have := range s.Counts() {
		if have < want[i] {
			return nil, fmt.Errorf("%s: class %q has %d examples, a balanced sample of %d needs %d", s.File, s.Labels[i], have, n, want[i])
		}
	}
	kept := make([]int, 0, n)
	for _, i := range order {
		if class := s.Class(i); want[class] > 0 {
			want[class]--
			kept = append(kept, i)
		}
	}
	return kept, nil
}

// DrawBalanced draws n of the examples whose classes are given, at random and none twice: of each class as many as of any other,
// as far as there are so many. They come in rounds, one of each class in random order, so that the first of them are
// balanced too. draw tells several draws of one seed apart. n is at most the number of examples.
func DrawBalanced(classes []int, n int, seed, draw uint64) []int {
	rng := newRNG(seed, forShots, draw)
	var order []int // of the classes, as they come
	left := map[int][]int{}
	for _, i := range permutation(rng, len(classes)) {
		class := classes[i]
		if _, known := left[class]; !known {
			order = append(order, class)
		}
		left[class] = append(left[class], i)
	}
	drawn := make([]int, 0, n)
	for len(drawn) < n {
		shuffle(rng, order)
		for _, class := range order {
			if of := left[class]; len(of) > 0 && len(drawn) < n {
				drawn, left[class] = append(drawn, of[0]), of[1:]
			}
		}
	}
	return drawn
}
