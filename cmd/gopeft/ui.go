package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"gopeft/train"
)

// newUI returns what shows notes and progress on standard error: a progress bar on a terminal, plain lines elsewhere,
// nothing with --quiet, nor for the processes of a run but the first.
func newUI(c *cli.Context) train.UI {
	rank, _ := c.App.Metadata[rankKey].(int)
	if c.Bool("quiet") || rank > 0 && !c.Bool("debug") {
		return train.Quiet{}
	}
	w := c.App.ErrWriter
	f, ok := w.(*os.File)
	plain := &ui{w: w, terminal: ok && term.IsTerminal(int(f.Fd()))}
	if rank > 0 {
		return rankUI{plain, rank}
	}
	return plain
}

type ui struct {
	w        io.Writer
	terminal bool
	bar      *progressbar.ProgressBar
	phase    string
	begun    time.Time
	from     int // how much was done when the phase began here; above 0 in a resumed run
	said     time.Time
}

// Note implements train.UI.
func (u *ui) Note(format string, args ...any) {
	if u.bar != nil {
		_ = u.bar.Clear()
	}
	fmt.Fprintln(u.w, printable(fmt.Sprintf(format, args...)))
}

// Progress implements train.UI.
func (u *ui) Progress(phase string, done, total int, detail string) {
	if u.phase != phase {
		u.phase, u.begun, u.said, u.from = phase, time.Now(), time.Now(), done
		if u.terminal {
			u.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(u.w), progressbar.OptionSetDescription(phase),
				progressbar.OptionSetPredictTime(true), progressbar.OptionShowCount(), progressbar.OptionThrottle(100*time.Millisecond),
				progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth())
		}
	}
	switch {
	case u.terminal:
		u.bar.Describe(printable(strings.TrimSpace(phase + "  " + detail)))
		_ = u.bar.Set(done)
	case time.Since(u.said) > 15*time.Second && u.from < done && done < total:
		u.said = time.Now()
		left := time.Duration(float64(time.Since(u.begun)) / float64(done-u.from) * float64(total-done)).Round(time.Second)
		fmt.Fprintln(u.w, printable(fmt.Sprintf("%s %d/%d, %s left  %s", phase, done, total, left, detail)))
	}
	if done >= total {
		u.phase, u.bar = "", nil
	}
}

// oneLine is an error's text as one line of bounded length; joined errors have a line each.
func oneLine(err error) string { return shortened(wholeLine(err)) }

// maxLine is how many characters of an error are shown. Its beginning says what went wrong, its end what to do.
const maxLine = 490

func shortened(line string) string {
	r := []rune(line)
	if len(r) <= maxLine {
		return line
	}
	const end = 150
	return string(r[:maxLine-end-3]) + " … " + string(r[len(r)-end:])
}

// printable shows characters that would steer a terminal as they are written in Go: texts from files come into messages.
func printable(text string) string {
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[0])
		case r != '\n' && r != '\t' && unicode.IsControl(r):
			fmt.Fprintf(&b, `\x%02x`, r)
		case unicode.Is(unicode.Bidi_Control, r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteString(text[:n])
		}
		text = text[n:]
	}
	return b.String()
}

func wholeLine(err error) string {
	var lines []string
	for _, l := range strings.Split(err.Error(), "\n") {
		if l = strings.TrimSpace(l); l != "" {
			lines = append(lines, l)
		}
	}
	return printable(strings.Join(lines, "; "))
}

// printJSON writes v as one object.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

var errNoModel = errors.New("--model is missing: give a model folder, a run's folder, or a name on the hub")
