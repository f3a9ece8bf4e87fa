package classic

import (
	"context"
	"math/bits"
	"math/rand/v2"
)

// Sizes, in samples, at which a node's split search changes its ways.
const (
	// Subtrees up to this size read the rows of the data, which then stay in
	// the cache for all nodes below; larger nodes read columns of ranks.
	rowNode = 128
	// Up to this many keys insertion sort wins over a radix sort.
	insertionKeys = 32
)

// sample is one distinct row of a tree's bootstrap sample.
type sample struct {
	row    uint32
	class  uint16
	weight uint16 // how often it was drawn
}

// grower grows trees one after the other, reusing its memory.
type grower[R rankType] struct {
	x       Matrix
	ranks   rankTable[R]
	labels  []int
	classes int
	o       ForestOptions

	random   *rand.Rand
	features []int32  // a permutation; draws shuffle its front
	draws    []uint16 // how often each row was drawn
	samples  []sample // of the tree, each node's in one range
	right    []sample // partition's scratch
	keys     []uint64 // of the node and feature at hand: order<<32 | class<<16 | weight
	spare    []uint64
	histo    []uint64 // per rank: weight<<32 | weight of class 1
	counts   []int64  // weight per class in the node
	left     []int64  // weight per class left of the position at hand
	stack    []pending
	tree     tree
}

// pending is a node still to be split or made a leaf.
type pending struct {
	node       int32
	depth      int
	start, end int // its range of samples
}

func newGrower[R rankType](x Matrix, ranks rankTable[R], labels []int, classes int, o ForestOptions) *grower[R] {
	return &grower[R]{
		x: x, ranks: ranks, labels: labels, classes: classes, o: o,
		features: make([]int32, x.Cols),
		draws:    make([]uint16, x.Rows),
		samples:  make([]sample, 0, x.Rows),
		right:    make([]sample, x.Rows),
		keys:     make([]uint64, x.Rows),
		spare:    make([]uint64, x.Rows),
		histo:    make([]uint64, x.Rows),
		counts:   make([]int64, classes),
		left:     make([]int64, classes),
	}
}

// grow returns tree number i, which depends on the seed and i alone.
func (g *grower[R]) grow(ctx context.Context, i uint64) (tree, error) {
	g.random = rand.New(rand.NewPCG(g.o.Seed, i))
	for c := range g.features {
		g.features[c] = int32(c)
	}
	g.bootstrap()
	g.tree = tree{nodes: make([]node, 1, 64)}
	g.stack = append(g.stack[:0], pending{start: 0, end: len(g.samples)})
	for n := 0; len(g.stack) > 0; n++ {
		if n%64 == 0 {
			if err := ctx.Err(); err != nil {
				return tree{}, err
			}
		}
		p := g.stack[len(g.stack)-1]
		g.stack = g.stack[:len(g.stack)-1]
		g.process(p)
	}
	return g.tree, nil
}

// bootstrap draws as many rows as there are, with replacement.
func (g *grower[R]) bootstrap() {
	clear(g.draws)
	n := len(g.draws)
	for range n {
		r := g.random.IntN(n)
		if g.draws[r] < 1<<16-1 {
			g.draws[r]++
		}
	}
	g.samples = g.samples[:0]
	for r, w := range g.draws {
		if w > 0 {
			g.samples = append(g.samples, sample{uint32(r), uint16(g.labels[r]), w})
		}
	}
}

// process splits a node, or makes it a leaf.
func (g *grower[R]) process(p pending) {
	samples := g.samples[p.start:p.end]
	clear(g.counts)
	for _, s := range samples {
		g.counts[s.class] += int64(s.weight)
	}
	total := int64(0)
	pure := false
	for _, n := range g.counts {
		total += n
	}
	class := samples[0].class
	pure = g.counts[class] == total

	var best split
	if !pure && len(samples) >= g.o.MinSamplesSplit && (g.o.MaxDepth == 0 || p.depth < g.o.MaxDepth) {
		best = g.findSplit(samples, total)
	}
	n := &g.tree.nodes[p.node]
	switch {
	case best.found:
		threshold, at := g.partition(samples, best)
		child := int32(len(g.tree.nodes))
		*n = node{feature: best.feature, threshold: threshold, next: child}
		g.tree.nodes = append(g.tree.nodes, node{}, node{})
		middle := p.start + at
		g.stack = append(g.stack,
			pending{child + 1, p.depth + 1, middle, p.end},
			pending{child, p.depth + 1, p.start, middle})
	case pure:
		*n = node{feature: pureLeaf, next: int32(class)}
	default:
		*n = node{feature: mixedLeaf, next: int32(len(g.tree.mixed) / g.classes)}
		for _, c := range g.counts {
			g.tree.mixed = append(g.tree.mixed, float32(float64(c)/float64(total)))
		}
	}
}

// split is a candidate: samples whose order (rank or ordered bits) is at most
// low go left, the others have high or more.
type split struct {
	found     bool
	feature   int32
	low, high uint32
	// The decrease of impurity, up to the node's constants, is
	// numerator/denominator; comparing products saves a division per position.
	numerator, denominator float64
}

// better reports whether numerator/denominator is above s's.
func (s *split) better(numerator, denominator float64) bool {
	return !s.found || numerator*s.denominator > s.numerator*denominator
}

func (s *split) set(feature int32, low, high uint32, numerator, denominator float64) {
	*s = split{true, feature, low, high, numerator, denominator}
}

// findSplit draws features until MaxFeatures have been looked at and at least
// one of them was not constant in the node.
func (g *grower[R]) findSplit(samples []sample, total int64) split {
	var best split
	n := len(g.features)
	for drawn := 0; drawn < n && (drawn < g.o.MaxFeatures || !best.found); drawn++ {
		at := drawn + g.random.IntN(n-drawn)
		g.features[drawn], g.features[at] = g.features[at], g.features[drawn]
		feature := g.features[drawn]
		switch {
		case len(samples) <= rowNode:
			g.searchRows(&best, feature, samples, total)
		case g.classes == 2 && len(samples) >= g.x.Rows/8:
			g.searchHistogram(&best, feature, samples, total)
		default:
			g.searchRanks(&best, feature, samples, total)
		}
	}
	return best
}

// searchRows orders a few samples by their values in the data.
func (g *grower[R]) searchRows(best *split, feature int32, samples []sample, total int64) {
	keys := g.keys[:len(samples)]
	low, high := uint32(1<<32-1), uint32(0)
	for i, s := range samples {
		o := orderedBits(g.x.Data[int(s.row)*g.x.Cols+int(feature)])
		low, high = min(low, o), max(high, o)
		keys[i] = uint64(o)<<32 | uint64(s.class)<<16 | uint64(s.weight)
	}
	if low == high {
		return
	}
	g.scan(best, feature, g.sortKeys(keys, low, high), total)
}

// searchRanks orders samples by their ranks.
func (g *grower[R]) searchRanks(best *split, feature int32, samples []sample, total int64) {
	keys := g.keys[:len(samples)]
	column := g.ranks.column(int(feature))
	low, high := uint32(1<<32-1), uint32(0)
	for i, s := range samples {
		o := uint32(column[s.row])
		low, high = min(low, o), max(high, o)
		keys[i] = uint64(o)<<32 | uint64(s.class)<<16 | uint64(s.weight)
	}
	if low == high {
		return
	}
	g.scan(best, feature, g.sortKeys(keys, low, high), total)
}

// sortKeys sorts by order, given its extremes.
func (g *grower[R]) sortKeys(keys []uint64, low, high uint32) []uint64 {
	if len(keys) <= insertionKeys {
		insertionSort(keys)
		return keys
	}
	return radixSort(keys, g.spare[:len(keys)], 32, bits.Len32(low^high))
}

// scan tries all positions of a sorted node.
func (g *grower[R]) scan(best *split, feature int32, keys []uint64, total int64) {
	if g.classes == 2 {
		g.scanTwo(best, feature, keys, total)
	} else {
		g.scanMany(best, feature, keys, total)
	}
}

// scanTwo scores a position of a node with two classes. With l of L left
// samples and t of all T in class 1, the Gini impurity decreases by
// 2·(l·T - t·L)² / (T²·L·(T-L)).
func (g *grower[R]) scanTwo(best *split, feature int32, keys []uint64, total int64) {
	all, ones := float64(total), float64(g.counts[1])
	left, leftOnes := int64(0), int64(0)
	for i, k := range keys[:len(keys)-1] {
		w := int64(uint16(k))
		left += w
		leftOnes += w & -int64(k>>16&1)
		if next := keys[i+1]; next>>32 != k>>32 {
			l := float64(left)
			d := float64(leftOnes)*all - l*ones
			if num, den := d*d, l*(all-l); best.better(num, den) {
				best.set(feature, uint32(k>>32), uint32(next>>32), num, den)
			}
		}
	}
}

// scanMany scores a position by Σ l_c²/L + Σ r_c²/R over the classes c, which
// grows as the Gini impurity falls.
func (g *grower[R]) scanMany(best *split, feature int32, keys []uint64, total int64) {
	clear(g.left)
	left, leftSquares, rightSquares := int64(0), int64(0), int64(0)
	for _, n := range g.counts {
		rightSquares += n * n
	}
	for i, k := range keys[:len(keys)-1] {
		w, c := int64(uint16(k)), uint16(k>>16)
		l := g.left[c]
		r := g.counts[c] - l
		leftSquares += w * (2*l + w)
		rightSquares += w * (w - 2*r)
		g.left[c] = l + w
		left += w
		if next := keys[i+1]; next>>32 != k>>32 {
			right := total - left
			num := float64(leftSquares)*float64(right) + float64(rightSquares)*float64(left)
			if den := float64(left) * float64(right); best.better(num, den) {
				best.set(feature, uint32(k>>32), uint32(next>>32), num, den)
			}
		}
	}
}

// searchHistogram serves large nodes with two classes: summing weights per
// rank and walking all ranks is cheaper than sorting.
func (g *grower[R]) searchHistogram(best *split, feature int32, samples []sample, total int64) {
	column := g.ranks.column(int(feature))
	low, high := uint32(1<<32-1), uint32(0)
	for _, s := range samples {
		o := uint32(column[s.row])
		low, high = min(low, o), max(high, o)
		w := uint64(s.weight)
		g.histo[o] += w<<32 | w&-uint64(s.class)
	}
	all, ones := float64(total), float64(g.counts[1])
	sum, before := uint64(0), low
	histo := g.histo[low : high+1]
	for i, h := range histo {
		if h == 0 {
			continue
		}
		o := low + uint32(i)
		if o > low {
			l := float64(sum >> 32)
			d := float64(uint32(sum))*all - l*ones
			if num, den := d*d, l*(all-l); best.better(num, den) {
				best.set(feature, before, o, num, den)
			}
		}
		sum += h
		before = o
	}
	clear(histo)
}

// partition moves the left samples to the front, keeping the order on both
// sides, and returns the threshold, halfway between the values on its sides,
// and the number of left samples.
func (g *grower[R]) partition(samples []sample, s split) (threshold float32, left int) {
	byRow := len(samples) <= rowNode
	column := g.ranks.column(int(s.feature))
	right := 0
	var lowRow, highRow uint32
	for _, m := range samples {
		var o uint32
		if byRow {
			o = orderedBits(g.x.Data[int(m.row)*g.x.Cols+int(s.feature)])
		} else {
			o = uint32(column[m.row])
		}
		if o <= s.low {
			if o == s.low {
				lowRow = m.row
			}
			samples[left] = m
			left++
		} else {
			if o == s.high {
				highRow = m.row
			}
			g.right[right] = m
			right++
		}
	}
	copy(samples[left:], g.right[:right])

	low := g.x.Data[int(lowRow)*g.x.Cols+int(s.feature)]
	high := g.x.Data[int(highRow)*g.x.Cols+int(s.feature)]
	threshold = low/2 + high/2
	if !(threshold >= low && threshold < high) { // neighbours, or halves that lost a bit
		threshold = low
	}
	return threshold, left
}
