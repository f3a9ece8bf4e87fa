package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopeft/model/fsutil"
)

// Result is one method's line in a comparison. Figures not measured are NaN,
// parameter counts that make no sense for the method (a forest's) are 0.
type Result struct {
	Method                    string
	TrainAcc, ValAcc, TestAcc float64 // shares from 0 to 1
	Trainable, Total          int64   // parameters
	Seconds                   float64 // of training
	SamplesPerS               float64 // trained samples per second
	PeakRSSMB                 float64
	Loss                      *Splits // of a language model, which has no accuracy; nil for a classifier
	Spread                    *Splits // standard deviations of the accuracies over several draws; nil: there is one
}

// MarshalJSON implements json.Marshaler: the columns of compare.csv under their names, those of both kinds of model,
// null where not measured.
func (r Result) MarshalJSON() ([]byte, error) {
	loss := MissingSplits()
	if r.Loss != nil {
		loss = *r.Loss
	}
	var valSpread, testSpread *Number
	if r.Spread != nil {
		valSpread, testSpread = &r.Spread.Val, &r.Spread.Test
	}
	return json.Marshal(struct {
		Method      string  `json:"method"`
		TrainAcc    Number  `json:"train_acc"`
		ValAcc      Number  `json:"val_acc"`
		TestAcc     Number  `json:"test_acc"`
		Trainable   int64   `json:"trainable"`
		Total       int64   `json:"total"`
		Seconds     Number  `json:"seconds"`
		SamplesPerS Number  `json:"samples_per_s"`
		PeakRSSMB   Number  `json:"peak_rss_mb"`
		TrainLoss   Number  `json:"train_loss"`
		ValLoss     Number  `json:"val_loss"`
		TestLoss    Number  `json:"test_loss"`
		ValSpread   *Number `json:"val_acc_spread,omitempty"`
		TestSpread  *Number `json:"test_acc_spread,omitempty"`
	}{r.Method, Number(r.TrainAcc), Number(r.ValAcc), Number(r.TestAcc), r.Trainable, r.Total, Number(r.Seconds), Number(r.SamplesPerS), Number(r.PeakRSSMB),
		loss.Train, loss.Val, loss.Test, valSpread, testSpread})
}

// resultColumn is a column of the comparison, in its form for programs and the
// one for people.
type resultColumn struct {
	name, title   string
	exact, pretty func(Result) string
}

// columnsOf are the columns of a comparison: the accuracies of classifiers, or the losses of language models.
func columnsOf(results []Result) []resultColumn {
	scores := []resultColumn{
		fractionColumn("train_acc", "train acc", func(r Result) float64 { return r.TrainAcc }),
		spreadColumn("val_acc", "val acc", func(r Result) float64 { return r.ValAcc }, Result.valSpread),
		spreadColumn("test_acc", "test acc", func(r Result) float64 { return r.TestAcc }, Result.testSpread),
	}
	if haveLosses(results) {
		scores = []resultColumn{
			fractionColumn("train_loss", "train loss", func(r Result) float64 { return r.losses().train }),
			fractionColumn("val_loss", "val loss", func(r Result) float64 { return r.losses().val }),
			fractionColumn("test_loss", "test loss", func(r Result) float64 { return r.losses().test }),
		}
	}
	return slices.Concat(
		[]resultColumn{{"method", "method", func(r Result) string { return r.Method }, func(r Result) string { return r.Method }}},
		scores,
		[]resultColumn{
			countColumn("trainable", "trainable", func(r Result) int64 { return r.Trainable }),
			countColumn("total", "total", func(r Result) int64 { return r.Total }),
			amountColumn("seconds", "seconds", func(r Result) float64 { return r.Seconds }),
			amountColumn("samples_per_s", "samples/s", func(r Result) float64 { return r.SamplesPerS }),
			amountColumn("peak_rss_mb", "peak RSS MB", func(r Result) float64 { return r.PeakRSSMB }),
		})
}

func haveLosses(results []Result) bool {
	return slices.ContainsFunc(results, func(r Result) bool { return r.Loss != nil })
}

// losses are NaN where not measured.
func (r Result) losses() struct{ train, val, test float64 } {
	l := MissingSplits()
	if r.Loss != nil {
		l = *r.Loss
	}
	return struct{ train, val, test float64 }{float64(l.Train), float64(l.Val), float64(l.Test)}
}

func fractionColumn(name, title string, get func(Result) float64) resultColumn {
	return resultColumn{name, title,
		func(r Result) string { return exact(get(r)) },
		func(r Result) string { return pretty(get(r), 4) }}
}

// valSpread and testSpread are NaN where there is none.
func (r Result) valSpread() float64  { return float64(r.spread().Val) }
func (r Result) testSpread() float64 { return float64(r.spread().Test) }

func (r Result) spread() Splits {
	if r.Spread == nil {
		return MissingSplits()
	}
	return *r.Spread
}

// spreadColumn is fractionColumn of what may be a mean, which people see with its spread.
func spreadColumn(name, title string, get, spread func(Result) float64) resultColumn {
	c := fractionColumn(name, title, get)
	plain := c.pretty
	c.pretty = func(r Result) string {
		if math.IsNaN(spread(r)) {
			return plain(r)
		}
		return plain(r) + " ± " + pretty(spread(r), 4)
	}
	return c
}

func countColumn(name, title string, get func(Result) int64) resultColumn {
	return resultColumn{name, title,
		func(r Result) string { return strconv.FormatInt(get(r), 10) },
		func(r Result) string { return thousands(get(r)) }}
}

func amountColumn(name, title string, get func(Result) float64) resultColumn {
	return resultColumn{name, title,
		func(r Result) string { return exact(get(r)) },
		func(r Result) string {
			v := get(r)
			switch {
			case math.Abs(v) >= 100:
				return pretty(v, 0)
			case math.Abs(v) >= 10:
				return pretty(v, 1)
			default:
				return pretty(v, 2)
			}
		}}
}

// exact keeps six digits behind the point, more than a run can measure.
func exact(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return strconv.FormatFloat(math.Round(v*1e6)/1e6, 'f', -1, 64)
}

func pretty(v float64, digits int) string {
	if math.IsNaN(v) {
		return "–"
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// thousands groups digits: 66,955,010.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, text = "-", text[1:]
	}
	var b strings.Builder
	for i, d := range text {
		if i > 0 && (len(text)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return sign + b.String()
}

// WriteCompareCSV writes compare.csv: method, train_acc, val_acc, test_acc,
// trainable, total, seconds, samples_per_s, peak_rss_mb. Language models have
// train_loss, val_loss, test_loss in place of the accuracies. Where accuracies are means over draws of examples, val_acc_spread
// and test_acc_spread follow: their standard deviations.
func WriteCompareCSV(path string, results []Result) error {
	return fsutil.WriteFile(path, func(out io.Writer) error {
		w := csv.NewWriter(out)
		columns := columnsOf(results)
		if slices.ContainsFunc(results, func(r Result) bool { return r.Spread != nil }) {
			columns = append(columns, fractionColumn("val_acc_spread", "", Result.valSpread), fractionColumn("test_acc_spread", "", Result.testSpread))
		}
		header := make([]string, len(columns))
		for i, c := range columns {
			header[i] = c.name
		}
		if err := w.Write(header); err != nil {
			return err
		}
		for _, r := range results {
			line := make([]string, len(columns))
			for i, c := range columns {
				line[i] = c.exact(r)
			}
			if err := w.Write(line); err != nil {
				return err
			}
		}
		w.Flush()
		return w.Error()
	})
}

// WriteCompareMarkdown writes compare.md, the same table for a page, and below it
// that of the conventional approaches, where there are several. intro, if not
// empty, goes above.
func WriteCompareMarkdown(path, intro string, results []Result) error {
	return fsutil.WriteFile(path, func(out io.Writer) error {
		var b bytes.Buffer
		if intro != "" {
			fmt.Fprintf(&b, "%s\n\n", strings.TrimSpace(intro))
		}
		writeMarkdown(&b, cells(results))
		if lines := conventionalTable(results); lines != nil {
			b.WriteByte('\n')
			writeMarkdown(&b, lines)
		}
		_, err := b.WriteTo(out)
		return err
	})
}

func writeMarkdown(b *bytes.Buffer, lines [][]string) {
	escape := strings.NewReplacer("|", `\|`, "\n", " ")
	for _, line := range lines {
		for j := range line {
			line[j] = escape.Replace(line[j])
		}
	}
	widths := columnWidths(lines)
	for i, line := range lines {
		for j, cell := range line {
			b.WriteString("| ")
			pad(b, cell, widths[j], j == 0)
			b.WriteByte(' ')
		}
		b.WriteString("|\n")
		if i > 0 {
			continue
		}
		for j, w := range widths {
			if j == 0 {
				fmt.Fprintf(b, "|%s", strings.Repeat("-", w+2))
			} else {
				fmt.Fprintf(b, "|%s:", strings.Repeat("-", w+1))
			}
		}
		b.WriteString("|\n")
	}
}

// WriteTable prints the comparison aligned for a terminal.
func WriteTable(w io.Writer, results []Result) error {
	var b bytes.Buffer
	cells := cells(results)
	widths := columnWidths(cells)
	for _, line := range cells {
		for j, cell := range line {
			if j > 0 {
				b.WriteString("  ")
			}
			pad(&b, cell, widths[j], j == 0)
		}
		b.WriteByte('\n')
	}
	_, err := b.WriteTo(w)
	return err
}

// cells are the titles and the lines for people.
func cells(results []Result) [][]string {
	out := make([][]string, 1+len(results))
	for _, c := range columnsOf(results) {
		out[0] = append(out[0], c.title)
		for i, r := range results {
			out[1+i] = append(out[1+i], c.pretty(r))
		}
	}
	return out
}

func columnWidths(cells [][]string) []int {
	widths := make([]int, len(cells[0]))
	for _, line := range cells {
		for j, cell := range line {
			widths[j] = max(widths[j], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// pad writes a cell, to the left or right of its column.
func pad(b *bytes.Buffer, cell string, width int, left bool) {
	space := strings.Repeat(" ", max(0, width-utf8.RuneCountInString(cell)))
	if left {
		b.WriteString(cell + space)
	} else {
		b.WriteString(space + cell)
	}
}
