package classic

import (
	"context"
	"math"
)

// rankType holds a rank: 16 bits do for 65,536 rows.
type rankType interface{ uint16 | uint32 }

// rankTable replaces every value of a matrix by its rank among the distinct
// values of its column, column by column. Ranks order as the values do, take
// half their room, sort in few radix passes, and neighbours in a column are
// neighbours in memory.
type rankTable[R rankType] struct {
	rows  int
	ranks []R
}

// column returns the ranks of a column, by row.
func (t rankTable[R]) column(c int) []R {
	return t.ranks[c*t.rows : (c+1)*t.rows]
}

// rankColumns builds the table.
func rankColumns[R rankType](ctx context.Context, x Matrix, workers int) (rankTable[R], error) {
	t := rankTable[R]{rows: x.Rows, ranks: make([]R, x.Rows*x.Cols)}
	// A group of columns shares each cache line read from the rows.
	const group = 16
	type scratch struct{ columns, spare []uint64 }
	buffers := make([]scratch, workerCount(workers))
	err := forEachBlock(ctx, workers, x.Cols, group, func(w, from, to int) error {
		b := &buffers[w]
		if b.columns == nil {
			b.columns = make([]uint64, group*x.Rows)
			b.spare = make([]uint64, x.Rows)
		}
		for r := range x.Rows {
			for c, v := range x.Row(r)[from:to] {
				b.columns[c*x.Rows+r] = uint64(orderedBits(v))<<32 | uint64(r)
			}
		}
		for c := from; c < to; c++ {
			keys := b.columns[(c-from)*x.Rows : (c-from+1)*x.Rows]
			sorted := radixSort(keys, b.spare[:len(keys)], 32, 32)
			out := t.column(c)
			rank, previous := R(0), sorted[0]>>32
			for _, k := range sorted {
				if k>>32 != previous {
					rank++
					previous = k >> 32
				}
				out[uint32(k)] = rank
			}
		}
		return nil
	})
	return t, err
}

// orderedBits maps finite floats to integers of the same order; both zeros are
// equal.
func orderedBits(v float32) uint32 {
	const sign = 1 << 31
	b := math.Float32bits(v + 0) // -0 + 0 is +0
	// Negative numbers have all bits flipped, the others their sign, without a
	// branch that the processor could only guess.
	return b ^ (uint32(int32(b)>>31) | sign)
}

// radixSort sorts keys by their bits [low, low+bits), stably, eight bits at a
// time. It uses both slices, of equal length, and returns the sorted one.
func radixSort(keys, spare []uint64, low, bits int) []uint64 {
	for ; bits > 0; low, bits = low+8, bits-8 {
		var start [256]uint32
		for _, k := range keys {
			start[uint8(k>>low)]++
		}
		sum := uint32(0)
		for i, n := range start {
			start[i] = sum
			sum += n
		}
		for _, k := range keys {
			d := uint8(k >> low)
			spare[start[d]] = k
			start[d]++
		}
		keys, spare = spare, keys
	}
	return keys
}

// insertionSort sorts few keys in place.
func insertionSort(keys []uint64) {
	for i := 1; i < len(keys); i++ {
		k := keys[i]
		j := i
		for ; j > 0 && keys[j-1] > k; j-- {
			keys[j] = keys[j-1]
		}
		keys[j] = k
	}
}
