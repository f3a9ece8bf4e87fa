package data

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopeft/train/data/rows"
)

// Template makes text of a row: {column} stands for a column's text, {{ and }}
// for braces; \n, \t and \\ are what they are in Go, so that a template fits on
// a command line.
type Template struct {
	source string
	pieces []piece
}

// piece is literal text, or a column.
type piece struct{ text, column string }

// ParseTemplate reads a template.
func ParseTemplate(s string) (Template, error) {
	t := Template{source: s}
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			t.pieces = append(t.pieces, piece{text: text.String()})
			text.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		doubled := i+1 < len(s) && s[i+1] == c
		switch {
		case (c == '{' || c == '}') && doubled:
			text.WriteByte(c)
			i++
		case c == '}':
			return Template{}, fmt.Errorf("template %q: } without { at byte %d: write }} for a brace", s, i)
		case c == '{':
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return Template{}, fmt.Errorf("template %q: { without } at byte %d: write {{ for a brace", s, i)
			}
			name := s[i+1 : i+end]
			if name == "" || strings.Contains(name, "{") {
				return Template{}, fmt.Errorf("template %q: no column name at byte %d", s, i)
			}
			flush()
			t.pieces = append(t.pieces, piece{column: name})
			i += end
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`nt\`, s[i+1]) >= 0:
			i++
			text.WriteByte(map[byte]byte{'n': '\n', 't': '\t', '\\': '\\'}[s[i]])
		default:
			text.WriteByte(c)
		}
	}
	flush()
	return t, nil
}

// SplitTemplate reads a template that holds prompt and answer: the answer is the
// last column and what follows it, so "{mr} -> {ref}" asks "{mr} -> " and answers
// "{ref}".
func SplitTemplate(s string) (prompt, answer Template, err error) {
	t, err := ParseTemplate(s)
	if err != nil {
		return prompt, answer, err
	}
	for i := len(t.pieces) - 1; i >= 0; i-- {
		if t.pieces[i].column == "" {
			continue
		}
		prompt = Template{source: s, pieces: t.pieces[:i]}
		answer = Template{source: s, pieces: t.pieces[i:]}
		return prompt, answer, nil
	}
	return prompt, answer, fmt.Errorf("template %q: no {column} in it", s)
}

// Columns lists the columns used, each once, in order of appearance.
func (t Template) Columns() []string {
	var names []string
	for _, p := range t.pieces {
		if p.column != "" && !slices.Contains(names, p.column) {
			names = append(names, p.column)
		}
	}
	return names
}

// SplitAt divides a template at the first place where a column stands, which is in neither part; ok tells whether there is one.
func (t Template) SplitAt(column string) (before, behind Template, ok bool) {
	at := slices.Index(t.pieces, piece{column: column})
	if at < 0 {
		return t, Template{source: t.source}, false
	}
	return Template{t.source, t.pieces[:at]}, Template{t.source, t.pieces[at+1:]}, true
}

// Rename gives a template in which columns have other names.
func (t Template) Rename(names map[string]string) Template {
	out := Template{pieces: slices.Clone(t.pieces)}
	for i, p := range out.pieces {
		if name, ok := names[p.column]; ok {
			out.pieces[i].column = name
		}
	}
	out.source = out.String()
	return out
}

// String is text that ParseTemplate reads as the same template.
func (t Template) String() string {
	var b strings.Builder
	escape := strings.NewReplacer("{", "{{", "}", "}}", "\n", `\n`, "\t", `\t`, `\`, `\\`)
	for _, p := range t.pieces {
		if p.column != "" {
			b.WriteString("{" + p.column + "}")
		}
		b.WriteString(escape.Replace(p.text))
	}
	return b.String()
}

// Fill fills the template from values by column; what has none is left out.
func (t Template) Fill(values map[string]string) string {
	var b strings.Builder
	for _, p := range t.pieces {
		b.WriteString(p.text + values[p.column])
	}
	return b.String()
}

// Render fills the template from a row. A column the row lacks, or that holds no
// text, is a *rows.Error.
func (t Template) Render(row rows.Row) (string, error) {
	var b strings.Builder
	for _, p := range t.pieces {
		b.WriteString(p.text)
		if p.column == "" {
			continue
		}
		text, err := row.Text(p.column)
		if err != nil {
			var bad *rows.Error
			if errors.As(err, &bad) {
				bad.Err = fmt.Errorf("template %q: %w", t.source, bad.Err)
			}
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}
