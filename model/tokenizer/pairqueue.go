package tokenizer

import "slices"

// pairQueue holds the pairs of a long word that may merge, and gives out the one of the lowest
// rank, of these the leftmost. The positions of a rank are a list: they mostly arrive in order,
// so that filling and emptying the queue takes time in proportion to the pairs.
type pairQueue struct {
	list  []int32 // by rank: its place in lists plus 1, or 0
	lists []positions
	free  []int32  // places in lists that are not in use
	ranks []uint32 // a heap of the ranks that have a list
	most  int      // symbols of the longest word so far
}

type positions struct {
	at     []int32
	next   int // those before are gone
	sorted bool
}

// begin prepares an empty queue for so many ranks and a word of so many symbols.
func (q *pairQueue) begin(ranks, symbols int) {
	q.most = max(q.most, symbols)
	if len(q.list) < ranks {
		q.list = make([]int32, ranks)
	}
}

func (q *pairQueue) push(rank uint32, at int32) {
	i := q.list[rank]
	if i == 0 {
		if n := len(q.free); n > 0 {
			i = q.free[n-1]
			q.free = q.free[:n-1]
		} else {
			q.lists = append(q.lists, positions{})
			i = int32(len(q.lists))
		}
		q.list[rank] = i
		l := &q.lists[i-1]
		l.at, l.next, l.sorted = l.at[:0], 0, true
		q.ranks = append(q.ranks, rank)
		q.up(len(q.ranks) - 1)
	}
	l := &q.lists[i-1]
	if n := len(l.at); n > l.next && l.at[n-1] > at {
		l.sorted = false
	}
	l.at = append(l.at, at)
}

func (q *pairQueue) pop() (rank uint32, at int32, ok bool) {
	for len(q.ranks) > 0 {
		rank = q.ranks[0]
		i := q.list[rank]
		l := &q.lists[i-1]
		if l.next == len(l.at) {
			q.list[rank] = 0
			q.free = append(q.free, i)
			last := len(q.ranks) - 1
			q.ranks[0] = q.ranks[last]
			q.ranks = q.ranks[:last]
			q.down(0)
			continue
		}
		if !l.sorted {
			slices.Sort(l.at[l.next:])
			l.sorted = true
		}
		l.next++
		return rank, l.at[l.next-1], true
	}
	return 0, 0, false
}

func (q *pairQueue) up(i int) {
	h := q.ranks
	for i > 0 {
		p := (i - 1) / 2
		if h[p] <= h[i] {
			return
		}
		h[p], h[i] = h[i], h[p]
		i = p
	}
}

func (q *pairQueue) down(i int) {
	h := q.ranks
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1] < h[c] {
			c++
		}
		if h[i] <= h[c] {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}
