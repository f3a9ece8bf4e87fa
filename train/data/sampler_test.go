package data

import (
	"slices"
	"testing"

	"gopeft/train/data/rows"

	"github.com/google/go-cmp/cmp"
)

// lengths are realistic: most short, some long.
func lengths(n int) []int {
	rng := newRNG(99, forSample, 0)
	out := make([]int, n)
	for i := range out {
		out[i] = 5 + int(below(rng, 60))
		if below(rng, 10) == 0 {
			out[i] = 100 + int(below(rng, 412))
		}
	}
	return out
}

func TestSamplerOrders(t *testing.T) {
	five := []int{3, 1, 4, 1, 5}
	cases := []struct {
		name string
		s    Sampler
		want [][]int
	}{
		{"in order", Sampler{Lengths: five, BatchSize: 2}, [][]int{{0, 1}, {2, 3}, {4}}},
		{"one batch", Sampler{Lengths: five, BatchSize: 9}, [][]int{{0, 1, 2, 3, 4}}},
		{"sorted", Sampler{Lengths: five, BatchSize: 2, Bucket: true}, [][]int{{4, 2}, {0, 1}, {3}}},
		{"by tokens", Sampler{Lengths: five, MaxTokens: 8}, [][]int{{0, 1}, {2, 3}, {4}}},
		{"by tokens, an example over the bound", Sampler{Lengths: five, MaxTokens: 4}, [][]int{{0}, {1}, {2}, {3}, {4}}},
		{"by tokens, sorted", Sampler{Lengths: five, MaxTokens: 8, Bucket: true}, [][]int{{4}, {2, 0}, {1, 3}}},
		{"by tokens and size", Sampler{Lengths: five, MaxTokens: 100, BatchSize: 3}, [][]int{{0, 1, 2}, {3, 4}}},
		{"empty examples", Sampler{Lengths: []int{0, 0, 7}, MaxTokens: 7}, [][]int{{0, 1}, {2}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.s.Epoch(0)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Every example once, the bounds kept, and the same again for the same epoch.
func TestSamplerEpochs(t *testing.T) {
	all := lengths(1001)
	for _, s := range []Sampler{
		{BatchSize: 12}, {BatchSize: 12, Shuffle: true}, {BatchSize: 12, Shuffle: true, Bucket: true}, {BatchSize: 12, Bucket: true},
		{MaxTokens: 2048}, {MaxTokens: 2048, Shuffle: true}, {MaxTokens: 2048, Shuffle: true, Bucket: true}, {MaxTokens: 2048, BatchSize: 16, Shuffle: true, Bucket: true},
		{MaxTokens: 64, Shuffle: true, Bucket: true}, {BatchSize: 2000, Shuffle: true, Bucket: true},
	} {
		s.Lengths, s.Seed = all, 7
		var first [][]int
		steps := 0
		for epoch := range 3 {
			batches, err := s.Epoch(epoch)
			if err != nil {
				t.Fatal(err)
			}
			steps += len(batches)
			again, _ := s.Epoch(epoch)
			if !cmp.Equal(batches, again) {
				t.Errorf("%+v: epoch %d differs when asked again", rows.Brief(s), epoch)
			}
			var seen []int
			for _, b := range batches {
				longest := 0
				for _, i := range b {
					longest = max(longest, all[i])
				}
				if s.BatchSize > 0 && len(b) > s.BatchSize || s.MaxTokens > 0 && len(b) > 1 && len(b)*longest > s.MaxTokens {
					t.Errorf("batch of %d × %d", len(b), longest)
				}
				seen = append(seen, b...)
			}
			if s.Bucket && s.Shuffle && slices.Max(all) != all[batches[0][0]] {
				t.Error("the longest example is not in the first batch")
			}
			if epoch == 0 {
				first = batches
			} else if s.Shuffle == cmp.Equal(first, batches) {
				t.Errorf("%v: shuffled is %v but epochs 0 and %d are alike: %v", rows.Brief(s), s.Shuffle, epoch, !s.Shuffle)
			}
			slices.Sort(seen)
			for i, j := range seen {
				if i != j {
					t.Fatal("not every example once")
				}
			}
		}
	}
}

// What bucketing is for: less padding, at the randomness of shuffling.
func TestBucketingSavesPadding(t *testing.T) {
	all := lengths(4000)
	padded := func(s Sampler) int {
		batches, err := s.Epoch(1)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, b := range batches {
			longest := 0
			for _, i := range b {
				longest = max(longest, all[i])
			}
			n += longest * len(b)
		}
		return n
	}
	real := 0
	for _, n := range all {
		real += n
	}
	plain := padded(Sampler{Lengths: all, BatchSize: 12, Shuffle: true})
	bucketed := padded(Sampler{Lengths: all, BatchSize: 12, Shuffle: true, Bucket: true})
	t.Logf("%d real tokens, %d shuffled, %d bucketed", real, plain, bucketed)
	if float64(bucketed) > 1.1*float64(real) || bucketed*2 > plain {
		t.Errorf("%d real tokens become %d bucketed and %d not", real, bucketed, plain)
	}
	if batches, _ := (Sampler{Lengths: all, BatchSize: 12, Shuffle: true, Bucket: true}).Epoch(0); slices.IsSortedFunc(batches, func(a, b []int) int { return all[b[0]] - all[a[0]] }) {
		t.Error("bucketed batches come sorted, not shuffled")
	}
}

func TestSamplerRefuses(t *testing.T) {
	for _, s := range []Sampler{{}, {Lengths: []int{1}}, {BatchSize: 1}, {Lengths: []int{-1}, BatchSize: 1}, {Lengths: []int{1}, BatchSize: -1, MaxTokens: 5}} {
		if _, err := s.Epoch(0); err == nil {
			t.Errorf("%+v is accepted", s)
		}
	}
	if _, err := (Sampler{Lengths: []int{1}, BatchSize: 1}).Epoch(-1); err == nil {
		t.Error("epoch -1")
	}
}
