package model

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// Facts is what a model says about itself before its weights are read.
type Facts struct {
	Family  string   // that loads it, as Info's; "" where none does
	Room    int      // positions it has, as Info's MaxPositions
	Vocab   int      // token ids it knows
	Labels  []string // of its classification head: its own names, or LABEL_0, …
	Problem Problem  // of its classification head, as far as its config says
	Pad     int64    // the padding token; 0 if it names none
	Writes  bool     // its files are a language model's, with a head that predicts tokens
}

// ReadFacts reads the config.json of a model's folder, or a GGUF file's metadata.
func ReadFacts(path string) (Facts, error) {
	raw, err := readConfig(path)
	if err != nil {
		return Facts{}, err
	}
	where := func(err error) error { return fmt.Errorf("%s: config: %w", path, err) }
	var c struct {
		Pad     *int64   `json:"pad_token_id"`
		Classes []string `json:"architectures"`
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return Facts{}, where(err)
	}
	loader, unknown := familyOfType(hf.ModelType(raw), "")
	if unknown != nil { // a tokenizer may lie beside a config.json that no family loads: its sizes are read as the first family's
		loader = families()[0]
	}
	positions, vocab, err := loader.size(raw)
	if err != nil {
		return Facts{}, where(err)
	}
	f := Facts{Room: positions, Vocab: vocab, Problem: configProblem(raw)}
	if unknown == nil {
		f.Family = loader.name
	}
	f.Writes = strings.HasSuffix(path, ".gguf") || slices.ContainsFunc(c.Classes, func(name string) bool {
		return strings.HasSuffix(name, "ForCausalLM") || strings.HasSuffix(name, "LMHeadModel")
	})
	if c.Pad != nil && *c.Pad > 0 {
		f.Pad = *c.Pad
	}
	if f.Labels, err = configLabels(raw); err != nil {
		return Facts{}, where(err)
	}
	return f, nil
}

// Problem is what a classification head's scores are, as transformers' problem_type names it; "": it was not said.
type Problem string

// The problem types.
const (
	OneLabel   Problem = "single_label_classification" // of one class, by softmax
	AnyLabels  Problem = "multi_label_classification"  // of each label for itself, by the logistic function
	Regression Problem = "regression"                  // numbers
)

const problemKey = "problem_type"

// ProblemOf is what m's config.json says.
func ProblemOf(m Model) Problem {
	text, _ := m.Config()[problemKey].(string)
	return Problem(text)
}

// configProblem is what a config.json says.
func configProblem(raw []byte) Problem {
	var c struct {
		Problem string `json:"problem_type"`
	}
	_ = json.Unmarshal(raw, &c) // one of another kind says nothing
	return Problem(c.Problem)
}

// SetProblem writes p, unless it is "", into the config.json that m is saved with.
func SetProblem(m Model, p Problem) {
	if p != "" {
		m.Config()[problemKey] = string(p)
	}
}

// Or is p; where it was not said, or something else, what transformers makes of so many labels: regression of one, else classification.
func (p Problem) Or(labels int) Problem {
	switch {
	case p == OneLabel, p == AnyLabels, p == Regression:
		return p
	case labels == 1:
		return Regression
	}
	return OneLabel
}

func readConfig(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() {
		return hf.ReadConfig(path)
	}
	g, err := files.OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	_, raw, err := readGGUF(g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return raw, nil
}
