package data

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gopeft/train/data/rows"
)

// defaultRatios divide a single file into train, validation and test.
var defaultRatios = []float64{0.8, 0.1, 0.1}

// Sources names the files of a run, of each part or of what is divided: one, or several as [Files] reads them. Several are
// one behind the other; their weights make no difference here.
type Sources struct {
	Train, Val, Test string // Val and Test may be empty

	Data     string    // instead of the three
	Ratios   []float64 // of Data: train, val[, test]; default 0.8, 0.1, 0.1
	Stratify bool      // classes keep their shares in the parts of Data
	Seed     uint64    // of the division
}

// Check reports files and ratios that do not go together.
func (s Sources) Check() error {
	switch {
	case s.Data == "" && s.Train == "":
		return errors.New("no training data: give a training file, or one data file to split")
	case s.Data != "" && (s.Train != "" || s.Val != "" || s.Test != ""):
		return errors.New("give either one data file to split, or files for train, val and test")
	case len(s.Ratios) == 1 || len(s.Ratios) > 3:
		return fmt.Errorf("split: %d ratios: give train,val or train,val,test", len(s.Ratios))
	case s.Data == "" && len(s.Ratios) > 0:
		return errors.New("split ratios belong to one data file, not to files for train, val and test")
	case s.Data == "":
		return nil
	}
	return CheckRatios(s.ratios())
}

func (s Sources) ratios() []float64 {
	if s.Ratios == nil {
		return defaultRatios
	}
	return s.Ratios
}

// Splits are the parts of a run's data; Val and Test may be nil.
type Splits struct {
	Train, Val, Test *Set
	notes            []string
}

// Notes says what a person should know about all parts.
func (s *Splits) Notes() []string { return s.notes }

// LoadSplits reads what a classifier trains and is measured on. The classes are
// opts.Labels, or those of the training file (of the whole file where one is
// divided); a label elsewhere that is not among them is a bad row. Limit, Sample
// and Balanced apply to each file read.
func LoadSplits(ctx context.Context, src Sources, opts LoadOptions) (*Splits, error) {
	if err := src.Check(); err != nil {
		return nil, err
	}
	s := &Splits{}
	if src.Data != "" {
		if err := s.divide(ctx, src, opts); err != nil {
			return nil, err
		}
	} else {
		load := func(path string) (*Set, error) {
			if path == "" {
				return nil, nil
			}
			set, err := loadFiles(ctx, path, opts)
			if err != nil {
				return nil, err
			}
			opts.Labels = set.Labels // the training file comes first and decides
			s.notes = append(s.notes, set.Notes()...)
			if set.Len() == 0 {
				return nil, fmt.Errorf("%s: no examples", set.File)
			}
			return set, nil
		}
		var err error
		for _, part := range []struct {
			set  **Set
			path string
		}{{&s.Train, src.Train}, {&s.Val, src.Val}, {&s.Test, src.Test}} {
			if *part.set, err = load(part.path); err != nil {
				return nil, err
			}
		}
	}
	if err := s.Train.CheckTrainable(); err != nil {
		return nil, err
	}
	s.noteOverlap("validation", s.Val)
	s.noteOverlap("test", s.Test)
	return s, nil
}

// divide fills s from one data file. An aclImdb folder that holds both its parts keeps them: the test part stays one,
// and of the other as much is validation data as the ratios give it beside the training data.
func (s *Splits) divide(ctx context.Context, src Sources, opts LoadOptions) error {
	path, ratios := src.Data, src.ratios()
	own := rows.HasParts(path)
	if own {
		path = filepath.Join(src.Data, "train")
		rest := ratios[0] + ratios[1]
		ratios = []float64{ratios[0] / rest, ratios[1] / rest}
	}
	all, err := loadFiles(ctx, path, opts)
	if err != nil {
		return err
	}
	parts, err := all.Split(ratios, src.Seed, src.Stratify)
	if err != nil {
		return err
	}
	s.Train, s.Val = parts[0], parts[1]
	s.notes = all.Notes()
	if len(parts) == 3 {
		s.Test = parts[2]
	}
	if own {
		opts.Labels = all.Labels
		if s.Test, err = Load(ctx, filepath.Join(src.Data, "test"), opts); err != nil {
			return err
		}
		s.notes = append(append(s.notes, s.Test.Notes()...), fmt.Sprintf("%s: its own test part is used, and its train part divided into training and validation data %.3g to %.3g",
			src.Data, ratios[0], ratios[1]))
	}
	return nil
}

// loadFiles reads the files of a setting, as one set. Without opts.Labels its classes are those of all the files.
func loadFiles(ctx context.Context, setting string, opts LoadOptions) (*Set, error) {
	files, err := Files(setting)
	if err != nil {
		return nil, err
	}
	var sets []*Set
	for _, f := range files {
		if len(files) > 1 && rows.HasParts(f.Path) {
			return nil, fmt.Errorf("%s has a training and a test part of its own: name one of them beside other files", f.Path)
		}
		set, err := Load(ctx, f.Path, opts)
		if err != nil || len(files) == 1 {
			return set, err
		}
		sets = append(sets, set)
	}
	for _, set := range sets {
		if first := sets[0]; set.Kind == Numbers && !slices.Equal(set.Labels, first.Labels) {
			return nil, fmt.Errorf("%s has the targets %s, %s has %s", set.File, rows.BriefList(set.Labels), first.File, rows.BriefList(first.Labels))
		}
	}
	return join(sets), nil
}

// join puts sets one behind the other, with the classes of all.
func join(sets []*Set) *Set {
	all := &Set{Kind: sets[0].Kind, Labels: sets[0].Labels, Columns: sets[0].Columns}
	var names, labels []string
	var disks []*places
	for i, set := range sets {
		if !slices.Equal(set.Labels, all.Labels) {
			all.Labels = nil // in no order yet
		}
		for _, name := range set.Labels {
			if !slices.Contains(labels, name) {
				labels = append(labels, name)
			}
		}
		names, disks = append(names, set.File), append(disks, set.disk)
		all.notes = append(all.notes, set.Notes()...)
		all.Stats.Rows += set.Stats.Rows
		all.Stats.EmptyTexts += set.Stats.EmptyTexts
		for range set.Len() {
			all.sources = append(all.sources, uint16(i))
		}
	}
	if all.Labels == nil && labels != nil {
		all.Labels = sortLabels(labels)
	}
	all.File = strings.Join(names, " + ")
	for _, set := range sets {
		index := make([]int, len(set.Labels))
		for i, name := range set.Labels {
			index[i] = slices.Index(all.Labels, name)
		}
		for _, ex := range set.Examples {
			if ex.Label >= 0 {
				ex.Label = index[ex.Label]
			}
			for k, class := range ex.Given {
				ex.Given[k] = index[class]
			}
			slices.Sort(ex.Given)
			all.Examples = append(all.Examples, ex)
		}
		if set.disk != nil {
			set.disk.relabel(index)
		}
	}
	if disks[0] != nil {
		all.disk = joinPlaces(disks)
	}
	return all
}

// noteOverlap mentions texts that are trained on and measured with.
func (s *Splits) noteOverlap(name string, held *Set) {
	if n := Overlap(s.Train, held); n > 0 {
		s.notes = append(s.notes, fmt.Sprintf("%d of %d %s texts are also in the training data", n, held.Len(), name))
	}
}

// Overlap counts the examples of held whose text is, to the byte, one of train's.
func Overlap(train, held *Set) int {
	if train == nil || held == nil {
		return 0
	}
	if train.disk != nil && held.disk != nil {
		return overlapOnDisk(train.disk, held.disk)
	}
	texts := make(map[string]struct{}, len(train.Examples))
	for _, ex := range train.Examples {
		if ex.IDs == nil {
			texts[ex.Text] = struct{}{}
		}
	}
	n := 0
	for _, ex := range held.Examples {
		if _, ok := texts[ex.Text]; ok && ex.IDs == nil {
			n++
		}
	}
	return n
}

// overlapOnDisk is Overlap by the texts' hashes.
func overlapOnDisk(train, held *places) int {
	texts := make([]uint64, train.len())
	for i := range texts {
		texts[i] = train.text[train.row(i)]
	}
	slices.Sort(texts)
	n := 0
	for i := range held.len() {
		hash := held.text[held.row(i)]
		if _, ok := slices.BinarySearch(texts, hash); ok && hash != 0 {
			n++
		}
	}
	return n
}
