package model

import (
	"slices"
	"testing"
)

func TestSegments(t *testing.T) {
	for name, c := range map[string]struct {
		b       hostBatch
		starts  []int64
		ends    []int64
		longest int64
	}{
		"texts of two rows": {
			hostBatch{rows: 2, width: 5, segments: []int64{1, 1, 2, 2, 2, 1, 1, 1, 1, 0}},
			[]int64{0, 0, 2, 2, 2, 0, 0, 0, 0, 4}, []int64{0, 2, 5, 9, 10}, 4,
		},
		"one text a row": {
			hostBatch{rows: 2, width: 3, segments: []int64{1, 1, 1, 1, 1, 1}},
			[]int64{0, 0, 0, 0, 0, 0}, []int64{0, 3, 6}, 3,
		},
		"one token": {hostBatch{rows: 1, width: 1, segments: []int64{1}}, []int64{0}, []int64{0, 1}, 1},
		"virtual tokens": {
			hostBatch{rows: 1, width: 3, virtual: 2, segments: []int64{1, 2, 2}},
			[]int64{0, 0, 2, 3, 3}, nil, 0,
		},
		"in pieces": {hostBatch{rows: 1, width: 3, segments: []int64{1, 2, 1}}, nil, nil, 0},
	} {
		starts := c.b.segmentStarts()
		if !slices.Equal(starts, c.starts) {
			t.Errorf("%s: segments start at %v, want %v", name, starts, c.starts)
		}
		if c.ends == nil {
			continue
		}
		ends, longest := segmentEnds(starts, c.b.width)
		if !slices.Equal(ends, c.ends) || longest != c.longest {
			t.Errorf("%s: segments end at %v, the longest has %d, want %v and %d", name, ends, longest, c.ends, c.longest)
		}
	}
}
