package data

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Settings are a run's settings of its data: which files, and how they are read, divided and cut. Each field is a flag
// of the same name as its YAML key; usage is the flag's help.
type Settings struct {
	Train       string    `yaml:"train" usage:"training data (csv, tsv, jsonl, json, parquet, .gz, or an aclImdb folder); given several times, the files together; FILE:0.7 weighs one"`
	Val         string    `yaml:"val" usage:"validation data"`
	Test        string    `yaml:"test" usage:"test data"`
	Data        string    `yaml:"data" usage:"data that --split divides, in place of --train, --val and --test; several files and weights as in --train"`
	Split       []float64 `yaml:"split" usage:"shares of --data for training, validation and test"`
	Stratify    bool      `yaml:"stratify" usage:"of --task classify: keep every class's share in the parts of --data"`
	TextColumn  string    `yaml:"text-column" usage:"column with the text (default: guessed)"`
	LabelColumn string    `yaml:"label-column" usage:"column with the label (default: guessed); of regression and multi-label also several, as in toxic,insult"`
	Limit       int       `yaml:"limit" usage:"read the first N examples of each file only"`
	Sample      int       `yaml:"sample" usage:"take a random sample of N examples of each file"`
	SkipBadRows bool      `yaml:"skip-bad-rows" usage:"count bad rows instead of failing on the first"`
	MaxLength   int       `yaml:"max-length" usage:"cut texts to this many tokens (default: what the model can read)"`
	Template    string    `yaml:"template" usage:"causal: prompt and answer from columns, e.g. '{question} -> {answer}'"`
	MaskPrompt  bool      `yaml:"mask-prompt" usage:"causal: learn the answer only"`
	Pack        bool      `yaml:"pack" usage:"causal: several examples in a row, without attention across them"`
	CacheDir    string    `yaml:"cache-dir" usage:"folder for tokenized data, which the next epochs and runs map into memory, or none (default: for data of 32 MiB, or 8 MiB of Parquet or gzip, and more, tokens in GOPEFT_HOME)"`
}

// Check reports the first setting that cannot be right, whatever is in the files.
func (s Settings) Check() error {
	switch {
	case s.Train == "" && s.Data == "":
		return errors.New("no data: give --train, or --data with --split")
	case s.Data != "" && (s.Train != "" || s.Val != "" || s.Test != ""):
		return errors.New("--data is one file that --split divides: it goes with none of --train, --val and --test")
	}
	for _, n := range s.Named() {
		files, err := Files(n.Files)
		if err != nil {
			return fmt.Errorf("--%s: %w", n.Key, err)
		}
		if weights := Weights(files); weights != nil && (n.Key == "val" || n.Key == "test") {
			return fmt.Errorf("--%s: weights are for training data: every row is scored once", n.Key)
		}
	}
	for _, n := range []struct {
		flag  string
		value int
	}{{"max-length", s.MaxLength}, {"limit", s.Limit}, {"sample", s.Sample}} {
		if n.value < 0 {
			return fmt.Errorf("--%s is %d, want at least 0", n.flag, n.value)
		}
	}
	if err := s.Sources(0).Check(); err != nil {
		return fmt.Errorf("--%w", err) // its text begins with split
	}
	return nil
}

// Sources names the files; seed is that of the division. Split and Stratify count for one data file only.
func (s Settings) Sources(seed uint64) Sources {
	src := Sources{Train: s.Train, Val: s.Val, Test: s.Test, Data: s.Data, Seed: seed}
	if s.Data != "" {
		src.Ratios, src.Stratify = s.Split, s.Stratify
	}
	return src
}

// LoadOptions says how a classifier's examples are read; labels, when not nil, are the only ones accepted, and seed is
// that of the sample.
func (s Settings) LoadOptions(labels []string, seed uint64) LoadOptions {
	return LoadOptions{TextColumn: s.TextColumn, LabelColumn: s.LabelColumn, Labels: labels, SkipBadRows: s.SkipBadRows,
		Limit: s.Limit, Sample: s.Sample, Seed: seed}
}

// CausalOptions says how a language model's examples are read; seed is that of the sample.
func (s Settings) CausalOptions(seed uint64) CausalOptions {
	return CausalOptions{Template: s.Template, TextColumn: s.TextColumn, SkipBadRows: s.SkipBadRows, Limit: s.Limit,
		Sample: s.Sample, Seed: seed}
}

// Name is what tables and plots call the data: the base name of the data file, or of the training file.
func (s Settings) Name() string {
	setting := s.Data
	if setting == "" {
		setting = s.Train
	}
	files, err := Files(setting)
	if err != nil {
		return filepath.Base(setting)
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(f.Path))
	}
	return strings.Join(names, " + ")
}

// Weights are those of the files of the training data, nil without any.
func (s Settings) Weights() ([]float64, error) {
	setting := s.Data
	if setting == "" {
		setting = s.Train
	}
	files, err := Files(setting)
	return Weights(files), err
}

// IsFiles reports whether a setting names data files, which may be several: flags given again and lists in YAML are
// joined to one text, a line each.
func IsFiles(key string) bool {
	return slices.ContainsFunc(Settings{}.Named(), func(n Named) bool { return n.Key == key })
}

// Named is a setting that names data files.
type Named struct {
	Key   string // of the flag, and in YAML
	Files string // for Files to read
}

// Named lists the settings that name data files.
func (s Settings) Named() []Named {
	return []Named{{"data", s.Data}, {"train", s.Train}, {"val", s.Val}, {"test", s.Test}}
}

// File is a file of data.
type File struct {
	Path   string
	Weight float64 // 0: none is given
}

// Files reads a setting that names files, a line each. A number behind the last colon is a weight, unless there is a file
// whose name ends so.
func Files(setting string) ([]File, error) {
	var files []File
	for line := range strings.SplitSeq(setting, "\n") {
		if line == "" {
			continue
		}
		file := File{Path: line}
		if at := strings.LastIndexByte(line, ':'); at > 0 {
			weight, err := strconv.ParseFloat(line[at+1:], 64)
			if _, missing := os.Stat(line); err == nil && missing != nil {
				if !(weight > 0) || math.IsInf(weight, 0) {
					return nil, fmt.Errorf("%s: the weight is %v, want a number above 0", line[:at], weight)
				}
				file = File{line[:at], weight}
			}
		}
		files = append(files, file)
	}
	for _, f := range files {
		switch {
		case len(files) == 1 && f.Weight > 0:
			return nil, fmt.Errorf("%s has a weight, and no other file to be weighed against", f.Path)
		case (f.Weight > 0) != (files[0].Weight > 0):
			return nil, fmt.Errorf("%s has a weight and %s has none: give all files a weight, or none", weighted(files).Path, unweighted(files).Path)
		}
	}
	if len(files) > math.MaxUint16 {
		return nil, fmt.Errorf("%d files of data, more than %d", len(files), math.MaxUint16)
	}
	return files, nil
}

func weighted(files []File) File {
	return files[slices.IndexFunc(files, func(f File) bool { return f.Weight > 0 })]
}

func unweighted(files []File) File {
	return files[slices.IndexFunc(files, func(f File) bool { return f.Weight == 0 })]
}

// Weights are the files' weights, nil without any.
func Weights(files []File) []float64 {
	var weights []float64
	for _, f := range files {
		if f.Weight > 0 {
			weights = append(weights, f.Weight)
		}
	}
	return weights
}
