package metrics

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// Confusion counts how often a label was predicted as what. The zero value has
// no classes; NewConfusion makes a usable one. It takes memory for the pairs that
// occur, not for all there could be.
type Confusion struct {
	counts              map[[2]int]int // label, prediction
	labelled, predicted []int          // by class
	total               int
}

// LargestTable is the number of classes up to which the whole matrix is written
// out.
const LargestTable = 1000

// NewConfusion returns an empty matrix.
func NewConfusion(classes int) *Confusion {
	return &Confusion{counts: map[[2]int]int{}, labelled: make([]int, classes), predicted: make([]int, classes)}
}

// Count returns the matrix of a whole set.
func Count(labels, predicted []int, classes int) (*Confusion, error) {
	if len(labels) != len(predicted) {
		return nil, fmt.Errorf("metrics: %d labels, %d predictions", len(labels), len(predicted))
	}
	c := NewConfusion(classes)
	for i, l := range labels {
		if err := c.Add(l, predicted[i]); err != nil {
			return nil, fmt.Errorf("metrics: row %d: %w", i, err)
		}
	}
	return c, nil
}

// Add counts one sample.
func (c *Confusion) Add(label, predicted int) error {
	if label < 0 || label >= c.Classes() || predicted < 0 || predicted >= c.Classes() {
		return fmt.Errorf("label %d, prediction %d: want 0 to %d", label, predicted, c.Classes()-1)
	}
	c.counts[[2]int{label, predicted}]++
	c.labelled[label]++
	c.predicted[predicted]++
	c.total++
	return nil
}

// Classes returns the number of classes.
func (c *Confusion) Classes() int { return len(c.labelled) }

// Total returns the number of samples counted.
func (c *Confusion) Total() int { return c.total }

// At returns how many samples of a label were predicted as predicted.
func (c *Confusion) At(label, predicted int) int { return c.counts[[2]int{label, predicted}] }

// Accuracy is the share of right predictions, 0 without samples.
func (c *Confusion) Accuracy() float64 {
	right := 0
	for k := range c.Classes() {
		right += c.At(k, k)
	}
	return ratio(right, c.total)
}

// ClassScores are the scores of one class against all others.
type ClassScores struct {
	Precision float64 `json:"precision"` // right among those predicted so
	Recall    float64 `json:"recall"`    // right among those labelled so
	F1        float64 `json:"f1"`        // harmonic mean of both
	Support   int     `json:"support"`   // samples with this label
}

// Class returns the scores of class k; a ratio with an empty denominator is 0.
func (c *Confusion) Class(k int) ClassScores {
	labelled, predicted := c.labelled[k], c.predicted[k]
	right := c.At(k, k)
	return ClassScores{
		Precision: ratio(right, predicted),
		Recall:    ratio(right, labelled),
		F1:        ratio(2*right, labelled+predicted),
		Support:   labelled,
	}
}

// MacroF1 is the mean F1 of the classes that occur among labels or
// predictions, each counting the same.
func (c *Confusion) MacroF1() float64 {
	sum, classes := 0.0, 0
	for k := range c.Classes() {
		if c.labelled[k]+c.predicted[k] > 0 {
			sum += c.Class(k).F1
			classes++
		}
	}
	if classes == 0 {
		return 0
	}
	return sum / float64(classes)
}

// MicroF1 is the F1 over all samples' decisions. With one label per sample it
// equals the accuracy.
func (c *Confusion) MicroF1() float64 { return c.Accuracy() }

// WeightedF1 is the mean F1 of the classes by their number of samples.
func (c *Confusion) WeightedF1() float64 {
	sum := 0.0
	for k := range c.Classes() {
		s := c.Class(k)
		sum += s.F1 * float64(s.Support)
	}
	if c.total == 0 {
		return 0
	}
	return sum / float64(c.total)
}

// Scores is everything at once, ready for JSON.
type Scores struct {
	Samples    int                    `json:"samples"`
	Accuracy   float64                `json:"accuracy"`
	MacroF1    float64                `json:"macro_f1"`
	MicroF1    float64                `json:"micro_f1"`
	WeightedF1 float64                `json:"weighted_f1"`
	Classes    map[string]ClassScores `json:"classes"`
	Confusion  [][]int                `json:"confusion,omitempty"` // rows are labels; left out above LargestTable classes
}

// Scores computes all scores. Classes beyond the names are called by number.
func (c *Confusion) Scores(names []string) Scores {
	s := Scores{
		Samples: c.total, Accuracy: c.Accuracy(),
		MacroF1: c.MacroF1(), MicroF1: c.MicroF1(), WeightedF1: c.WeightedF1(),
		Classes: map[string]ClassScores{},
	}
	for k := range c.Classes() {
		s.Classes[className(names, k)] = c.Class(k)
	}
	s.Confusion = c.Table()
	return s
}

// Table is the whole matrix, a row per label; nil above LargestTable classes.
func (c *Confusion) Table() [][]int {
	if c.Classes() > LargestTable {
		return nil
	}
	table := make([][]int, c.Classes())
	for k := range table {
		table[k] = make([]int, c.Classes())
	}
	for at, n := range c.counts {
		table[at[0]][at[1]] = n
	}
	return table
}

// WriteText prints the matrix with one row per label, followed by the label's
// scores; above LargestTable classes the scores alone.
func (c *Confusion) WriteText(w io.Writer, names []string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	table := c.Table()
	fmt.Fprint(t, "label \\ predicted\t")
	for k := range table {
		fmt.Fprint(t, className(names, k), "\t")
	}
	fmt.Fprint(t, "precision\trecall\tF1\t\n")
	for k := range c.Classes() {
		fmt.Fprint(t, className(names, k), "\t")
		if table != nil {
			for _, n := range table[k] {
				fmt.Fprint(t, n, "\t")
			}
		}
		s := c.Class(k)
		fmt.Fprintf(t, "%.3f\t%.3f\t%.3f\t\n", s.Precision, s.Recall, s.F1)
	}
	return t.Flush()
}

func className(names []string, k int) string {
	if k < len(names) {
		return names[k]
	}
	return strconv.Itoa(k)
}

func ratio(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}
