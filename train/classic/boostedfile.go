package classic

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"gopeft/model/fsutil"
	"gopeft/train/classic/xgboost"
)

// The attributes of a file of boosted trees; the last two are Python's.
const (
	attributeOurs  = "gopeft"
	attributeBest  = "best_iteration"
	attributeScore = "best_score"
)

// boostedInfo is what a file of boosted trees says beside XGBoost's model.
type boostedInfo struct {
	Version string            `json:"version"`
	Classes int               `json:"classes"`
	Seen    []int             `json:"seen"`
	Labels  []string          `json:"labels,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
}

// save writes XGBoost's JSON, with what gopeft keeps of a classifier as an attribute.
func (b *Boosted) save(path string, labels []string, meta map[string]string) error {
	ours, err := encodeJSON(boostedInfo{fileVersion, b.classes, b.seen, labels, meta})
	if err != nil {
		return err
	}
	attributes := map[string]string{attributeOurs: string(ours)}
	if b.rounds > 0 {
		attributes[attributeBest], attributes[attributeScore] = strconv.Itoa(b.rounds-1), strconv.FormatFloat(b.score, 'g', -1, 64)
	}
	text, err := b.model.withAttributes(attributes)
	if err != nil {
		return err
	}
	return fsutil.WriteFile(path, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	})
}

// loadBoosted reads what save wrote, or what Python made of it.
func loadBoosted(content []byte) (Saved, error) {
	lib, err := xgboost.Open()
	if err != nil {
		return Saved{}, err
	}
	s, b, err := parseBoosted(content, lib.Version)
	if err != nil {
		return Saved{}, err
	}
	s.Model = b
	return s, b.open(lib)
}

// parseBoosted checks all that XGBoost of that version will trust: every index, and every size.
func parseBoosted(content []byte, reader [3]int) (s Saved, b *Boosted, err error) {
	b = &Boosted{}
	if b.model, err = readObject(content); err != nil {
		return s, nil, fmt.Errorf("not XGBoost's JSON: %w", err)
	}
	var version [3]int
	if err := b.model.get("version", &version); err != nil {
		return s, nil, fmt.Errorf("not XGBoost's JSON: %w", err)
	}
	if version[0] > reader[0] || version[0] == reader[0] && version[1] > reader[1] {
		return s, nil, fmt.Errorf("it is of XGBoost %d.%d.%d, the library here is %d.%d.%d: set XGBOOST to one as new", version[0], version[1], version[2],
			reader[0], reader[1], reader[2])
	}
	err = b.model.within("learner", func(l object) error {
		if err := b.readAttributes(l, &s); err != nil {
			return fmt.Errorf("attributes: %w", err)
		}
		for _, part := range []struct {
			key  string
			read func(object) error
		}{{"learner_model_param", b.readParam}, {"objective", b.checkObjective}, {"gradient_booster", b.checkBooster}} {
			if err := l.within(part.key, part.read); err != nil {
				return err
			}
		}
		for _, key := range []string{"feature_names", "feature_types"} {
			if err := l.none(key); err != nil {
				return err
			}
		}
		return nil
	})
	return s, b, err
}

// none makes sure that a key has an empty list.
func (o object) none(key string) error {
	var list []json.RawMessage
	if err := o.get(key, &list); err != nil {
		return err
	}
	if len(list) > 0 {
		return fmt.Errorf("%s: %d of them, want none", key, len(list))
	}
	return nil
}

func (b *Boosted) readAttributes(l object, s *Saved) error {
	var all map[string]string
	if err := l.get("attributes", &all); err != nil {
		return err
	}
	text, ok := all[attributeOurs]
	if !ok {
		return fmt.Errorf("%s is missing: not a classifier file", attributeOurs)
	}
	var ours boostedInfo
	if err := json.Unmarshal([]byte(text), &ours); err != nil {
		return fmt.Errorf("%s: %w", attributeOurs, err)
	}
	switch {
	case ours.Version != fileVersion:
		return fmt.Errorf("version %q, this program reads version %s", ours.Version, fileVersion)
	case ours.Classes < 1 || ours.Classes > maxClasses:
		return fmt.Errorf("classes is %d, want a number from 1 to %d", ours.Classes, maxClasses)
	case len(ours.Labels) > 0 && len(ours.Labels) != ours.Classes:
		return fmt.Errorf("labels: %d of them for %d classes", len(ours.Labels), ours.Classes)
	case len(ours.Seen) < 2:
		return fmt.Errorf("seen: %d classes, want two or more", len(ours.Seen))
	}
	for i, c := range ours.Seen {
		if c < 0 || c >= ours.Classes || i > 0 && c <= ours.Seen[i-1] {
			return fmt.Errorf("seen: class %d at %d, want them ascending, below %d", c, i, ours.Classes)
		}
	}
	b.classes, b.seen, s.Labels, s.Meta = ours.Classes, ours.Seen, ours.Labels, ours.Meta
	best, ok := all[attributeBest]
	if !ok {
		return nil
	}
	n, err := strconv.Atoi(best)
	if err != nil || n < 0 || n >= math.MaxInt32 {
		return fmt.Errorf("%s is %q, want the number of a round", attributeBest, best)
	}
	b.rounds = n + 1
	if b.score, err = strconv.ParseFloat(all[attributeScore], 64); err != nil {
		return fmt.Errorf("%s is %q, want a number", attributeScore, all[attributeScore])
	}
	return nil
}

// classCount is what XGBoost calls the number of classes: 0 for a single output.
func (b *Boosted) classCount() int {
	if b.outputs() == 1 {
		return 0
	}
	return b.outputs()
}

func (b *Boosted) readParam(p object) (err error) {
	if b.features, err = p.number("num_feature", 1, math.MaxInt32); err != nil {
		return err
	}
	if _, err := p.number("num_class", b.classCount(), b.classCount()); err != nil {
		return err
	}
	if _, err := p.number("num_target", 1, 1); err != nil {
		return err
	}
	var text string
	if err := p.get("base_score", &text); err != nil {
		return err
	}
	var one float32 // up to XGBoost 3.0
	if json.Unmarshal([]byte(text), &one) == nil {
		return nil
	}
	var scores []float32
	if err := json.Unmarshal([]byte(text), &scores); err != nil || len(scores) != b.outputs() {
		return fmt.Errorf("base_score is %.60q, want %d numbers", text, b.outputs())
	}
	return nil
}

func (b *Boosted) checkObjective(o object) error {
	var name string
	if err := o.get("name", &name); err != nil {
		return err
	}
	if name != b.objective() {
		return fmt.Errorf("%q, want %s for %d classes", name, b.objective(), len(b.seen))
	}
	if b.outputs() == 1 {
		return nil
	}
	return o.within("softmax_multiclass_param", func(p object) error {
		_, err := p.number("num_class", b.outputs(), b.outputs())
		return err
	})
}

func (b *Boosted) checkBooster(g object) error {
	var name string
	if err := g.get("name", &name); err != nil {
		return err
	}
	if name != "gbtree" {
		return fmt.Errorf("%q, want gbtree", name)
	}
	return g.within("model", func(m object) error {
		if m["cats"] != nil { // since XGBoost 3.1
			if err := m.within("cats", func(c object) error { return c.none("enc") }); err != nil {
				return err
			}
		}
		var trees []object
		if err := m.get("trees", &trees); err != nil {
			return err
		}
		if err := b.checkRounds(m, len(trees)); err != nil {
			return err
		}
		for i, t := range trees {
			if err := b.checkTree(t); err != nil {
				return fmt.Errorf("tree %d: %w", i, err)
			}
		}
		return m.put("trees", trees)
	})
}

// checkRounds makes sure that every round has one tree for each output, in order.
func (b *Boosted) checkRounds(m object, trees int) error {
	if trees == 0 || trees%b.outputs() != 0 {
		return fmt.Errorf("%d trees for %d outputs", trees, b.outputs())
	}
	rounds := trees / b.outputs()
	if b.rounds > rounds {
		return fmt.Errorf("%s is %d of %d rounds", attributeBest, b.rounds-1, rounds)
	}
	err := m.within("gbtree_model_param", func(p object) error {
		_, err := p.number("num_trees", trees, trees)
		if err == nil {
			_, err = p.number("num_parallel_tree", 1, 1)
		}
		return err
	})
	if err != nil {
		return err
	}
	var outputs, ends []int
	if err := errors.Join(m.get("tree_info", &outputs), m.get("iteration_indptr", &ends)); err != nil {
		return err
	}
	if len(outputs) != trees || len(ends) != rounds+1 {
		return fmt.Errorf("tree_info of %d trees, iteration_indptr of %d rounds: there are %d and %d", len(outputs), len(ends)-1, trees, rounds)
	}
	for i, k := range outputs {
		if k != i%b.outputs() {
			return fmt.Errorf("tree_info: tree %d is of output %d, want %d", i, k, i%b.outputs())
		}
	}
	for i, end := range ends {
		if end != i*b.outputs() {
			return fmt.Errorf("iteration_indptr: round %d begins at tree %d, want %d", i, end, i*b.outputs())
		}
	}
	return nil
}

// checkTree makes sure that a walk from the root stays inside the tree and ends.
func (b *Boosted) checkTree(t object) error {
	nodes := 0
	err := t.within("tree_param", func(p object) (err error) {
		if nodes, err = p.number("num_nodes", 1, math.MaxInt32); err != nil {
			return err
		}
		if _, err = p.number("num_deleted", 0, nodes); err != nil {
			return err
		}
		if _, err = p.number("num_feature", b.features, b.features); err != nil {
			return err
		}
		_, err = p.number("size_leaf_vector", 0, 1)
		return err
	})
	if err != nil {
		return err
	}
	var left, right, parent, column, kind, missing []int32
	var condition, weight, gain, hessian []float32
	for _, f := range []struct {
		key string
		to  *[]int32
	}{{"left_children", &left}, {"right_children", &right}, {"parents", &parent}, {"split_indices", &column}, {"split_type", &kind}, {"default_left", &missing}} {
		if err := readList(t, f.key, f.to, nodes); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		key string
		to  *[]float32
	}{{"split_conditions", &condition}, {"base_weights", &weight}, {"loss_changes", &gain}, {"sum_hessian", &hessian}} {
		if err := readList(t, f.key, f.to, nodes); err != nil {
			return err
		}
	}
	for _, key := range []string{"categories", "categories_nodes", "categories_segments", "categories_sizes"} {
		if err := t.none(key); err != nil {
			return err
		}
	}
	seen := make([]bool, nodes)
	for todo := []int32{0}; len(todo) > 0; {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		seen[i] = true
		if kind[i] != 0 {
			return fmt.Errorf("node %d: split_type is %d, want 0", i, kind[i])
		}
		if left[i] == -1 && right[i] == -1 {
			continue
		}
		if column[i] < 0 || int(column[i]) >= b.features {
			return fmt.Errorf("node %d: split_indices: column %d, want 0 to %d", i, column[i], b.features-1)
		}
		for _, child := range []int32{left[i], right[i]} {
			if child < 0 || int(child) >= nodes || seen[child] || parent[child] != i {
				return fmt.Errorf("node %d: child %d is no node of its own", i, child)
			}
		}
		if left[i] == right[i] {
			return fmt.Errorf("node %d: both children are %d", i, left[i])
		}
		todo = append(todo, left[i], right[i])
	}
	return nil
}

func readList[T int32 | float32](o object, key string, to *[]T, want int) error {
	if err := o.get(key, to); err != nil {
		return err
	}
	if len(*to) != want {
		return fmt.Errorf("%s has %d values, want %d", key, len(*to), want)
	}
	return nil
}
