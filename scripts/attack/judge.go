package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// longestLine is how many characters an error may have.
const longestLine = 500

// judge notes what is wrong with how a command ended that nobody has disturbed.
func (c *attempt) judge(r result, l limits) {
	for _, text := range verdicts(r, l) {
		c.find("gopeft %s: %s", first(r.args), text)
	}
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// verdicts are what is wrong with how a command ended.
func verdicts(r result, l limits) (found []string) {
	wrong := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	switch {
	case r.late:
		wrong("it had not ended after %v", l.time)
		return found
	case r.signal != "":
		wrong("it was ended by %s", r.signal)
	case r.code == 70:
		wrong("it exits with 70, a fault of its own")
	case !slices.Contains([]int{0, 1, 2, 130}, r.code):
		wrong("it exits with %d", r.code)
	}
	if l.memory > 0 && r.memory > l.memory {
		wrong("it took %d MB", r.memory>>10)
	}
	return append(found, saidWrong(r)...)
}

// dumps begin what no user should see.
var dumps = []string{"goroutine ", "panic:", "fatal error:", "SIGSEGV", "terminate called", "frame #", "Exception raised from", "runtime:"}

// saidWrong is what is wrong with what a command has said on standard error, with --quiet.
func saidWrong(r result) (found []string) {
	for _, dump := range dumps {
		if strings.Contains(r.stderr, dump) {
			return []string{fmt.Sprintf("it shows a dump (%q)", dump)}
		}
	}
	lines := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
	switch {
	case r.code == 0 && r.stderr != "":
		found = append(found, fmt.Sprintf("it succeeds and says %q", cut(r.stderr)))
	case r.code > 0 && (len(lines) != 1 || !strings.HasPrefix(lines[0], "gopeft: ") || !strings.HasSuffix(r.stderr, "\n")):
		found = append(found, fmt.Sprintf("its error is not one line: %q", cut(r.stderr)))
	}
	for _, line := range lines {
		if n := utf8.RuneCountInString(line); n > longestLine {
			found = append(found, fmt.Sprintf("a line of %d characters", n))
		}
		if strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) || !utf8.ValidString(line) {
			found = append(found, fmt.Sprintf("control characters in %q", cut(line)))
		}
	}
	return found
}

func cut(text string) string { return text[:min(len(text), 300)] }
