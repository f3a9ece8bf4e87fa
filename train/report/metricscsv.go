package report

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"gopeft/model/fsutil"
)

// FromStart, given to OpenMetrics or OpenEvents as the step, says that the run is
// not resumed.
const FromStart = -1

// Row is one line of metrics.csv. Values not measured are NaN.
type Row struct {
	Step           int     // optimizer steps done
	Epoch          float64 // passes over the data done
	LR             float64
	TrainLoss      float64 // mean over the steps since the last logged row
	TrainAcc       float64
	ValLoss        float64
	ValAcc         float64
	SamplesPerS    float64
	EpochTrainLoss float64 // mean over the epoch that ends here
	EpochTrainAcc  float64
	Extra          map[string]float64 // further columns, by name
}

// NewRow returns a row in which nothing but step and epoch is set.
func NewRow(step int, epoch float64) Row {
	nan := math.NaN()
	return Row{Step: step, Epoch: epoch, LR: nan, TrainLoss: nan, TrainAcc: nan, ValLoss: nan, ValAcc: nan, SamplesPerS: nan,
		EpochTrainLoss: nan, EpochTrainAcc: nan}
}

// column ties a CSV column to its field.
type column struct {
	name  string
	field func(*Row) *float64
}

// columns are the fixed ones after step.
var columns = []column{
	{"epoch", func(r *Row) *float64 { return &r.Epoch }},
	{"lr", func(r *Row) *float64 { return &r.LR }},
	{"train_loss", func(r *Row) *float64 { return &r.TrainLoss }},
	{"train_acc", func(r *Row) *float64 { return &r.TrainAcc }},
	{"val_loss", func(r *Row) *float64 { return &r.ValLoss }},
	{"val_acc", func(r *Row) *float64 { return &r.ValAcc }},
	{"samples_per_s", func(r *Row) *float64 { return &r.SamplesPerS }},
	{"epoch_train_loss", func(r *Row) *float64 { return &r.EpochTrainLoss }},
	{"epoch_train_acc", func(r *Row) *float64 { return &r.EpochTrainAcc }},
}

// oldColumns is how many of the columns the files of earlier releases have.
const oldColumns = 7

// Metrics appends rows to metrics.csv.
type Metrics struct {
	file  *os.File
	path  string
	extra []string
}

// OpenMetrics opens the file at path for appending. With FromStart it replaces
// what is there by a header. With a step it keeps the rows up to and including
// that step and drops the rest, a line cut short by a crash too, so that a
// resumed run continues where its checkpoint left off; a missing file is
// begun, and one of an earlier release is rewritten with today's columns.
// extra names the columns beyond the fixed ones; a resumed file must have the
// same.
func OpenMetrics(path string, resumeAtStep int, extra ...string) (*Metrics, error) {
	var kept []Row
	if resumeAtStep != FromStart {
		rows, have, err := readMetrics(path, true)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case !slices.Equal(have, extra):
			return nil, fmt.Errorf("%s: has extra columns %q, this run writes %q", path, have, extra)
		}
		for _, r := range rows {
			if r.Step <= resumeAtStep {
				kept = append(kept, r)
			}
		}
	}
	err := fsutil.WriteFile(path, func(w io.Writer) error {
		header := "step"
		for _, c := range columns {
			header += "," + c.name
		}
		for _, name := range extra {
			if name == "" || strings.ContainsAny(name, ",\"\r\n") {
				return fmt.Errorf("column name %q", name)
			}
			header += "," + name
		}
		if _, err := io.WriteString(w, header+"\n"); err != nil {
			return err
		}
		for _, r := range kept {
			if _, err := w.Write(formatRow(r, extra)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	return &Metrics{file, path, extra}, nil
}

// Write appends a row; it is in the file when Write returns.
func (m *Metrics) Write(r Row) error {
	for name := range r.Extra {
		if !slices.Contains(m.extra, name) {
			return fmt.Errorf("%s: no column %q", m.path, name)
		}
	}
	_, err := m.file.Write(formatRow(r, m.extra))
	return err
}

// Close closes the file, after syncing it to the disk.
func (m *Metrics) Close() error {
	return errors.Join(m.file.Sync(), m.file.Close())
}

func formatRow(r Row, extra []string) []byte {
	line := strconv.AppendInt(nil, int64(r.Step), 10)
	for _, c := range columns {
		line = appendValue(append(line, ','), *c.field(&r))
	}
	for _, name := range extra {
		v, ok := r.Extra[name]
		if !ok {
			v = math.NaN()
		}
		line = appendValue(append(line, ','), v)
	}
	return append(line, '\n')
}

// appendValue writes a number to the precision of float32, NaN as nothing.
func appendValue(line []byte, v float64) []byte {
	if math.IsNaN(v) {
		return line
	}
	return strconv.AppendFloat(line, v, 'g', -1, 32)
}

// ReadMetrics returns the rows of metrics.csv and the names of its extra
// columns. Files of earlier releases had no columns for an epoch's mean: it
// stood in train_loss and train_acc of the row with the validation loss, and
// is read from there.
func ReadMetrics(path string) (rows []Row, extra []string, err error) {
	return readMetrics(path, false)
}

// maxMetrics bounds what is read of a metrics.csv: ten million rows.
const maxMetrics = 1 << 30

// readMetrics is ReadMetrics; with torn it leaves out a last line that a crash
// cut short.
func readMetrics(path string, torn bool) (rows []Row, extra []string, err error) {
	content, err := fsutil.ReadSmall(path, maxMetrics)
	if err != nil {
		return nil, nil, err
	}
	if torn {
		content = content[:bytes.LastIndexByte(content, '\n')+1]
		if len(content) == 0 { // not even a header: as if there were no file
			return nil, nil, &fs.PathError{Op: "read", Path: path, Err: fs.ErrNotExist}
		}
	}
	r := csv.NewReader(bytes.NewReader(content))
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: header: %w", path, err)
	}
	fixed, extra, err := checkHeader(header)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	for {
		record, err := r.Read()
		if err == io.EOF {
			return rows, extra, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		row, err := parseRow(record, fixed, extra)
		if err != nil {
			line, _ := r.FieldPos(0)
			return nil, nil, fmt.Errorf("%s: line %d: %w", path, line, err)
		}
		rows = append(rows, row)
	}
}

// checkHeader returns the fixed columns that a file has, without the step's, and
// the names of the others.
func checkHeader(header []string) (fixed []column, extra []string, err error) {
	if len(header) < 1+oldColumns || header[0] != "step" {
		return nil, nil, fmt.Errorf("header %q: not a metrics file", strings.Join(header, ","))
	}
	fixed = columns
	if len(header) < 1+len(columns) || header[1+oldColumns] != columns[oldColumns].name {
		fixed = columns[:oldColumns]
	}
	for i, c := range fixed {
		if header[1+i] != c.name {
			return nil, nil, fmt.Errorf("column %d is %q, want %q", 2+i, header[1+i], c.name)
		}
	}
	return fixed, slices.Clone(header[1+len(fixed):]), nil
}

func parseRow(record []string, fixed []column, extra []string) (Row, error) {
	step, err := strconv.Atoi(record[0])
	if err != nil || step < 0 {
		return Row{}, fmt.Errorf("column step: %q is no step", record[0])
	}
	row := NewRow(step, math.NaN())
	for i, c := range fixed {
		if *c.field(&row), err = parseValue(record[1+i]); err != nil {
			return Row{}, fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	if len(fixed) == oldColumns && !math.IsNaN(row.ValLoss) {
		row.EpochTrainLoss, row.EpochTrainAcc = row.TrainLoss, row.TrainAcc
		row.TrainLoss, row.TrainAcc = math.NaN(), math.NaN()
	}
	for i, name := range extra {
		v, err := parseValue(record[1+len(fixed)+i])
		if err != nil {
			return Row{}, fmt.Errorf("column %s: %w", name, err)
		}
		if !math.IsNaN(v) {
			if row.Extra == nil {
				row.Extra = map[string]float64{}
			}
			row.Extra[name] = v
		}
	}
	return row, nil
}

func parseValue(text string) (float64, error) {
	if text == "" {
		return math.NaN(), nil
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", text)
	}
	return v, nil
}
