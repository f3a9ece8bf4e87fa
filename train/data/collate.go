package data

import (
	"errors"
	"fmt"
)

// IgnoreTarget marks a position without a target: the loss leaves it out. transformers uses the same number.
const IgnoreTarget = -100

// Batch is what a model takes in one step. Slices of Rows×Width are row-major.
type Batch struct {
	Rows, Width int
	IDs         []int64   // Rows×Width, padding included
	Mask        []int64   // Rows×Width, 1 for tokens, 0 for padding
	Labels      []int64   // Rows: classes; nil for other data
	Values      []float32 // Rows×targets: numbers, or 1 for labels given and 0 for others; nil for other data
	Tokens      int       // real tokens

	// Causal data. Targets[i] is the token wanted at position i, predicted from
	// what comes before it: the loss compares logits i-1 with target i. The first
	// token of a sequence follows nothing and is never a target.
	Targets    []int64 // Rows×Width, IgnoreTarget where nothing is learned
	NumTargets int     // positions that have a target

	// Packed data.
	Segments  []int64 // Rows×Width: 1, 2, … for the row's sequences, 0 for padding
	Positions []int64 // Rows×Width: from 0 within each sequence
	Lengths   [][]int // the lengths of each row's sequences, in order

	// Idle is a batch that is computed because others are, by processes that make each pass together, and counts nowhere.
	Idle bool
}

// CollateOptions says how rows are padded.
type CollateOptions struct {
	PadID    int64
	Left     bool // pad on the left
	Multiple int  // round the width up to a multiple of this
	Width    int  // pad to this width instead of the longest row; shorter is an error
}

// Collate lays token sequences out as a batch. labels may be nil; otherwise there
// is one per sequence.
func Collate(seqs [][]int64, labels []int64, opts CollateOptions) (Batch, error) {
	if labels != nil && len(labels) != len(seqs) {
		return Batch{}, fmt.Errorf("collate: %d labels for %d sequences", len(labels), len(seqs))
	}
	b, err := layout(len(seqs), func(i int) int { return len(seqs[i]) }, opts)
	if err != nil {
		return Batch{}, err
	}
	for i, ids := range seqs {
		b.put(b.IDs, i, opts.Left, ids)
		b.mark(i, opts.Left, len(ids))
	}
	b.Labels = append([]int64(nil), labels...)
	return b, nil
}

// CollateCausal lays causal sequences out as a batch.
func CollateCausal(seqs []Sequence, opts CollateOptions) (Batch, error) {
	b, err := layout(len(seqs), func(i int) int { return len(seqs[i].IDs) }, opts)
	if err != nil {
		return Batch{}, err
	}
	b.Targets = filled(b.Rows*b.Width, IgnoreTarget)
	for i, s := range seqs {
		if len(s.Targets) != len(s.IDs) {
			return Batch{}, fmt.Errorf("collate: sequence %d has %d targets for %d tokens", i, len(s.Targets), len(s.IDs))
		}
		b.put(b.IDs, i, opts.Left, s.IDs)
		b.mark(i, opts.Left, len(s.IDs))
		at := b.put(b.Targets, i, opts.Left, s.Targets)
		b.Targets[at] = IgnoreTarget
	}
	b.countTargets()
	return b, nil
}

// CollatePacked lays rows of several sequences each out as a batch, padded on the
// right. Attention must stay within a segment.
func CollatePacked(rows [][]Sequence, opts CollateOptions) (Batch, error) {
	if opts.Left {
		return Batch{}, errors.New("collate: packed rows are padded on the right")
	}
	total := func(i int) int {
		n := 0
		for _, s := range rows[i] {
			n += len(s.IDs)
		}
		return n
	}
	b, err := layout(len(rows), total, opts)
	if err != nil {
		return Batch{}, err
	}
	size := b.Rows * b.Width
	b.Targets = filled(size, IgnoreTarget)
	b.Segments = make([]int64, size)
	b.Positions = make([]int64, size)
	b.Lengths = make([][]int, b.Rows)
	for i, row := range rows {
		at := i * b.Width
		for j, s := range row {
			if len(s.IDs) == 0 || len(s.Targets) != len(s.IDs) {
				return Batch{}, fmt.Errorf("collate: row %d, sequence %d has %d tokens and %d targets", i, j, len(s.IDs), len(s.Targets))
			}
			copy(b.IDs[at:], s.IDs)
			copy(b.Targets[at:], s.Targets)
			b.Targets[at] = IgnoreTarget
			for k := range s.IDs {
				b.Segments[at+k] = int64(j) + 1
				b.Positions[at+k] = int64(k)
			}
			at += len(s.IDs)
			b.Lengths[i] = append(b.Lengths[i], len(s.IDs))
		}
		b.mark(i, false, total(i))
	}
	b.countTargets()
	return b, nil
}

// layout makes a batch of padding for rows of the given lengths.
func layout(rows int, length func(int) int, opts CollateOptions) (Batch, error) {
	if rows == 0 {
		return Batch{}, errors.New("collate: no sequences")
	}
	width := 0
	for i := range rows {
		n := length(i)
		if n == 0 {
			// A row of padding alone would make its softmax 0/0.
			return Batch{}, fmt.Errorf("collate: sequence %d is empty", i)
		}
		width = max(width, n)
	}
	if opts.Width > 0 {
		if width > opts.Width {
			return Batch{}, fmt.Errorf("collate: a sequence has %d tokens, the batch is %d wide", width, opts.Width)
		}
		width = opts.Width
	}
	if opts.Multiple > 1 {
		width = (width + opts.Multiple - 1) / opts.Multiple * opts.Multiple
	}
	return Batch{
		Rows: rows, Width: width,
		IDs:  filled(rows*width, opts.PadID),
		Mask: make([]int64, rows*width),
	}, nil
}

// put copies a row's values to their place and returns where they start.
func (b *Batch) put(dst []int64, row int, left bool, values []int64) int {
	at := row * b.Width
	if left {
		at += b.Width - len(values)
	}
	copy(dst[at:], values)
	return at
}

// mark sets the mask of a row of n tokens.
func (b *Batch) mark(row int, left bool, n int) {
	at := row * b.Width
	if left {
		at += b.Width - n
	}
	for i := range n {
		b.Mask[at+i] = 1
	}
	b.Tokens += n
}

func (b *Batch) countTargets() {
	for _, t := range b.Targets {
		if t != IgnoreTarget {
			b.NumTargets++
		}
	}
}

func filled(n int, value int64) []int64 {
	s := make([]int64, n)
	if value != 0 {
		for i := range s {
			s[i] = value
		}
	}
	return s
}

// Sequence is a causal example as tokens.
type Sequence struct {
	IDs     []int64
	Targets []int64 // as long as IDs: the token itself, or IgnoreTarget
}

// NewSequence joins the tokens of a prompt and of its answer (with whatever begin
// and end tokens the model wants already in them) and cuts the end off at
// maxLength (0: no limit). The prompt is learned too only if trainPrompt.
func NewSequence(prompt, answer []int64, maxLength int, trainPrompt bool) Sequence {
	n := len(prompt) + len(answer)
	ids := append(append(make([]int64, 0, n), prompt...), answer...)
	targets := append([]int64(nil), ids...)
	if !trainPrompt {
		for i := range prompt {
			targets[i] = IgnoreTarget
		}
	}
	return Sequence{IDs: ids, Targets: targets}.Cut(maxLength)
}

// Cut is the sequence's first n tokens; 0: all.
func (s Sequence) Cut(n int) Sequence {
	if n > 0 && len(s.IDs) > n {
		s.IDs, s.Targets = s.IDs[:n], s.Targets[:n]
	}
	return s
}

// NumTargets counts what the sequence teaches: 0 if truncation left no answer.
func (s Sequence) NumTargets() int {
	n := 0
	for i, t := range s.Targets {
		if i > 0 && t != IgnoreTarget {
			n++
		}
	}
	return n
}
