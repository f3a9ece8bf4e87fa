package data

import (
	"fmt"
	"slices"
)

// Pack puts examples of these lengths into rows of at most width tokens, by first
// fit decreasing: at most 11/9 of the fewest possible rows (and one more). It
// returns the examples of each row. Rows, and examples within a row, come longest
// first; equal lengths keep their order, so the result depends on lengths alone.
func Pack(lengths []int, width int) ([][]int, error) {
	if err := checkPack(lengths, width); err != nil {
		return nil, err
	}
	order := make([]int, len(lengths))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return lengths[b] - lengths[a] })
	var rows [][]int
	room := newRoomTree(len(lengths), width)
	for _, i := range order {
		row := room.firstFit(lengths[i])
		if row == len(rows) {
			rows = append(rows, nil)
		}
		rows[row] = append(rows[row], i)
		room.take(row, lengths[i])
	}
	return rows, nil
}

func checkPack(lengths []int, width int) error {
	for i, n := range lengths {
		if n <= 0 || n > width {
			return fmt.Errorf("pack: example %d has %d tokens, a row holds 1 to %d: truncate first", i, n, width)
		}
	}
	return nil
}

// roomTree finds the first row with room in O(log n): a binary tree of maxima
// over the rows' free space.
type roomTree struct {
	size int // leaves, a power of two
	most []int
}

func newRoomTree(rows, width int) *roomTree {
	t := &roomTree{size: 1}
	for t.size < rows {
		t.size *= 2
	}
	t.most = make([]int, 2*t.size)
	for i := range t.most {
		t.most[i] = width
	}
	return t
}

func (t *roomTree) firstFit(n int) int {
	node := 1
	for node < t.size {
		if node *= 2; t.most[node] < n {
			node++
		}
	}
	return node - t.size
}

func (t *roomTree) take(row, n int) {
	node := row + t.size
	t.most[node] -= n
	for node /= 2; node > 0; node /= 2 {
		t.most[node] = max(t.most[2*node], t.most[2*node+1])
	}
}
