package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Size is about how many bytes of memory the example's texts and ids take.
func (x CausalExample) Size() int {
	n := len(x.Prompt) + len(x.Answer) + 8*(len(x.IDs)+len(x.Targets))
	for _, m := range x.Messages {
		n += len(m.Role) + len(m.Content)
	}
	return n
}

// CausalSet is a file's causal examples.
type CausalSet struct {
	File     string
	How      string          // how rows were read
	Examples []CausalExample // nil where they are on disk
	Stats    CausalStats

	disk    *places  // nil: in memory
	sources []uint16 // of each example, the file it is from; nil: one file
	notes   []string // of those files
}

// Sources gives the index of the file that each example is from; nil where they are all from one.
func (s *CausalSet) Sources() []uint16 { return s.sources }

// Len is the number of examples.
func (s *CausalSet) Len() int {
	if s.disk != nil {
		return s.disk.len()
	}
	return len(s.Examples)
}

// Example gives an example, wherever it is kept.
func (s *CausalSet) Example(i int) (CausalExample, error) {
	if s.disk == nil {
		return s.Examples[i], nil
	}
	return s.disk.causal(s.disk.row(i))
}

// Notes says what a person should know.
func (s *CausalSet) Notes() []string {
	if s.notes != nil {
		return s.notes
	}
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
	if opts.Spool != nil {
		s.disk = newPlaces(opts.Spool)
	}
	for {
		if s.Len()%1024 == 0 && ctx.Err() != nil {
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
		} else if err := s.disk.addCausal(ex); err != nil {
			return nil, err
		}
	}
	s.How, s.Stats = r.how, r.stats
	if s.disk != nil {
		if _, err := s.disk.read(); err != nil {
			return nil, err
		}
	}
	if opts.Sample > 0 && opts.Sample < s.Len() {
		order := permutation(newRNG(opts.Seed, forSample, 0), s.Len())[:opts.Sample]
		slices.Sort(order)
		picked := s.pick(order)
		s.Examples, s.disk = picked.Examples, picked.disk
	}
	return s, nil
}

func (s *CausalSet) pick(indices []int) *CausalSet {
	part := &CausalSet{File: s.File, How: s.How, sources: pickSources(s.sources, indices)}
	if s.disk != nil {
		part.disk = s.disk.pick(indices)
	} else {
		part.Examples = make([]CausalExample, len(indices))
		for i, j := range indices {
			part.Examples[i] = s.Examples[j]
		}
	}
	part.Stats.Examples = len(indices)
	return part
}

// loadCausalFiles reads the files of a setting, as one set.
func loadCausalFiles(ctx context.Context, setting string, opts CausalOptions) (*CausalSet, error) {
	files, err := Files(setting)
	if err != nil {
		return nil, err
	}
	var all CausalSet
	var names []string
	var disks []*places
	for i, f := range files {
		set, err := LoadCausal(ctx, f.Path, opts)
		if err != nil || len(files) == 1 {
			return set, err
		}
		names, disks = append(names, f.Path), append(disks, set.disk)
		all.Examples = append(all.Examples, set.Examples...)
		all.Stats.Examples += set.Stats.Examples
		all.notes = append(all.notes, set.Notes()...)
		for range set.Len() {
			all.sources = append(all.sources, uint16(i))
		}
	}
	all.File = strings.Join(names, " + ")
	if opts.Spool != nil {
		all.disk = joinPlaces(disks)
	}
	return &all, nil
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
		all, err := loadCausalFiles(ctx, src.Data, opts)
		if err != nil {
			return nil, err
		}
		indices, err := SplitIndices(all.Len(), src.ratios(), src.Seed, nil)
		if err != nil {
			return nil, err
		}
		for i, part := range indices {
			if len(part) == 0 {
				return nil, fmt.Errorf("%s: %d examples are too few to split %v", all.File, all.Len(), src.ratios())
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
		set, err := loadCausalFiles(ctx, path, opts)
		if err != nil {
			return nil, err
		}
		if set.Len() == 0 {
			return nil, fmt.Errorf("%s: no examples", set.File)
		}
		*parts[i] = set
		s.notes = append(s.notes, set.Notes()...)
	}
	return s, nil
}
