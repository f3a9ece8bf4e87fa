package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/parquet-go/parquet-go"
)

// wideFiles are files that hold one row that is as long as rows may be, and a few usual ones.
func wideFiles() []string {
	return []string{"wide.csv", "wide.jsonl", "wide.json", "wide.tsv", "wide.txt", "wide-word.txt", "wide-accents.txt", "wide-accents.csv", "wide.parquet"}
}

// makeLarge makes those of the inputs that a load test brings and that are made when they are asked for, once.
func (h *harness) makeLarge(needs string) error {
	for _, name := range strings.Fields(needs) {
		write := h.maker(name)
		if _, err := os.Stat(h.at(name)); err == nil || write == nil {
			continue
		}
		if err := makeFile(h.at(name), write); err != nil {
			return err
		}
	}
	return nil
}

func makeFile(path string, write func(w io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	return errors.Join(write(w), w.Flush())
}

// review is one row of Parquet.
type review struct {
	Text  string `parquet:"text"`
	Label string `parquet:"label"`
}

// maker writes a large input; nil: it is none of those.
func (h *harness) maker(name string) func(w io.Writer) error {
	rows := h.scaled(loadRows)
	switch name {
	case "million.csv":
		return func(w io.Writer) error {
			_, err := io.WriteString(w, "text,label\n")
			return errors.Join(err, reviews(rows, func(r review) error {
				_, err := fmt.Fprintf(w, "%s,%s\n", r.Text, r.Label)
				return err
			}))
		}
	case "million.parquet":
		return func(w io.Writer) error {
			p := parquet.NewGenericWriter[review](w, parquet.MaxRowsPerRowGroup(100_000), parquet.Compression(&parquet.Snappy))
			err := reviews(rows, func(r review) error {
				_, err := p.Write([]review{r})
				return err
			})
			return errors.Join(err, p.Close())
		}
	case "tokens.jsonl":
		return func(w io.Writer) error { // of letters, each of which is a token, in rows that the model reads the whole of
			row := `{"text": "` + strings.TrimSpace(strings.Repeat("a b c d e g k m ", 4)) + "\"}\n" // 64 and more
			for left := h.scaled(loadIDs); left > 0; left -= 50 {
				if _, err := io.WriteString(w, row); err != nil {
					return err
				}
			}
			return nil
		}
	case "wide.parquet":
		return func(w io.Writer) error {
			p := parquet.NewGenericWriter[review](w)
			_, err := p.Write([]review{{"good", "LABEL_0"}, {longText("good film ", h.scaled(wideRow)), "LABEL_1"}, {"bad", "LABEL_2"}})
			return errors.Join(err, p.Close())
		}
	}
	if f, ok := wideFormats[name]; ok {
		return func(w io.Writer) error {
			texts := []string{"good", longText(f.of, h.scaled(wideRow)), "bad"}
			for i, text := range texts {
				texts[i] = f.before + text + f.after
			}
			_, err := io.WriteString(w, f.head+strings.Join(texts, f.between)+f.tail)
			return err
		}
	}
	return nil
}

// wideFormats are how a file is written in which one row is long: what comes before all rows, around each, between and
// behind them, and what the long text repeats.
var wideFormats = map[string]struct{ head, before, after, between, tail, of string }{
	"wide.csv":          {"text,label\n", `"`, `",LABEL_0`, "\n", "\n", "good film "},
	"wide.tsv":          {"text\tlabel\n", "", "\tLABEL_0", "\n", "\n", "good film "},
	"wide.jsonl":        {"", `{"text": "`, `", "label": "LABEL_0"}`, "\n", "\n", "good film "},
	"wide.json":         {"[", `{"text": "`, `", "label": "LABEL_0"}`, ",\n", "]\n", "good film "},
	"wide.txt":          {"", "", "", "\n", "\n", "good film "},
	"wide-word.txt":     {"", "", "", "\n", "\n", "film"},
	"wide-accents.txt":  {"", "", "", "\n", "\n", "très élégant, Schöner Film "},
	"wide-accents.csv":  {"text,label\n", `"`, `",LABEL_0`, "\n", "\n", "très élégant, Schöner Film "},
	"wide-prompt.jsonl": {"", `{"prompt": "`, `"}`, "\n", "\n", "the film "},
}

// longText is some n bytes of a phrase, the whole of it each time.
func longText(phrase string, n int) string { return strings.Repeat(phrase, n/len(phrase)+1) }

// reviews gives n rows of a few words, of three classes.
func reviews(n int, give func(review) error) error {
	r := rand.New(rand.NewPCG(11, 11))
	words := strings.Fields("the a good bad film plot was is very not")
	var text []string
	for range n {
		class := r.IntN(3)
		text = text[:0]
		for range 3 + r.IntN(8) {
			text = append(text, words[r.IntN(len(words))])
		}
		text = append(text, []string{"no", "so", "yes"}[class])
		if err := give(review{strings.Join(text, " "), fmt.Sprint("LABEL_", class)}); err != nil {
			return err
		}
	}
	return nil
}
