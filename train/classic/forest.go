package classic

import (
	"context"
	"fmt"
	"math"
	"sync"
)

// maxClasses is what a packed sample has room for.
const maxClasses = 1 << 16

// ForestOptions adjust FitForest; the zero value is scikit-learn's
// RandomForestClassifier(): Gini impurity, bootstrap samples, trees grown
// until their leaves are pure.
type ForestOptions struct {
	Trees           int    // 0 means 100
	MaxFeatures     int    // drawn per split; 0 means the square root of the columns
	MinSamplesSplit int    // distinct samples a node needs to be split; 0 means 2
	MaxDepth        int    // 0 means unlimited
	Seed            uint64 // a seed gives the same forest with any number of workers
	Workers         int    // threads; 0 means all cores
	// Progress, if set, is called after each tree, never twice at a time.
	Progress func(done, total int)
}

// Forest is a fitted random forest.
type Forest struct {
	classes  int
	features int
	trees    []tree
}

// tree is a binary decision tree; its root is node 0.
type tree struct {
	nodes []node
	// mixed holds the class distributions of leaves that are not pure, classes
	// values each.
	mixed []float32
}

// node sends a row to node next if its feature's value is at most threshold,
// else to node next+1. A pure leaf has feature pureLeaf and its class in next;
// another leaf has feature mixedLeaf and the number of its distribution there.
type node struct {
	feature   int32
	threshold float32
	next      int32
}

const (
	pureLeaf  = -1
	mixedLeaf = -2
)

// FitForest grows a random forest (L. Breiman, "Random forests", Machine
// Learning 45 (2001)) on labels in [0, classes). Splits are exact: every
// midpoint between neighbouring values of the drawn features is considered.
// Beside the data it needs 2 bytes per value (4 above 65,536 rows) and little
// per worker.
func FitForest(ctx context.Context, x Matrix, labels []int, classes int, o ForestOptions) (*Forest, error) {
	f, err := fitForest(ctx, x, labels, classes, o)
	if err != nil {
		return nil, fmt.Errorf("random forest: %w", err)
	}
	return f, nil
}

func fitForest(ctx context.Context, x Matrix, labels []int, classes int, o ForestOptions) (*Forest, error) {
	if o.Trees == 0 {
		o.Trees = 100
	}
	if o.MinSamplesSplit == 0 {
		o.MinSamplesSplit = 2
	}
	if o.Trees < 0 || o.MaxFeatures < 0 || o.MinSamplesSplit < 2 || o.MaxDepth < 0 {
		return nil, fmt.Errorf("%d trees, %d features per split, %d samples to split, depth %d: out of range",
			o.Trees, o.MaxFeatures, o.MinSamplesSplit, o.MaxDepth)
	}
	if err := checkTraining(ctx, x, labels, classes, o.Workers); err != nil {
		return nil, err
	}
	if o.MaxFeatures == 0 {
		o.MaxFeatures = max(1, int(math.Sqrt(float64(x.Cols))))
	}
	o.MaxFeatures = min(o.MaxFeatures, x.Cols)

	f := &Forest{classes: classes, features: x.Cols, trees: make([]tree, o.Trees)}
	var err error
	if x.Rows <= math.MaxUint16+1 {
		err = growTrees[uint16](ctx, f.trees, x, labels, classes, o)
	} else {
		err = growTrees[uint32](ctx, f.trees, x, labels, classes, o)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func growTrees[R rankType](ctx context.Context, trees []tree, x Matrix, labels []int, classes int, o ForestOptions) error {
	ranks, err := rankColumns[R](ctx, x, o.Workers)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	done := 0
	growers := make([]*grower[R], min(workerCount(o.Workers), len(trees)))
	return forEach(ctx, o.Workers, len(trees), func(w, i int) error {
		if growers[w] == nil {
			growers[w] = newGrower(x, ranks, labels, classes, o)
		}
		var err error
		if trees[i], err = growers[w].grow(ctx, uint64(i)); err != nil {
			return err
		}
		if o.Progress != nil {
			mu.Lock()
			defer mu.Unlock()
			done++
			o.Progress(done, len(trees))
		}
		return nil
	})
}

// Kind returns "forest".
func (f *Forest) Kind() string { return KindForest }

// Close has nothing to free.
func (f *Forest) Close() error { return nil }

// Features returns the number of columns the forest takes.
func (f *Forest) Features() int { return f.features }

// Classes returns the size of the label space.
func (f *Forest) Classes() int { return f.classes }

// Trees returns the number of trees.
func (f *Forest) Trees() int { return len(f.trees) }

// Nodes returns the number of nodes of all trees, leaves included.
func (f *Forest) Nodes() int {
	n := 0
	for _, t := range f.trees {
		n += len(t.nodes)
	}
	return n
}

// PredictProba returns rows × classes probabilities: the mean over the trees
// of the class shares in the leaf a row ends in.
func (f *Forest) PredictProba(ctx context.Context, x Matrix) (Matrix, error) {
	if err := checkPrediction(ctx, x, f.features, 0); err != nil {
		return Matrix{}, fmt.Errorf("random forest: %w", err)
	}
	out := NewMatrix(x.Rows, f.classes)
	// A block of rows visits one tree after the other: both stay in the cache.
	const block = 64
	err := forEachBlock(ctx, 0, x.Rows, block, func(_, from, to int) error {
		sums := make([]float64, (to-from)*f.classes)
		for t := range f.trees {
			for r := from; r < to; r++ {
				f.trees[t].addTo(sums[(r-from)*f.classes:(r-from+1)*f.classes], x.Row(r))
			}
		}
		for i, s := range sums {
			out.Data[from*f.classes+i] = float32(s / float64(len(f.trees)))
		}
		return nil
	})
	return out, err
}

// addTo adds the class shares of the row's leaf to sums.
func (t *tree) addTo(sums []float64, row []float32) {
	i := int32(0)
	for {
		n := t.nodes[i]
		switch {
		case n.feature >= 0:
			i = n.next
			if !(row[n.feature] <= n.threshold) {
				i++
			}
		case n.feature == pureLeaf:
			sums[n.next]++
			return
		default:
			for c, share := range t.mixed[int(n.next)*len(sums) : (int(n.next)+1)*len(sums)] {
				sums[c] += float64(share)
			}
			return
		}
	}
}

// Predict returns the most probable label of every row, the lowest of equals.
func (f *Forest) Predict(ctx context.Context, x Matrix) ([]int, error) {
	p, err := f.PredictProba(ctx, x)
	if err != nil {
		return nil, err
	}
	return argmaxRows(p), nil
}
