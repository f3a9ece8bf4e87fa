package prompted

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopeft/train"
)

func TestTemplatesAreWritten(t *testing.T) {
	words := []string{"bad", "good"}
	for _, c := range []struct{ source, ask, example string }{
		{`Review: {text}\nSentiment: {label}`, "Review: x y\nSentiment: ", "Review: x y\nSentiment: good\n\n"},
		{`{sentence} is {rating}.\n`, "x y is ", "x y is good.\n"},
		{`{{{labels}}} {text}{label}`, "{bad, good} x y", "{bad, good} x ygood\n\n"},
		{`tab\t{text} \\n {label}!`, "tab\tx y \\n ", "tab\tx y \\n good!\n\n"},
	} {
		parsed, err := ParseTemplate(c.source, Columns{"sentence", "rating"})
		if err != nil {
			t.Errorf("%s: %v", c.source, err)
			continue
		}
		again, err := ParseTemplate(parsed.String(), Columns{}) // as a run's prompt has it
		if err != nil {
			t.Errorf("%s, written again as %s: %v", c.source, parsed, err)
			continue
		}
		for _, p := range []Template{parsed, again} {
			if got := p.ask("x y", words); got != c.ask {
				t.Errorf("%s asks %q, want %q", c.source, got, c.ask)
			}
			if got := p.example("x y", "good", words); got != c.example {
				t.Errorf("%s: example %q, want %q", c.source, got, c.example)
			}
		}
	}
}

func TestTemplatesThatCannotBeUsed(t *testing.T) {
	for source, want := range map[string]string{
		"{text}":                 "no {label}",
		"{label}":                "no {text}",
		"{label} {text}":         "{text} stands behind {label}",
		"{text} {label} {label}": "{label} stands behind {label}",
		"{text} {title} {label}": "no {title}",
		"{text {label}":          "no column name",
		"{text} {label":          "{ without }",
	} {
		if _, err := ParseTemplate(source, Columns{Text: "sentence"}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}

func TestTemplatesOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "templates.txt")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("\n{text} {label}\r\n\n{text}: {label}")
	if all, err := ReadTemplates(path, Columns{}); err != nil || len(all) != 2 || all[0].String() != "{text} {label}" {
		t.Errorf("%v, %v", all, err)
	}
	for text, want := range map[string]string{"": "holds no template", " \n\n": "holds no template", "{text} {label}\n{text}\n": "line 2"} {
		write(text)
		_, err := ReadTemplates(path, Columns{})
		if usage := (*train.UsageError)(nil); !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if _, err := ReadTemplates(path+"x", Columns{}); err == nil || !strings.Contains(err.Error(), path+"x") {
		t.Errorf("no file: %v", err)
	}
	if all, err := ReadTemplates("", Columns{}); err != nil || len(all) < 4 {
		t.Errorf("our own: %d, %v", len(all), err)
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		labels, words []string
		want, note    string
	}{
		{[]string{"negative", "positive"}, nil, "negative positive", ""},
		{[]string{"0", "1"}, nil, "0 1", "bare numbers"},
		{[]string{"0", "1"}, []string{"negative", "positive"}, "negative positive", "0 is negative, 1 is positive"},
	} {
		words, note, err := (Settings{Words: c.words}).WordsOf(c.labels)
		if err != nil || strings.Join(words, " ") != c.want || !strings.Contains(note, c.note) || (note == "") != (c.note == "") {
			t.Errorf("%v: %v, %q, %v", c, words, note, err)
		}
	}
	if _, _, err := (Settings{Words: []string{"a", "b", "c"}}).WordsOf([]string{"0", "1"}); err == nil || !strings.Contains(err.Error(), "3 words for 2 labels") {
		t.Error(err)
	}
	for want, s := range map[string]Settings{"word 2 is empty": {Draws: 1, Words: []string{"a", " "}}, "twice": {Draws: 1, Words: []string{"a", "a"}}, "--shots is -1": {Shots: -1, Draws: 1}, "--shot-draws is 0": {}} {
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", s, err, want)
		}
	}
	if err := Defaults().Check(); err != nil {
		t.Error(err)
	}
}
