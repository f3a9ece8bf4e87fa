package chat

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// splitMethod splits a text at a separator or, without one, at white space, no more than maxsplit times.
func splitMethod(at func(s, sep string, most int) []string, space func(s string, most int) []string) stringMethod {
	return func(s string, args *exec.VarArgs) (any, error) {
		a, err := arguments(args, 0, "sep", "maxsplit")
		if err != nil {
			return nil, err
		}
		most, err := integer(a[1], -1)
		if err != nil {
			return nil, err
		}
		if most < 0 || most > maxElements {
			most = maxElements
		}
		if none(a[0]) {
			return pieces(space(s, most))
		}
		sep, err := separator(a[0])
		if err != nil {
			return nil, err
		}
		return pieces(at(s, sep, most))
	}
}

func pieces(parts []string) (any, error) {
	if len(parts) > maxElements {
		return nil, errTooLarge
	}
	list := make([]any, len(parts))
	for i, p := range parts {
		list[i] = p
	}
	return list, nil
}

func splitAt(s, sep string, most int) []string { return strings.SplitN(s, sep, most+1) }

func splitAtFromEnd(s, sep string, most int) []string {
	var parts []string
	for len(parts) < most {
		i := strings.LastIndex(s, sep)
		if i < 0 {
			break
		}
		parts = append(parts, s[i+len(sep):])
		s = s[:i]
	}
	parts = append(parts, s)
	slices.Reverse(parts)
	return parts
}

// splitSpace splits at runs of white space; what is left after the last split keeps its end.
func splitSpace(s string, most int) []string {
	var parts []string
	for s = strings.TrimLeftFunc(s, isSpace); s != ""; s = strings.TrimLeftFunc(s, isSpace) {
		i := strings.IndexFunc(s, isSpace)
		if i < 0 || len(parts) == most {
			return append(parts, s)
		}
		parts = append(parts, s[:i])
		s = s[i:]
	}
	return parts
}

func splitSpaceFromEnd(s string, most int) []string {
	var parts []string
	for s = strings.TrimRightFunc(s, isSpace); s != ""; s = strings.TrimRightFunc(s, isSpace) {
		i := strings.LastIndexFunc(s, isSpace)
		if i < 0 || len(parts) == most {
			parts = append(parts, s)
			break
		}
		_, n := utf8.DecodeRuneInString(s[i:])
		parts = append(parts, s[i+n:])
		s = s[:i]
	}
	slices.Reverse(parts)
	return parts
}

func splitLinesMethod(s string, args *exec.VarArgs) (any, error) {
	a, err := arguments(args, 0, "keepends")
	if err != nil {
		return nil, err
	}
	return pieces(splitLines(s, a[0] != nil && a[0].IsTrue()))
}

func splitLines(s string, keep bool) []string {
	var lines []string
	for s != "" && len(lines) <= maxElements {
		end := strings.IndexFunc(s, isLineBreak)
		if end < 0 {
			return append(lines, s)
		}
		_, n := utf8.DecodeRuneInString(s[end:])
		if strings.HasPrefix(s[end:], "\r\n") {
			n = 2
		}
		line := s[:end]
		if keep {
			line = s[:end+n]
		}
		lines = append(lines, line)
		s = s[end+n:]
	}
	return lines
}

func isLineBreak(r rune) bool {
	return r >= '\n' && r <= '\r' || r >= 0x1c && r <= 0x1e || r == 0x85 || r == 0x2028 || r == 0x2029
}
