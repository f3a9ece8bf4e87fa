package prompted

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"gopeft/model/fsutil"
)

// FileName is what a run calls its prompt.
const FileName = "prompt.json"

// Prompt is all that a label is asked by.
type Prompt struct {
	Template  Template
	Labels    []string
	Words     []string // of the labels
	Shots     []Shot
	PerToken  bool // as Settings has it
	Calibrate bool // as Settings has it
	MaxLength int  // tokens that texts are cut to; 0: as many as fit
}

// Shot is an example that stands in the prompt.
type Shot struct {
	Text  string `json:"text"`
	Label int    `json:"label"`
}

// examples are the shots as they stand in the prompt.
func (p *Prompt) examples() string {
	var b strings.Builder
	for _, shot := range p.Shots {
		b.WriteString(p.example(shot))
	}
	return b.String()
}

func (p *Prompt) example(shot Shot) string {
	return p.Template.example(shot.Text, p.Words[shot.Label], p.Words)
}

// Ask is the prompt for a text, which ends where the label begins.
func (p *Prompt) Ask(text string) string { return p.examples() + p.Template.ask(text, p.Words) }

// stored is a prompt's file.
type stored struct {
	Template  string   `json:"template"`
	Labels    []string `json:"labels"`
	Words     []string `json:"label_words"`
	Shots     []Shot   `json:"shots"`
	PerToken  bool     `json:"length_normalize"`
	Calibrate bool     `json:"calibrate"`
	MaxLength int      `json:"max_length"`
}

// Save writes the prompt into a run's folder.
func (p *Prompt) Save(dir string) error {
	return fsutil.WriteFile(filepath.Join(dir, FileName), func(w io.Writer) error {
		return encode(w, stored{p.Template.String(), p.Labels, p.Words, append([]Shot{}, p.Shots...), p.PerToken, p.Calibrate, p.MaxLength})
	})
}

func encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Load reads a prompt's file.
func Load(path string) (*Prompt, error) {
	raw, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
	if err != nil {
		return nil, err
	}
	var f stored
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.Template == "" {
		return nil, fmt.Errorf("%s has no template: it is no prompt that classifies", path)
	}
	p := &Prompt{Labels: f.Labels, Words: f.Words, Shots: f.Shots, PerToken: f.PerToken, Calibrate: f.Calibrate, MaxLength: f.MaxLength}
	if p.Template, err = ParseTemplate(f.Template, Columns{}); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case len(p.Labels) < 2 || len(p.Words) != len(p.Labels):
		return nil, fmt.Errorf("%s: %d labels and %d words for them", path, len(p.Labels), len(p.Words))
	case slices.ContainsFunc(p.Shots, func(s Shot) bool { return s.Label < 0 || s.Label >= len(p.Labels) }):
		return nil, fmt.Errorf("%s: a shot's label is none of %d", path, len(p.Labels))
	case p.MaxLength < 0:
		return nil, fmt.Errorf("%s: max_length is %d", path, p.MaxLength)
	}
	return p, nil
}
