package classic

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"

	"gopeft/model/fsutil"
	"gopeft/model/hf/files"
)

// The kinds of classifiers.
const (
	KindLogistic = "logreg"
	KindForest   = "forest"
	KindBoosted  = "xgboost"
)

const (
	fileFormat  = "gopeft-classifier"
	fileVersion = "1"
)

// Kinds are the classifiers there are.
func Kinds() []string { return []string{KindLogistic, KindForest, KindBoosted} }

// Classifier is what every model can do.
type Classifier interface {
	// Kind is one of Kinds.
	Kind() string
	// Features is the number of columns expected.
	Features() int
	// Classes is the size of the label space.
	Classes() int
	// Predict returns one label per row.
	Predict(context.Context, Matrix) ([]int, error)
	// PredictProba returns rows × Classes probabilities.
	PredictProba(context.Context, Matrix) (Matrix, error)
	// Close frees what is not Go's.
	Close() error
}

// Saved is a classifier as a file keeps it.
type Saved struct {
	Model Classifier
	// Labels, if any, names the classes.
	Labels []string
	// Meta is kept as it is: how the features were made, for example.
	Meta map[string]string
}

// Save writes a classifier, atomically, as a safetensors file: the tensors
// coef, intercept and seen of a regression, or the node arrays of a forest,
// with kind, sizes, labels and meta in the header. Boosted trees are written as
// XGBoost's JSON, which its other programs open; the path has to end in .json.
func Save(path string, s Saved) error {
	if len(s.Labels) > 0 && len(s.Labels) != s.Model.Classes() {
		return fmt.Errorf("save %s: %d labels for %d classes", path, len(s.Labels), s.Model.Classes())
	}
	if b, ok := s.Model.(*Boosted); ok {
		if filepath.Ext(path) != boostedEnding {
			return fmt.Errorf("save %s: the name of boosted trees' file ends in %s", path, boostedEnding)
		}
		if err := b.save(path, s.Labels, s.Meta); err != nil {
			return fmt.Errorf("save %s: %w", path, err)
		}
		return nil
	}
	header := map[string]string{
		"format": fileFormat, "version": fileVersion,
		"kind":     s.Model.Kind(),
		"features": strconv.Itoa(s.Model.Features()),
		"classes":  strconv.Itoa(s.Model.Classes()),
	}
	if len(s.Labels) > 0 {
		labels, err := json.Marshal(s.Labels)
		if err != nil {
			return fmt.Errorf("save %s: labels: %w", path, err)
		}
		header["labels"] = string(labels)
	}
	if len(s.Meta) > 0 {
		meta, err := json.Marshal(s.Meta)
		if err != nil {
			return fmt.Errorf("save %s: meta: %w", path, err)
		}
		header["meta"] = string(meta)
	}

	var w tensorWriter
	switch m := s.Model.(type) {
	case *LogisticRegression:
		m.store(&w)
	case *Forest:
		m.store(&w)
	default:
		return fmt.Errorf("save %s: unknown classifier %T", path, s.Model)
	}
	if w.err != nil {
		return fmt.Errorf("save %s: %w", path, w.err)
	}
	return files.WriteSafetensors(path, w.tensors, header)
}

// What is read of a classifier at most, and of one in JSON, which takes several times its size.
const (
	maxClassifier = 4 << 30
	maxBoosted    = 1 << 30
)

// Load reads a file that Save wrote. Nothing in it is trusted: a value that
// does not fit is an error that names the field.
func Load(path string) (Saved, error) {
	most, read := int64(maxClassifier), parse
	if filepath.Ext(path) == boostedEnding {
		most, read = maxBoosted, loadBoosted
	}
	content, err := fsutil.ReadSmall(path, most)
	if err != nil {
		return Saved{}, err
	}
	s, err := read(content)
	if err != nil {
		return Saved{}, fmt.Errorf("classifier %s: %w", path, err)
	}
	return s, nil
}

func parse(content []byte) (Saved, error) {
	archive, err := files.DecodeSafetensors(content)
	if err != nil {
		return Saved{}, fmt.Errorf("not a safetensors file: %w", err)
	}
	header := archive.Metadata()
	if header["format"] != fileFormat {
		return Saved{}, fmt.Errorf("format %q, want %q: not a classifier file", header["format"], fileFormat)
	}
	if header["version"] != fileVersion {
		return Saved{}, fmt.Errorf("version %q, this program reads version %s", header["version"], fileVersion)
	}
	features, err := headerInt(header, "features", math.MaxInt32)
	if err != nil {
		return Saved{}, err
	}
	classes, err := headerInt(header, "classes", maxClasses)
	if err != nil {
		return Saved{}, err
	}

	var s Saved
	if text, ok := header["labels"]; ok {
		if err := json.Unmarshal([]byte(text), &s.Labels); err != nil {
			return Saved{}, fmt.Errorf("labels: %w", err)
		}
		if len(s.Labels) != classes {
			return Saved{}, fmt.Errorf("labels: %d of them for %d classes", len(s.Labels), classes)
		}
	}
	if text, ok := header["meta"]; ok {
		if err := json.Unmarshal([]byte(text), &s.Meta); err != nil {
			return Saved{}, fmt.Errorf("meta: %w", err)
		}
	}
	r := tensorReader{archive: archive}
	switch kind := header["kind"]; kind {
	case KindLogistic:
		s.Model, err = loadLogistic(&r, features, classes)
	case KindForest:
		s.Model, err = loadForest(&r, features, classes)
	default:
		err = fmt.Errorf("kind %q, want %s or %s", kind, KindLogistic, KindForest)
	}
	if err = errors.Join(r.err, err); err != nil {
		return Saved{}, err
	}
	return s, nil
}

func headerInt(header map[string]string, name string, limit int) (int, error) {
	n, err := strconv.Atoi(header[name])
	if err != nil || n < 1 || n > limit {
		return 0, fmt.Errorf("%s is %q, want a number from 1 to %d", name, header[name], limit)
	}
	return n, nil
}

// tensorWriter collects tensors and the errors of making them.
type tensorWriter struct {
	tensors []files.Tensor
	err     error
}

func addTensor[T int32 | int64 | float32 | float64](w *tensorWriter, name string, values []T, shape ...int64) {
	content, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		w.err = errors.Join(w.err, fmt.Errorf("tensor %s: %w", name, err))
		return
	}
	w.tensors = append(w.tensors, files.Tensor{Name: name, DType: dtypeOf[T](), Shape: shape, Data: content})
}

func dtypeOf[T int32 | int64 | float32 | float64]() files.DType {
	var zero T
	switch any(zero).(type) {
	case int32:
		return files.I32
	case int64:
		return files.I64
	case float32:
		return files.F32
	default:
		return files.F64
	}
}

// anySize in a wanted shape accepts every size.
const anySize = -1

// tensorReader hands out tensors after checking them, and keeps the first
// error, after which it returns nothing.
type tensorReader struct {
	archive files.Archive
	err     error
}

func readTensor[T int32 | int64 | float32 | float64](r *tensorReader, name string, shape ...int) []T {
	if r.err != nil {
		return nil
	}
	entry, ok := r.archive.Lookup(name)
	if !ok {
		r.err = fmt.Errorf("tensor %s is missing", name)
		return nil
	}
	if entry.DType != dtypeOf[T]() {
		r.err = fmt.Errorf("tensor %s is of type %v, want %v", name, entry.DType, dtypeOf[T]())
		return nil
	}
	fits := slices.EqualFunc(entry.Shape, shape, func(have int64, want int) bool {
		return want == anySize || have == int64(want)
	})
	if !fits {
		r.err = fmt.Errorf("tensor %s has shape %v, want %v (-1: any)", name, entry.Shape, shape)
		return nil
	}
	out := make([]T, entry.Elements())
	if _, err := binary.Decode(entry.Data, binary.LittleEndian, out); err != nil {
		r.err = fmt.Errorf("tensor %s: %w", name, err)
		return nil
	}
	return out
}

func (m *LogisticRegression) store(w *tensorWriter) {
	coefficients, intercepts := m.Coefficients()
	seen := make([]int64, len(m.seen))
	for i, c := range m.seen {
		seen[i] = int64(c)
	}
	outputs := int64(m.outputs())
	addTensor(w, "coef", slices.Concat(coefficients...), outputs, int64(m.features))
	addTensor(w, "intercept", intercepts, outputs)
	addTensor(w, "seen", seen, int64(len(seen)))
}

func loadLogistic(r *tensorReader, features, classes int) (*LogisticRegression, error) {
	m := &LogisticRegression{classes: classes, features: features}
	for i, c := range readTensor[int64](r, "seen", anySize) {
		if c < 0 || c >= int64(classes) || i > 0 && int(c) <= m.seen[i-1] {
			return nil, fmt.Errorf("tensor seen: class %d at %d, want ascending classes below %d", c, i, classes)
		}
		m.seen = append(m.seen, int(c))
	}
	if r.err == nil && len(m.seen) < 2 {
		return nil, fmt.Errorf("tensor seen: %d classes, want at least 2", len(m.seen))
	}
	coefficients := readTensor[float64](r, "coef", m.outputs(), features)
	intercepts := readTensor[float64](r, "intercept", m.outputs())
	if r.err != nil {
		return nil, nil
	}
	for k, b := range intercepts {
		m.weights = append(m.weights, coefficients[k*features:(k+1)*features]...)
		m.weights = append(m.weights, b)
	}
	for i, w := range m.weights {
		if math.IsNaN(w) || math.IsInf(w, 0) {
			return nil, fmt.Errorf("tensors coef and intercept: output %d, column %d is %v", i/(features+1), i%(features+1), w)
		}
	}
	return m, nil
}

func (f *Forest) store(w *tensorWriter) {
	n := f.Nodes()
	feature, next := make([]int32, 0, n), make([]int32, 0, n)
	threshold := make([]float32, 0, n)
	var nodes, leaves []int64
	var mixed []float32
	for _, t := range f.trees {
		for _, n := range t.nodes {
			feature = append(feature, n.feature)
			threshold = append(threshold, n.threshold)
			next = append(next, n.next)
		}
		nodes = append(nodes, int64(len(t.nodes)))
		leaves = append(leaves, int64(len(t.mixed)/f.classes))
		mixed = append(mixed, t.mixed...)
	}
	addTensor(w, "feature", feature, int64(n))
	addTensor(w, "threshold", threshold, int64(n))
	addTensor(w, "next", next, int64(n))
	addTensor(w, "nodes_per_tree", nodes, int64(len(nodes)))
	addTensor(w, "mixed_leaves_per_tree", leaves, int64(len(leaves)))
	addTensor(w, "mixed", mixed, int64(len(mixed)/f.classes), int64(f.classes))
}

func loadForest(r *tensorReader, features, classes int) (*Forest, error) {
	feature := readTensor[int32](r, "feature", anySize)
	threshold := readTensor[float32](r, "threshold", len(feature))
	next := readTensor[int32](r, "next", len(feature))
	nodes := readTensor[int64](r, "nodes_per_tree", anySize)
	leaves := readTensor[int64](r, "mixed_leaves_per_tree", len(nodes))
	mixed := readTensor[float32](r, "mixed", anySize, classes)
	if r.err != nil {
		return nil, nil
	}
	if len(nodes) == 0 {
		return nil, errors.New("tensor nodes_per_tree: no trees")
	}
	for i, share := range mixed {
		if !(share >= 0 && share <= 1) {
			return nil, fmt.Errorf("tensor mixed: leaf %d, class %d is %v, want a share from 0 to 1", i/classes, i%classes, share)
		}
	}

	f := &Forest{classes: classes, features: features}
	atNode, atLeaf := 0, 0
	for i := range nodes {
		if nodes[i] < 1 || nodes[i] > int64(len(feature)-atNode) {
			return nil, fmt.Errorf("tensor nodes_per_tree: tree %d has %d nodes, %d are left", i, nodes[i], len(feature)-atNode)
		}
		if leaves[i] < 0 || leaves[i] > int64(len(mixed)/classes-atLeaf) {
			return nil, fmt.Errorf("tensor mixed_leaves_per_tree: tree %d has %d, %d are left", i, leaves[i], len(mixed)/classes-atLeaf)
		}
		t := tree{nodes: make([]node, nodes[i])}
		for j := range t.nodes {
			k := atNode + j
			t.nodes[j] = node{feature[k], threshold[k], next[k]}
			if err := t.nodes[j].check(j, len(t.nodes), int(leaves[i]), features, classes); err != nil {
				return nil, fmt.Errorf("tree %d, node %d: %w", i, j, err)
			}
		}
		t.mixed = mixed[atLeaf*classes : (atLeaf+int(leaves[i]))*classes]
		f.trees = append(f.trees, t)
		atNode += int(nodes[i])
		atLeaf += int(leaves[i])
	}
	if atNode != len(feature) || atLeaf != len(mixed)/classes {
		return nil, fmt.Errorf("tensors feature and mixed: %d nodes and %d leaves belong to no tree",
			len(feature)-atNode, len(mixed)/classes-atLeaf)
	}
	return f, nil
}

// check makes sure that a walk from node i stays inside the tree and ends.
func (n node) check(i, nodes, leaves, features, classes int) error {
	next := int(n.next)
	switch {
	case n.feature == pureLeaf:
		if next < 0 || next >= classes {
			return fmt.Errorf("next: class %d, want 0 to %d", next, classes-1)
		}
	case n.feature == mixedLeaf:
		if next < 0 || next >= leaves {
			return fmt.Errorf("next: leaf %d of %d", next, leaves)
		}
	case n.feature < 0 || int(n.feature) >= features:
		return fmt.Errorf("feature: column %d, want 0 to %d", n.feature, features-1)
	case math.IsNaN(float64(n.threshold)) || math.IsInf(float64(n.threshold), 0):
		return fmt.Errorf("threshold: %v", n.threshold)
	case next <= i || next >= nodes-1:
		return fmt.Errorf("next: children at %d, want %d to %d", next, i+1, nodes-2)
	}
	return nil
}
