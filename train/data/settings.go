package data

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Settings are a run's settings of its data: which files, and how they are read, divided and cut. Each field is a flag
// of the same name as its YAML key; usage is the flag's help.
type Settings struct {
	Train       string    `yaml:"train" usage:"training data (csv, tsv, jsonl, json, parquet, .gz, or an aclImdb folder)"`
	Val         string    `yaml:"val" usage:"validation data"`
	Test        string    `yaml:"test" usage:"test data"`
	Data        string    `yaml:"data" usage:"one file that --split divides, in place of --train, --val and --test"`
	Split       []float64 `yaml:"split" usage:"shares of --data for training, validation and test"`
	Stratify    bool      `yaml:"stratify" usage:"keep every class's share in the parts of --data"`
	TextColumn  string    `yaml:"text-column" usage:"column with the text (default: guessed)"`
	LabelColumn string    `yaml:"label-column" usage:"column with the label (default: guessed)"`
	Limit       int       `yaml:"limit" usage:"read the first N examples of each file only"`
	Sample      int       `yaml:"sample" usage:"take a random sample of N examples of each file"`
	SkipBadRows bool      `yaml:"skip-bad-rows" usage:"count bad rows instead of failing on the first"`
	MaxLength   int       `yaml:"max-length" usage:"cut texts to this many tokens (default: what the model can read)"`
	Template    string    `yaml:"template" usage:"causal: prompt and answer from columns, e.g. '{question} -> {answer}'"`
	MaskPrompt  bool      `yaml:"mask-prompt" usage:"causal: learn the answer only"`
	Pack        bool      `yaml:"pack" usage:"causal: several examples in a row, without attention across them"`
	CacheDir    string    `yaml:"cache-dir" usage:"folder for tokenized data, which the next epochs and runs map into memory, or none (default: for data of 32 MiB and more, tokens in GOPEFT_HOME)"`
}

// Check reports the first setting that cannot be right, whatever is in the files.
func (s Settings) Check() error {
	switch {
	case s.Train == "" && s.Data == "":
		return errors.New("no data: give --train, or --data with --split")
	case s.Data != "" && (s.Train != "" || s.Val != "" || s.Test != ""):
		return errors.New("--data is one file that --split divides: it goes with none of --train, --val and --test")
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
	if s.Data != "" {
		return filepath.Base(s.Data)
	}
	return filepath.Base(s.Train)
}
