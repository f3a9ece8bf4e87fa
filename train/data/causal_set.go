package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// CausalSet is a file's causal examples in memory.
type CausalSet struct {
	File     string
	How      string // how rows were read
	Examples []CausalExample
	Stats    CausalStats
}

// Notes says what a person should know.
func (s *CausalSet) Notes() []string {
	var notes []string
	if s.How != "" {
		notes = append(notes, fmt.Sprintf("%s: %s", s.File, s.How))
	}
	for _, n := range []struct {
		count int
		what  string
	}{
		{s.Stats.Skipped, fmt.Sprintf("bad rows skipped (the first: %v)", s.Stats.FirstSkipped)},
		{s.Stats.EmptyAnswers, "empty answers"},
		{s.Stats.EmptyTexts, "empty texts left out"},
	} {
		if n.count > 0 {
			notes = append(notes, fmt.Sprintf("%s: %d %s", s.File, n.count, n.what))
		}
	}
	return notes
}

// LoadCausal reads a file's causal examples.
func LoadCausal(ctx context.Context, path string, opts CausalOptions) (*CausalSet, error) {
	opts.Read.Context = ctx
	r, err := OpenCausal(path, opts)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	s := &CausalSet{File: path}
	for {
		if len(s.Examples)%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		ex, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		s.Examples = append(s.Examples, ex)
	}
	s.How, s.Stats = r.how, r.stats
	if opts.Sample > 0 && opts.Sample < len(s.Examples) {
		order := permutation(newRNG(opts.Seed, forSample, 0), len(s.Examples))[:opts.Sample]
		slices.Sort(order)
		s.Examples = s.pick(order).Examples
	}
	return s, nil
}

func (s *CausalSet) pick(indices []int) *CausalSet {
	part := &CausalSet{File: s.File, How: s.How, Examples: make([]CausalExample, len(indices))}
	for i, j := range indices {
		part.Examples[i] = s.Examples[j]
	}
	part.Stats.Examples = len(indices)
	return part
}

// CausalSplits are the parts of a run's data; Val and Test may be nil.
type CausalSplits struct {
	Train, Val, Test *CausalSet
	notes            []string
}

// Notes says what a person should know about all parts.
func (s *CausalSplits) Notes() []string { return s.notes }

// LoadCausalSplits reads what a causal language model trains and is measured on.
// Limit and Sample apply to each file read.
func LoadCausalSplits(ctx context.Context, src Sources, opts CausalOptions) (*CausalSplits, error) {
	if err := src.Check(); err != nil {
		return nil, err
	}
	if src.Stratify {
		return nil, errors.New("causal data has no classes to stratify by")
	}
	s := &CausalSplits{}
	parts := []**CausalSet{&s.Train, &s.Val, &s.Test}
	if src.Data != "" {
		all, err := LoadCausal(ctx, src.Data, opts)
		if err != nil {
			return nil, err
		}
		indices, err := SplitIndices(len(all.Examples), src.ratios(), src.Seed, nil)
		if err != nil {
			return nil, err
		}
		for i, part := range indices {
			if len(part) == 0 {
				return nil, fmt.Errorf("%s: %d examples are too few to split %v", src.Data, len(all.Examples), src.ratios())
			}
			*parts[i] = all.pick(part)
		}
		s.notes = all.Notes()
		return s, nil
	}
	for i, path := range []string{src.Train, src.Val, src.Test} {
		if path == "" {
			continue
		}
		set, err := LoadCausal(ctx, path, opts)
		if err != nil {
			return nil, err
		}
		if len(set.Examples) == 0 {
			return nil, fmt.Errorf("%s: no examples", path)
		}
		*parts[i] = set
		s.notes = append(s.notes, set.Notes()...)
	}
	return s, nil
}
