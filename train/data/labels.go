package data

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"

	"gopeft/train/data/rows"
	"gopeft/train/data/targets"
)

// labelText gives a label value in its canonical form: names without
// surrounding space, integers in decimal. "1.0" is 1, for pandas writes integers
// so in a column with missing values. Anything else is no class.
func labelText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return labelName(v)
	case json.Number, int64, float64, float32:
		n, ok := rows.Integer(v)
		if !ok {
			return "", fmt.Errorf("label %s is no class: a name or an integer is wanted", rows.Brief(v))
		}
		return strconv.FormatInt(n, 10), nil
	case bool:
		return strconv.FormatBool(v), nil
	case nil:
		return "", errors.New("no label")
	}
	return "", fmt.Errorf("label is %s: a name or an integer is wanted", rows.KindOf(v))
}

func labelName(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", errors.New("no label")
	}
	if strings.Trim(s, "+-.0123456789") != "" {
		return s, nil // a name
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return strconv.FormatInt(n, 10), nil
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		n, ok := rows.WholeFloat(f)
		if !ok {
			return "", fmt.Errorf("label %s is no class: a name or an integer is wanted", rows.Brief(s))
		}
		return strconv.FormatInt(n, 10), nil
	}
	return s, nil // "+", "--", "1-2": names after all
}

// sortLabels gives the order that makes labels class indices: integers by value,
// otherwise by name (so negative, positive → 0, 1).
func sortLabels(labels []string) []string {
	sorted := slices.Clone(labels)
	if !allIntegers(sorted) {
		slices.Sort(sorted)
		return sorted
	}
	slices.SortFunc(sorted, func(a, b string) int {
		// Canonical decimals: fewer digits is the smaller magnitude.
		an, bn := strings.HasPrefix(a, "-"), strings.HasPrefix(b, "-")
		switch {
		case an && !bn:
			return -1
		case bn && !an:
			return 1
		case an:
			a, b = b, a
		}
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	return sorted
}

func allIntegers(labels []string) bool {
	return !slices.ContainsFunc(labels, func(s string) bool {
		_, err := strconv.ParseInt(s, 10, 64)
		return err != nil
	})
}

// Kind is what rows are labelled with.
type Kind int

// The kinds.
const (
	OneLabel  Kind = iota // a class
	AnyLabels             // any number of labels, none too: a list, or columns that tell of one each
	Numbers               // numbers, as many in each row
)

// readTargets reads what a row of Numbers or AnyLabels is labelled with.
func (r *ExampleReader) readTargets(row rows.Row, ex *Example) error {
	columns := r.columns.Several
	if columns == nil {
		columns = []string{r.columns.Label}
	}
	var names []any
	for _, column := range columns {
		value, ok := row.Lookup(column)
		if !ok {
			return row.Errorf("no column %q", column)
		}
		var err error
		switch several := r.columns.Several != nil; {
		case r.opts.Kind == Numbers && several:
			var n float32
			n, err = targets.Number(value)
			ex.Values = append(ex.Values, n)
		case r.opts.Kind == Numbers:
			ex.Values, err = targets.Numbers(value)
		case several:
			var given bool
			if given, err = targets.Flag(value); given {
				names = append(names, column)
			}
		default:
			names, err = targets.Labels(value)
		}
		if err != nil {
			return row.Errorf("column %q: %w", column, err)
		}
	}
	if r.opts.Kind == Numbers {
		if r.width == 0 {
			if r.width = len(ex.Values); r.opts.Labels != nil {
				r.width = len(r.opts.Labels)
			}
		}
		if len(ex.Values) != r.width {
			return row.Errorf("%d targets, want %d", len(ex.Values), r.width)
		}
		return nil
	}
	for _, value := range names {
		name, err := labelText(value)
		if err != nil {
			return row.Errorf("%w", err)
		}
		if name = r.named(name); !slices.Contains(ex.Names, name) {
			ex.Names = append(ex.Names, name)
		}
	}
	return r.giveLabels(row, ex)
}

// giveLabels makes indices of a row's labels, if their order is known.
func (r *ExampleReader) giveLabels(row rows.Row, ex *Example) error {
	if r.labels == nil {
		return nil
	}
	for _, name := range ex.Names {
		class, err := r.labels.class(name)
		if err != nil {
			return row.Errorf("%w", err)
		}
		if !slices.Contains(ex.Given, class) {
			ex.Given = append(ex.Given, class)
		}
	}
	slices.Sort(ex.Given)
	ex.Names = nil
	return nil
}

// labelTargets names the labels of Numbers or AnyLabels, and numbers them where the reader could not.
func (s *Set) labelTargets(r *ExampleReader) error {
	switch {
	case r.opts.Labels != nil:
		s.Labels = slices.Clone(r.opts.Labels)
		return nil
	case s.Columns.Label == "":
		return nil
	case s.Columns.Several != nil:
		s.Labels = slices.Clone(s.Columns.Several)
	case s.Kind == Numbers && r.width <= 1:
		s.Labels = []string{s.Columns.Label}
	case s.Kind == Numbers:
		for i := range r.width {
			s.Labels = append(s.Labels, fmt.Sprintf("%s_%d", s.Columns.Label, i))
		}
	case r.labels != nil: // the file names its classes
		s.Labels = slices.Clone(r.labels.names)
	default:
		for _, ex := range s.Examples {
			s.Labels = append(s.Labels, ex.Names...)
		}
		slices.Sort(s.Labels)
		s.Labels = sortLabels(slices.Compact(s.Labels))
	}
	if s.Kind == Numbers {
		return nil
	}
	const most = 10000 // of a head; free text taken for labels has more
	if n := len(s.Labels); n > most {
		return fmt.Errorf("%s: column %q has %d different labels, more than %d: it is no label column", s.File, s.Columns.Label, n, most)
	}
	index := make(map[string]int, len(s.Labels))
	for i, name := range s.Labels {
		index[name] = i
	}
	for i := range s.Examples {
		ex := &s.Examples[i]
		for _, name := range ex.Names {
			ex.Given = append(ex.Given, index[name])
		}
		slices.Sort(ex.Given)
		ex.Names = nil
	}
	return nil
}

// Targets are what a model is to score for an example of Numbers or AnyLabels, of so many labels: its numbers, or 1 for each
// label given and 0 for others.
func (e Example) Targets(kind Kind, labels int) []float32 {
	if kind == Numbers {
		return e.Values
	}
	out := make([]float32, labels)
	for _, class := range e.Given {
		out[class] = 1
	}
	return out
}

// Balanced is the setting of [ClassWeights] that makes every class count the same in all.
const Balanced = "balanced"

// ClassWeights are what rows of each class count, by a setting: Balanced is rows / (classes · rows of the class), as
// scikit-learn's compute_class_weight; else it lists some labels' weights, LABEL=W,LABEL=W, and others have 1. counts are the
// rows of each class that are trained on. No setting gives none.
func ClassWeights(setting string, labels []string, counts []int) ([]float32, error) {
	if setting == "" {
		return nil, nil
	}
	weights := make([]float32, len(labels))
	if setting == Balanced {
		all := 0
		for _, n := range counts {
			all += n
		}
		for i, n := range counts {
			if n == 0 {
				return nil, fmt.Errorf("class %s has no row to be balanced by: give its weight", rows.Brief(labels[i]))
			}
			weights[i] = float32(float64(all) / float64(len(labels)*n))
		}
		return weights, nil
	}
	index, err := newLabelIndex(labels)
	if err != nil {
		return nil, err
	}
	for i := range weights {
		weights[i] = 1
	}
	given := make([]bool, len(labels))
	for entry := range classWeightEntries(setting) {
		at := strings.LastIndexByte(entry, '=')
		if at < 0 {
			return nil, fmt.Errorf("%s is no LABEL=W: give %s, or the weights of labels", rows.Brief(entry), Balanced)
		}
		name, err := labelName(entry[:at])
		if err != nil {
			return nil, fmt.Errorf("%s has no label", rows.Brief(entry))
		}
		class, err := index.class(name)
		if err != nil {
			return nil, err
		}
		w, err := strconv.ParseFloat(strings.TrimSpace(entry[at+1:]), 32)
		switch {
		case err != nil || !(w > 0) || math.IsInf(w, 0): // NaN fails too
			return nil, fmt.Errorf("the weight of %s is %s, want a number above 0", rows.Brief(name), rows.Brief(entry[at+1:]))
		case given[class]:
			return nil, fmt.Errorf("label %s stands there twice", rows.Brief(name))
		}
		given[class], weights[class] = true, float32(w)
	}
	return weights, nil
}

// classWeightEntries divides a list at its commas, but for those of labels: what has no weight belongs to what follows.
func classWeightEntries(setting string) iter.Seq[string] {
	return func(yield func(string) bool) {
		entry := ""
		for part := range strings.SplitAfterSeq(setting, ",") {
			if entry += part; strings.Contains(part, "=") {
				if !yield(strings.TrimSpace(strings.TrimSuffix(entry, ","))) {
					return
				}
				entry = ""
			}
		}
		if entry != "" {
			yield(strings.TrimSpace(entry))
		}
	}
}

// labelIndex maps canonical label texts to class indices.
type labelIndex struct {
	names []string
	index map[string]int
	named bool // no name is an integer, so an integer in the data can be an index
}

func newLabelIndex(names []string) (*labelIndex, error) {
	l := &labelIndex{names: names, index: make(map[string]int, len(names)), named: true}
	for i, name := range names {
		canonical, err := labelName(name)
		if err != nil {
			return nil, fmt.Errorf("label names: entry %d: %w", i, err)
		}
		if _, ok := l.index[canonical]; ok {
			return nil, fmt.Errorf("label names: %q twice", name)
		}
		l.index[canonical] = i
		if allIntegers([]string{canonical}) {
			l.named = false
		}
	}
	return l, nil
}

func (l *labelIndex) class(label string) (int, error) {
	if i, ok := l.index[label]; ok {
		return i, nil
	}
	if l.named {
		if i, err := strconv.Atoi(label); err == nil && i >= 0 && i < len(l.names) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("label %s is not one of those trained on: %s", rows.Brief(label), rows.BriefList(l.names))
}
