package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gopeft/train/data/rows"
	"gopeft/train/data/spool"
)

// Unlabelled is the Label of an example whose class is not known.
const Unlabelled = -1

// Example is one text to classify.
type Example struct {
	Text   string
	IDs    []int64   // token ids in place of Text, from column input_ids
	Label  int       // index into the label names, or Unlabelled
	Name   string    // the label as the file has it, canonical; "" if unlabelled
	Given  []int     // of AnyLabels: indices into the label names, ascending
	Names  []string  // of AnyLabels: the labels as the file has them, until all of it has put them in order
	Values []float32 // of Numbers: one for each label name
	ID     string    // the row's own identifier, if it has one
	File   string
	Line   int // from 1; 0 where the format has no lines
	Row    int // data row, from 1

	Extra []string // the columns asked for by LoadOptions.Extra, "" where absent
}

func (e Example) empty() bool { return e.IDs == nil && strings.TrimSpace(e.Text) == "" }

// LoadOptions says how a file becomes examples.
type LoadOptions struct {
	Read        rows.Options
	TextColumn  string   // default: guessed from usual names
	LabelColumn string   // default: guessed from usual names
	LikelyText  string   // without TextColumn: the text column, if the file has one of this name
	LikelyLabel string   // without LabelColumn: the label column, if the file has one of this name
	Labels      []string // class names by index, from a checkpoint; default: those of the data
	Kind        Kind     // what rows are labelled with
	NoLabels    bool     // leave labels alone: Example.Label is Unlabelled
	SkipBadRows bool     // count bad rows instead of failing on the first
	Extra       []string // further columns wanted as text
	Limit       int      // the first N examples only; 0: all

	// For Load alone: a seeded random sample of N examples, in file order,
	// taken after Limit; Balanced takes the same number of every class.
	Sample   int
	Balanced bool
	Seed     uint64
	Spool    *spool.File // the set's examples are kept there in place of memory, without ID and Extra
}

// Stats counts what a reader has read so far.
type Stats struct {
	Rows         int // examples given
	Skipped      int // bad rows
	FirstSkipped error
	LeftOut      int // rows that the format gives no label to
	EmptyTexts   int // texts of white space alone: kept
	DuplicateIDs int // rows whose identifier an earlier row had: kept
}

// notes says for people what deserves a mention.
func (s Stats) notes() []string {
	var notes []string
	say := func(n int, format string, args ...any) {
		if n > 0 {
			notes = append(notes, fmt.Sprintf("%d ", n)+fmt.Sprintf(format, args...))
		}
	}
	say(s.Skipped, "bad rows skipped (the first: %v)", s.FirstSkipped)
	say(s.LeftOut, "rows without a clear label left out")
	say(s.EmptyTexts, "empty texts")
	say(s.DuplicateIDs, "rows with an id that an earlier row has")
	return notes
}

// ExampleReader streams examples in constant memory.
type ExampleReader struct {
	in      rows.Reader
	file    string
	opts    LoadOptions
	columns Columns
	found   bool // columns are chosen
	labels  *labelIndex
	names   []string // the class names that the file itself has for the integers of its label column
	width   int      // of Numbers: how many the first row has
	stats   Stats
	seen    map[string]struct{}
}

// OpenExamples opens a file for streaming. The first row decides which columns are used; a file without rows is no
// error. Without opts.Labels an example's Name is set and its Label is Unlabelled: only all of the file's labels give
// their order. Sample and Balanced are for Load, and ignored here.
func OpenExamples(path string, opts LoadOptions) (*ExampleReader, error) {
	in, err := rows.Open(path, opts.Read)
	if err != nil {
		return nil, err
	}
	return NewExampleReader(in, path, opts)
}

// NewExampleReader streams examples from in, which it owns; file stands in errors.
func NewExampleReader(in rows.Reader, file string, opts LoadOptions) (*ExampleReader, error) {
	r := &ExampleReader{in: in, file: file, opts: opts}
	if opts.Labels != nil && opts.Kind != Numbers {
		var err error
		if r.labels, err = newLabelIndex(opts.Labels); err != nil {
			in.Close()
			return nil, err
		}
	}
	return r, nil
}

// Columns says which columns are used; known once a row has been read.
func (r *ExampleReader) Columns() Columns { return r.columns }

// Stats counts what has been read so far. DuplicateIDs is counted by Load alone.
func (r *ExampleReader) Stats() Stats {
	s := r.stats
	if l, ok := r.in.(interface{ LeftOut() int }); ok {
		s.LeftOut = l.LeftOut()
	}
	return s
}

// Close releases the file.
func (r *ExampleReader) Close() error { return r.in.Close() }

// Next returns the next example, io.EOF after the last. A *rows.Error leaves the
// reader usable.
func (r *ExampleReader) Next() (Example, error) {
	if r.opts.Limit > 0 && r.stats.Rows >= r.opts.Limit {
		return Example{}, io.EOF
	}
	for {
		ex, err := r.next()
		if err == nil {
			r.count(ex)
			return ex, nil
		}
		if r.opts.SkipBadRows && rows.IsBad(err) {
			r.skipped(err)
			continue
		}
		return Example{}, err
	}
}

// Skip counts the row last read as a bad one, since it turned out to be of no use; false if bad rows are not to be
// skipped.
func (r *ExampleReader) Skip(err *rows.Error) bool {
	if !r.opts.SkipBadRows {
		return false
	}
	r.stats.Rows--
	r.skipped(err)
	return true
}

func (r *ExampleReader) skipped(err error) {
	if r.stats.Skipped == 0 {
		r.stats.FirstSkipped = err
	}
	r.stats.Skipped++
}

func (r *ExampleReader) count(ex Example) {
	r.stats.Rows++
	if ex.empty() {
		r.stats.EmptyTexts++
	}
	if r.seen != nil && ex.ID != "" {
		if _, ok := r.seen[ex.ID]; ok {
			r.stats.DuplicateIDs++
		}
		r.seen[ex.ID] = struct{}{}
	}
}

func (r *ExampleReader) next() (Example, error) {
	row, err := r.in.Next()
	if err != nil {
		return Example{}, err
	}
	if !r.found {
		if err := r.chooseColumns(row); err != nil {
			return Example{}, err
		}
	}
	ex := Example{Label: Unlabelled, File: row.File, Line: row.Line, Row: row.Number}
	if r.columns.IDs != "" {
		ex.IDs, err = row.IDs(r.columns.IDs, 0)
	} else {
		ex.Text, err = row.Text(r.columns.Text)
	}
	if err != nil {
		return Example{}, err
	}
	if r.columns.ID != "" {
		ex.ID, _ = row.Text(r.columns.ID) // an identifier may be missing
	}
	for _, name := range r.opts.Extra {
		text, _ := row.Text(name)
		ex.Extra = append(ex.Extra, text)
	}
	if r.columns.Label == "" {
		return ex, nil
	}
	if r.opts.Kind != OneLabel {
		return ex, r.readTargets(row, &ex)
	}
	value, ok := row.Lookup(r.columns.Label)
	if !ok {
		return Example{}, row.Errorf("no column %q", r.columns.Label)
	}
	if ex.Name, err = labelText(value); err != nil {
		return Example{}, row.Errorf("%w", err)
	}
	ex.Name = r.named(ex.Name)
	if r.labels != nil {
		if ex.Label, err = r.labels.class(ex.Name); err != nil {
			return Example{}, row.Errorf("%w", err)
		}
		ex.Name = r.labels.names[ex.Label]
	}
	return ex, nil
}

// named is a label by the name that the file itself has for it, if it is the number of one.
func (r *ExampleReader) named(label string) string {
	if n, err := strconv.Atoi(label); err == nil && n >= 0 && n < len(r.names) {
		return r.names[n]
	}
	return label
}

// chooseColumns chooses the columns by the first row.
func (r *ExampleReader) chooseColumns(row rows.Row) error {
	var err error
	text, label := r.opts.TextColumn, r.opts.LabelColumn
	if text == "" && slices.Contains(row.Columns(), r.opts.LikelyText) {
		text = r.opts.LikelyText
	}
	if label == "" && slices.Contains(row.Columns(), r.opts.LikelyLabel) {
		label = r.opts.LikelyLabel
	} else if likely := r.opts.LikelyLabel; label == "" && r.opts.Kind != OneLabel && strings.Contains(likely, ",") {
		if _, _, _, err := targetColumns(r.file, row.Columns(), likely, r.opts.Kind); err == nil {
			label = likely
		}
	}
	names, several, guessed := row.Columns(), []string(nil), false
	if r.opts.Kind != OneLabel && !r.opts.NoLabels {
		if label, several, guessed, err = targetColumns(r.file, names, label, r.opts.Kind); err != nil {
			return err
		}
		if known := slices.Clone(r.opts.Labels); len(several) > 0 {
			if slices.Equal(slices.Sorted(slices.Values(known)), slices.Sorted(slices.Values(several))) {
				several, label = known, known[0] // in the order of the head
			}
			names = without(names, several[1:]...)
		}
	}
	r.columns, err = findColumns(r.file, names, text, label, !r.opts.NoLabels)
	if err != nil {
		return err
	}
	r.columns.Several, r.columns.LabelGuessed = several, r.columns.LabelGuessed || guessed
	r.found = true
	named, ok := r.in.(interface{ ClassNames(string) []string })
	if r.columns.Label == "" || !ok {
		return nil
	}
	if r.names = named.ClassNames(r.columns.Label); len(r.names) > 0 && r.labels == nil {
		r.labels, err = newLabelIndex(r.names)
	}
	return err
}

// Set is a file's examples.
type Set struct {
	File     string
	Examples []Example // nil where they are on disk
	Kind     Kind      // what they are labelled with
	Labels   []string  // class names by index, of Numbers those of the numbers; nil if unlabelled
	Columns  Columns
	Stats    Stats

	disk    *places  // nil: in memory
	sources []uint16 // of each example, the file it is from; nil: one file
	notes   []string // of those files
}

// Notes says what a person should know: guessed columns, skipped rows and so on.
func (s *Set) Notes() []string {
	if s.notes != nil {
		return s.notes
	}
	notes := s.Stats.notes()
	if c := s.Columns.String(); c != "" {
		notes = append([]string{c}, notes...)
	}
	for i, note := range notes {
		notes[i] = s.File + ": " + note
	}
	return notes
}

// Counts gives the number of examples of each class.
func (s *Set) Counts() []int {
	counts := make([]int, len(s.Labels))
	for i := range s.Len() {
		if class := s.Class(i); class >= 0 && class < len(counts) {
			counts[class]++
		}
	}
	return counts
}

// CheckTrainable reports what makes training a classifier on s pointless.
func (s *Set) CheckTrainable() error {
	if s.Len() == 0 {
		return fmt.Errorf("%s: no examples to train on", s.File)
	}
	empty := 0
	for empty < s.Len() && s.empty(empty) {
		empty++
	}
	if empty == s.Len() {
		return fmt.Errorf("%s: every text is empty (is --text-column the right one?)", s.File)
	}
	switch {
	case s.Kind == AnyLabels && !slices.ContainsFunc(s.Examples, func(ex Example) bool { return len(ex.Given) > 0 }):
		return fmt.Errorf("%s: no row has a label", s.File)
	case s.Kind != OneLabel:
		return nil
	}
	var present []string
	for i, n := range s.Counts() {
		if n > 0 {
			present = append(present, s.Labels[i])
		}
	}
	if len(present) < 2 {
		return fmt.Errorf("%s: the %d training examples are all of class %s: at least two classes are needed (is the file sorted by class? then draw a random sample)",
			s.File, s.Len(), rows.BriefList(present))
	}
	return nil
}

// Load reads a file's examples. Without opts.Labels the classes are those of the
// file, integers in numeric order, names sorted; with them a label that is not
// among them is a bad row.
func Load(ctx context.Context, path string, opts LoadOptions) (*Set, error) {
	opts.Read.Context = ctx
	r, err := OpenExamples(path, opts)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return loadAll(ctx, r)
}

func loadAll(ctx context.Context, r *ExampleReader) (*Set, error) {
	s := &Set{File: r.file, Kind: r.opts.Kind}
	if r.opts.Spool != nil {
		s.disk = newPlaces(r.opts.Spool)
	} else {
		r.seen = map[string]struct{}{}
	}
	for {
		if r.stats.Rows%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		ex, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if s.disk == nil {
			s.Examples = append(s.Examples, ex)
		} else if err := s.disk.add(ex, r.labels == nil && r.columns.Label != ""); err != nil {
			return nil, err
		}
	}
	s.Columns, s.Stats = r.columns, r.Stats()
	if s.disk != nil {
		var err error
		if s.Stats.DuplicateIDs, err = s.disk.read(); err != nil {
			return nil, err
		}
	}
	if err := s.label(r); err != nil {
		return nil, err
	}
	return s, s.sample(r.opts)
}

// label turns the names found into class indices, if the reader could not.
func (s *Set) label(r *ExampleReader) error {
	if s.Kind != OneLabel {
		return s.labelTargets(r)
	}
	if r.labels != nil {
		s.Labels = slices.Clone(r.labels.names)
		return nil
	}
	if s.Columns.Label == "" {
		return nil
	}
	index := map[string]int{}
	for _, ex := range s.Examples {
		index[ex.Name] = 0
	}
	for name := range index {
		s.Labels = append(s.Labels, name)
	}
	if s.disk != nil {
		s.Labels = s.disk.names
	}
	s.Labels = sortLabels(s.Labels)
	// A column of free text or of measurements taken for labels would train a
	// head of thousands of classes.
	if n := len(s.Labels); n > 50 && 2*n > s.Len() {
		return fmt.Errorf("%s: column %q has %d different values in %d rows: it is no label column",
			s.File, s.Columns.Label, n, s.Len())
	}
	for i, name := range s.Labels {
		index[name] = i
	}
	for i := range s.Examples {
		s.Examples[i].Label = index[s.Examples[i].Name]
	}
	if s.disk != nil {
		order := make([]int, len(s.disk.names))
		for i, name := range s.disk.names {
			order[i] = index[name]
		}
		s.disk.relabel(order)
	}
	return nil
}
