package data

import (
	"fmt"
	"slices"
	"strings"

	"gopeft/train/data/rows"
)

// Usual column names, the likeliest first.
var (
	textNames  = []string{"text", "review", "sentence", "content", "comment", "tweet", "body", "document", "message", "phrase", "question", "description", "title"}
	labelNames = []string{"label", "labels", "sentiment", "class", "category", "target", "coarse_label", "label-coarse", "topic", "polarity", "rating", "stars", "y"}
	// Of Numbers and AnyLabels, in place of labelNames.
	numberNames = []string{"label", "labels", "score", "target", "targets", "value", "rating", "stars", "similarity", "y"}
	listNames   = []string{"labels", "label", "tags", "categories", "genres", "topics", "classes"}
	idNames     = []string{"id", "idx", "guid", "uid", "_id"}
)

// inputIDs is the column that holds token ids in place of a text.
const inputIDs = "input_ids"

// Columns says which column is what.
type Columns struct {
	Text    string   // "" if the rows carry token ids
	IDs     string   // "input_ids", or ""
	Label   string   // "" if unlabelled
	Several []string // of Numbers and AnyLabels: all the label columns, where they are several
	ID      string   // the rows' own identifiers, or ""

	TextGuessed, LabelGuessed bool
}

// String says what was chosen, for people: `text column "review" (guessed), …`.
func (c Columns) String() string {
	var parts []string
	say := func(what, name string, guessed bool) {
		if name == "" {
			return
		}
		s := fmt.Sprintf("%s column %q", what, name)
		if guessed {
			s += " (guessed)"
		}
		parts = append(parts, s)
	}
	say("text", c.Text, c.TextGuessed)
	say("token id", c.IDs, false)
	if len(c.Several) > 0 {
		parts = append(parts, "label columns "+rows.BriefList(c.Several))
	} else {
		say("label", c.Label, c.LabelGuessed)
	}
	return strings.Join(parts, ", ")
}

// findColumns chooses the columns of a file by their names. A label column is
// looked for only if labelled.
func findColumns(file string, names []string, text, label string, labelled bool) (Columns, error) {
	var c Columns
	if labelled {
		switch {
		case label != "":
			if !slices.Contains(names, label) {
				return c, missingColumn(file, label, "label", names)
			}
			c.Label = label
		default:
			c.Label, c.LabelGuessed = usual(names, labelNames)
			if !c.LabelGuessed {
				return c, fmt.Errorf("%s: no label column among %s: name one (--label-column)", file, rows.BriefList(names))
			}
		}
	}
	c.ID, _ = usual(names, idNames)
	switch {
	case text == inputIDs, text == "" && slices.Contains(names, inputIDs):
		if !slices.Contains(names, inputIDs) {
			return c, missingColumn(file, text, "text", names)
		}
		c.IDs = inputIDs
	case text != "":
		if !slices.Contains(names, text) {
			return c, missingColumn(file, text, "text", names)
		}
		c.Text = text
	default:
		c.Text, c.TextGuessed = usual(without(names, c.Label), textNames)
		if !c.TextGuessed {
			// Whatever is left when label and id are known is the text.
			rest := without(names, c.Label, c.ID)
			if len(rest) != 1 {
				return c, fmt.Errorf("%s: no text column among %s: name one (--text-column)", file, rows.BriefList(names))
			}
			c.Text, c.TextGuessed = rest[0], true
		}
	}
	if c.Text != "" && c.Text == c.Label {
		return c, fmt.Errorf("%s: column %q cannot be both text and label", file, c.Text)
	}
	return c, nil
}

// targetColumns chooses the label column of Numbers or AnyLabels, or of several, which are named with commas between them,
// the first.
func targetColumns(file string, names []string, label string, kind Kind) (first string, several []string, guessed bool, err error) {
	if label == "" {
		likely := numberNames
		if kind == AnyLabels {
			likely = listNames
		}
		first, guessed = usual(names, likely)
		return first, nil, guessed, nil // findColumns says if there is none
	}
	if slices.Contains(names, label) || !strings.Contains(label, ",") {
		return label, nil, false, nil
	}
	for name := range strings.SplitSeq(label, ",") {
		if name = strings.TrimSpace(name); !slices.Contains(names, name) {
			return "", nil, false, missingColumn(file, name, "label", names)
		}
		if slices.Contains(several, name) {
			return "", nil, false, fmt.Errorf("%s: label column %q stands there twice", file, name)
		}
		several = append(several, name)
	}
	return several[0], several, false, nil
}

func missingColumn(file, column, what string, names []string) error {
	return fmt.Errorf("%s: no %s column %q: the file has %s", file, what, column, rows.BriefList(names))
}

// usual finds the likeliest of the usual names: exactly, else ignoring case.
func usual(names, likely []string) (string, bool) {
	for _, want := range likely {
		if slices.Contains(names, want) {
			return want, true
		}
	}
	for _, want := range likely {
		for _, name := range names {
			if strings.EqualFold(name, want) {
				return name, true
			}
		}
	}
	return "", false
}

func without(names []string, drop ...string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(drop, name) })
}
