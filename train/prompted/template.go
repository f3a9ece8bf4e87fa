package prompted

import (
	"fmt"
	"slices"
	"strings"

	"gopeft/train/data"
)

// The places of a template.
const (
	textPlace   = "text"
	labelPlace  = "label"
	labelsPlace = "labels" // all words, with commas between them
)

// Columns are the names of the columns with the text and the label in the data, "" where there are none; templates may use
// them for {text} and {label}.
type Columns struct{ Text, Label string }

// Template is how a text and its label are written.
type Template struct {
	source         string
	before, behind data.Template // the label's place
}

// ParseTemplate reads a template, in the notation of [data.ParseTemplate].
func ParseTemplate(source string, columns Columns) (Template, error) {
	t, err := data.ParseTemplate(source)
	if err != nil {
		return Template{}, err
	}
	names := map[string]string{}
	known := []string{textPlace, labelPlace, labelsPlace}
	for column, place := range map[string]string{columns.Text: textPlace, columns.Label: labelPlace} {
		if column != "" && !slices.Contains(known, column) {
			names[column] = place
		}
	}
	t = t.Rename(names)
	bad := func(format string, args ...any) (Template, error) {
		return Template{}, fmt.Errorf("template %q: "+format, append([]any{source}, args...)...)
	}
	for _, name := range t.Columns() {
		if !slices.Contains(known, name) {
			return bad("there is no {%s}: its places are {text}, {label} and {labels}, the list of them", name)
		}
	}
	before, behind, ok := t.SplitAt(labelPlace)
	switch {
	case !ok:
		return bad("it has no {label}: write that where the label stands")
	case !slices.Contains(t.Columns(), textPlace):
		return bad("it has no {text}: write that where the text stands")
	case len(behind.Columns()) > 0:
		return bad("{%s} stands behind {label}: all that is asked comes before the label", behind.Columns()[0])
	}
	return Template{t.String(), before, behind}, nil
}

// String is what ParseTemplate reads as the same template, whatever the columns.
func (t Template) String() string { return t.source }

// ask is the prompt for a text, up to the label.
func (t Template) ask(text string, words []string) string {
	return t.before.Fill(map[string]string{textPlace: text, labelsPlace: strings.Join(words, ", ")})
}

// example is a text with its label, and what parts it from what follows: a blank line, unless the template ends a line itself.
func (t Template) example(text, word string, words []string) string {
	whole := t.ask(text, words) + word + t.behind.Fill(nil)
	if strings.HasSuffix(whole, "\n") {
		return whole
	}
	return whole + "\n\n"
}
