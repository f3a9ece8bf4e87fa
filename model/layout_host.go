package model

import "slices"

// padShape says where a batch has padding.
type padShape int

const (
	unpadded padShape = iota
	padRight          // only after a row's last real token
	padAny
)

// hostBatch is a batch's mask and segments as plain numbers, [rows × width] or nil.
type hostBatch struct {
	rows, width     int
	mask, segments  []int64
	virtual, memory int     // tokens put before the batch, and positions counted before those
	before          []int64 // per row, real tokens that an earlier pass cached
}

func (b hostBatch) padded(row, i int) bool { return b.mask != nil && b.mask[row*b.width+i] == 0 }

func (b hostBatch) padding() padShape {
	shape := unpadded
	for r := range b.rows {
		for i := range b.width {
			if !b.padded(r, i) {
				continue
			}
			shape = max(shape, padRight)
			if i+1 < b.width && !b.padded(r, i+1) {
				return padAny
			}
		}
	}
	return shape
}

// counts is per row the real and virtual tokens up to the end of the batch.
func (b hostBatch) counts() []int64 {
	n := slices.Clone(b.before)
	for r := range n {
		n[r] += int64(b.virtual)
		for i := range b.width {
			if !b.padded(r, i) {
				n[r]++
			}
		}
	}
	return n
}

// positions is every new token's position, row by row, or one row's when all are alike, and the length of
// the longest text. Memories and virtual tokens take the first positions; each segment counts from there.
// With skip, padding takes none, as in transformers; without, all padding is behind the text, where nothing reads it.
func (b hostBatch) positions(skip bool) (at []int64, longest int) {
	n := b.virtual + b.width
	alike := true
	for r := range b.rows {
		next := int64(b.memory) + b.before[r]
		for range b.virtual {
			at = append(at, next)
			next++
		}
		start := next
		for i := range b.width {
			if b.segments != nil && i > 0 && b.segments[r*b.width+i] != b.segments[r*b.width+i-1] {
				next = start
			}
			if skip && b.padded(r, i) {
				at = append(at, max(next-1, 0))
				continue
			}
			if !b.padded(r, i) {
				longest = max(longest, int(next)+1)
			}
			at = append(at, next)
			next++
		}
		alike = alike && slices.Equal(at[:n], at[r*n:])
	}
	if alike {
		at = at[:n]
	}
	return at, longest
}

// segmentStarts is [rows × virtual+width], where each token's segment begins, nil if a segment is in pieces. Virtual
// tokens begin with themselves.
func (b hostBatch) segmentStarts() []int64 {
	var starts []int64
	for r := range b.rows {
		row := b.segments[r*b.width : (r+1)*b.width]
		starts = append(starts, make([]int64, b.virtual)...)
		seen := map[int64]bool{}
		begin := 0
		for i, segment := range row {
			if i > 0 && segment != row[i-1] {
				begin = i
			}
			if i == begin {
				if seen[segment] {
					return nil
				}
				seen[segment] = true
			}
			starts = append(starts, int64(b.virtual+begin))
		}
	}
	return starts
}

// segmentEnds is where the segments end in the tokens of all rows, which have so many each, beginning with 0, and the
// length of the longest.
func segmentEnds(starts []int64, width int) (ends []int64, longest int64) {
	ends = []int64{0}
	for i := range starts {
		if i+1 < len(starts) && (i+1)%width != 0 && starts[i+1] == starts[i] {
			continue
		}
		longest = max(longest, int64(i+1)-ends[len(ends)-1])
		ends = append(ends, int64(i+1))
	}
	return ends, longest
}
