package prompted

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopeft/model/fsutil"
	"gopeft/train"
)

// The methods, as --method has them.
const (
	InContext  = "in-context"
	HardPrompt = "hard-prompt"
)

// Methods lists them.
func Methods() []string { return []string{InContext, HardPrompt} }

// Is reports whether a method is one of them.
func Is(method string) bool { return slices.Contains(Methods(), method) }

// Settings are those of a prompt. Each field is a flag of the same name as its YAML key; usage is its help.
type Settings struct {
	Shots     int      `yaml:"shots" usage:"of in-context: examples of the training data in the prompt, of each class as many, as far as they fit the model's context; 0: none"`
	Draws     int      `yaml:"shot-draws" usage:"of in-context: times to draw them; scores are the mean over the draws, with its spread"`
	Templates string   `yaml:"templates" usage:"of hard-prompt: file with a template on each line, of which the best on the validation data is taken (default: some of gopeft's own)"`
	Words     []string `yaml:"label-words" usage:"what {label} becomes in a template, in the order of the labels (default: the labels)"`
	PerToken  bool     `yaml:"length-normalize" usage:"of in-context and hard-prompt: score labels by the mean over their tokens, not the sum"`
	Calibrate bool     `yaml:"calibrate" usage:"of in-context and hard-prompt: score labels against what an empty text gives them"`
}

// Defaults are the settings of a run that says nothing.
func Defaults() Settings { return Settings{Shots: 8, Draws: 3} }

// Check reports the first setting that cannot be right.
func (s Settings) Check() error {
	if err := train.CheckCount("shots", s.Shots, 0); err != nil {
		return err
	}
	if err := train.CheckCount("shot-draws", s.Draws, 1); err != nil {
		return err
	}
	for i, word := range s.Words {
		switch {
		case strings.TrimSpace(word) == "":
			return train.Usage("--label-words: word %d is empty", i+1)
		case slices.Contains(s.Words[:i], word):
			return train.Usage("--label-words: %q stands there twice", word)
		}
	}
	return nil
}

// WordsOf are the words of labels: those given, or the labels. note says what a person should know of them, "" if nothing.
func (s Settings) WordsOf(labels []string) (words []string, note string, err error) {
	switch {
	case len(s.Words) == 0:
		bare := !slices.ContainsFunc(labels, func(l string) bool { _, err := strconv.Atoi(l); return err != nil })
		if bare {
			note = fmt.Sprintf("the labels are bare numbers (%s), which tell a language model little: --label-words gives it words, in that order", strings.Join(labels, ", "))
		}
		return labels, note, nil
	case len(s.Words) != len(labels):
		return nil, "", train.Usage("--label-words has %d words for %d labels (%s): give one for each, in that order", len(s.Words), len(labels), strings.Join(labels, ", "))
	}
	pairs := make([]string, len(labels))
	for i, label := range labels {
		pairs[i] = label + " is " + s.Words[i]
	}
	return s.Words, "label words: " + strings.Join(pairs, ", "), nil
}

// DefaultTemplate is how examples are written where nothing is said.
const DefaultTemplate = `Text: {text}\nLabel: {label}`

// defaultTemplates are what hard-prompt chooses from where no file is given.
func defaultTemplates() []string {
	return []string{
		DefaultTemplate,
		`{text}\nThis text is {label}`,
		`{text} It is {label}`,
		`Is this text {labels}?\n{text}\nAnswer: {label}`,
		`Label the text: {labels}.\nText: {text}\nLabel: {label}`,
		`Question: which of these describes the text best: {labels}?\nText: {text}\nAnswer: {label}`,
	}
}

// ReadTemplates reads the templates of a file, one a line, empty lines left out; columns are what templates may call the
// text and the label besides. "" stands for templates of gopeft's own.
func ReadTemplates(path string, columns Columns) ([]Template, error) {
	lines := defaultTemplates()
	if path != "" {
		raw, err := fsutil.ReadSmall(path, fsutil.MaxSettings)
		if err != nil {
			return nil, fmt.Errorf("--templates: %w", err)
		}
		lines = strings.Split(string(raw), "\n")
	}
	var all []Template
	for i, line := range lines {
		line = strings.TrimSuffix(line, "\r")
		if strings.TrimSpace(line) == "" {
			continue
		}
		t, err := ParseTemplate(line, columns)
		if err != nil {
			return nil, train.Usage("--templates %s, line %d: %w", path, i+1, err)
		}
		all = append(all, t)
	}
	if len(all) == 0 {
		return nil, train.Usage("--templates %s holds no template: write one on each line, such as %s", path, DefaultTemplate)
	}
	return all, nil
}
