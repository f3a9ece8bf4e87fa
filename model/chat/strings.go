package chat

import (
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"

	"github.com/nikolalohinski/gonja/v2/exec"
)

type stringMethod func(s string, args *exec.VarArgs) (any, error)

// stringMethods are Python's, as far as templates may call them.
var stringMethods = map[string]stringMethod{
	"capitalize": ofString(capitalize), "lower": ofString(lower), "upper": ofString(upper), "title": ofString(title),
	"isalnum": ofString(every(isAlphanumeric)), "isalpha": ofString(every(unicode.IsLetter)), "isdigit": ofString(every(isDigit)),
	"isspace": ofString(every(isSpace)), "islower": ofString(casedAs(isLower)), "isupper": ofString(casedAs(isUpper)),
	"strip": stripMethod(true, true), "lstrip": stripMethod(true, false), "rstrip": stripMethod(false, true),
	"removeprefix": cutMethod(strings.TrimPrefix), "removesuffix": cutMethod(strings.TrimSuffix),
	"startswith": affixMethod(strings.HasPrefix), "endswith": affixMethod(strings.HasSuffix),
	"find": findMethod(strings.Index), "rfind": findMethod(strings.LastIndex), "count": countMethod,
	"split": splitMethod(splitAt, splitSpace), "rsplit": splitMethod(splitAtFromEnd, splitSpaceFromEnd), "splitlines": splitLinesMethod,
	"partition": partitionMethod(strings.Index, false), "rpartition": partitionMethod(strings.LastIndex, true),
	"join": joinMethod, "replace": replaceMethod,
}

// ofString is a method without arguments.
func ofString[T any](f func(s string) T) stringMethod {
	return func(s string, args *exec.VarArgs) (any, error) {
		if _, err := arguments(args, 0); err != nil {
			return nil, err
		}
		return f(s), nil
	}
}

func lower(s string) string { return cases.Lower(language.Und).String(s) }

func upper(s string) string { return cases.Upper(language.Und).String(s) }

func capitalize(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	first := cases.Title(language.Und).String(s[:n])
	return first + strings.TrimPrefix(lower(s), lower(s[:n])) // what stands before a sigma decides how it is written
}

// title begins every run of letters with a capital.
func title(s string) string { return mapRuns(s, isCased, capitalize) }

// titleWords is the filter title, which begins words, not runs of letters, with a capital.
func titleWords(s string) string {
	inWord := func(r rune) bool { return !isSpace(r) && !strings.ContainsRune("-({[<", r) }
	return mapRuns(s, inWord, func(word string) string {
		_, n := utf8.DecodeRuneInString(word)
		return upper(word[:n]) + lower(word[n:])
	})
}

// mapRuns maps the longest parts of a text whose characters are all in a set.
func mapRuns(s string, in func(rune) bool, f func(run string) string) string {
	var out strings.Builder
	for s != "" {
		n := prefix(s, in)
		out.WriteString(f(s[:n]))
		s = s[n:]
		n = prefix(s, func(r rune) bool { return !in(r) })
		out.WriteString(s[:n])
		s = s[n:]
	}
	return out.String()
}

// prefix is how many bytes at the beginning of a text are characters of a set.
func prefix(s string, in func(rune) bool) int { return len(s) - len(strings.TrimLeftFunc(s, in)) }

func every(is func(rune) bool) func(string) bool {
	return func(s string) bool {
		return s != "" && strings.IndexFunc(s, func(r rune) bool { return !is(r) }) < 0
	}
}

// casedAs is whether a text has letters of a case and none of another.
func casedAs(is func(rune) bool) func(string) bool {
	return func(s string) bool {
		return strings.IndexFunc(s, is) >= 0 && strings.IndexFunc(s, func(r rune) bool { return isCased(r) && !is(r) }) < 0
	}
}

func isLower(r rune) bool { return unicode.In(r, unicode.Ll, unicode.Other_Lowercase) }

func isUpper(r rune) bool { return unicode.In(r, unicode.Lu, unicode.Other_Uppercase) }

func isCased(r rune) bool { return isLower(r) || isUpper(r) || unicode.Is(unicode.Lt, r) }

func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

func isDigit(r rune) bool { return unicode.In(r, unicode.Nd, digits) }

func isAlphanumeric(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) || isDigit(r) }

// digits are those that no number is written with: superscripts, and digits in circles or brackets.
var digits = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0xb2, Hi: 0xb3, Stride: 1}, {Lo: 0xb9, Hi: 0xb9, Stride: 1}, {Lo: 0x1369, Hi: 0x1371, Stride: 1},
		{Lo: 0x19da, Hi: 0x19da, Stride: 1}, {Lo: 0x2070, Hi: 0x2070, Stride: 1}, {Lo: 0x2074, Hi: 0x2079, Stride: 1},
		{Lo: 0x2080, Hi: 0x2089, Stride: 1}, {Lo: 0x2460, Hi: 0x2468, Stride: 1}, {Lo: 0x2474, Hi: 0x247c, Stride: 1},
		{Lo: 0x2488, Hi: 0x2490, Stride: 1}, {Lo: 0x24ea, Hi: 0x24ea, Stride: 1}, {Lo: 0x24f5, Hi: 0x24fd, Stride: 1},
		{Lo: 0x24ff, Hi: 0x24ff, Stride: 1}, {Lo: 0x2776, Hi: 0x277e, Stride: 1}, {Lo: 0x2780, Hi: 0x2788, Stride: 1},
		{Lo: 0x278a, Hi: 0x2792, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x10a40, Hi: 0x10a43, Stride: 1}, {Lo: 0x10e60, Hi: 0x10e68, Stride: 1},
		{Lo: 0x11052, Hi: 0x1105a, Stride: 1}, {Lo: 0x1f100, Hi: 0x1f10a, Stride: 1},
	},
	LatinOffset: 2,
}

func stripMethod(left, right bool) stringMethod {
	return func(s string, args *exec.VarArgs) (any, error) {
		a, err := arguments(args, 0, "")
		if err != nil {
			return nil, err
		}
		return strip(s, a[0], left, right)
	}
}

// strip takes characters off the ends: white space if no others are given.
func strip(s string, chars *exec.Value, left, right bool) (string, error) {
	off := isSpace
	if !none(chars) {
		list, err := text(chars)
		if err != nil {
			return "", err
		}
		set := map[rune]bool{}
		for _, r := range list {
			set[r] = true
		}
		off = func(r rune) bool { return set[r] }
	}
	if left {
		s = strings.TrimLeftFunc(s, off)
	}
	if right {
		s = strings.TrimRightFunc(s, off)
	}
	return s, nil
}

func cutMethod(cut func(s, affix string) string) stringMethod {
	return func(s string, args *exec.VarArgs) (any, error) {
		a, err := arguments(args, 1, "")
		if err != nil {
			return nil, err
		}
		affix, err := text(a[0])
		return cut(s, affix), err
	}
}

// affixMethod looks for one affix, or any of a tuple's.
func affixMethod(has func(s, affix string) bool) stringMethod {
	return func(s string, args *exec.VarArgs) (any, error) {
		a, err := arguments(args, 1, "", "", "")
		if err != nil {
			return nil, err
		}
		part, _, ok, err := window(s, a[1], a[2])
		if err != nil {
			return nil, err
		}
		affixes := []*exec.Value{a[0]}
		if a[0].IsList() {
			affixes = nil
			for i := range a[0].Len() {
				affixes = append(affixes, a[0].Index(i))
			}
		}
		for _, v := range affixes {
			affix, err := text(v)
			if err != nil {
				return nil, err
			}
			if ok && has(part, affix) {
				return true, nil
			}
		}
		return false, nil
	}
}

func findMethod(index func(s, sub string) int) stringMethod {
	return func(s string, args *exec.VarArgs) (any, error) {
		sub, part, from, ok, err := search(s, args)
		if err != nil || !ok {
			return -1, err
		}
		i := index(part, sub)
		if i < 0 {
			return -1, nil
		}
		return from + utf8.RuneCountInString(part[:i]), nil
	}
}

func countMethod(s string, args *exec.VarArgs) (any, error) {
	sub, part, _, ok, err := search(s, args)
	if err != nil || !ok {
		return 0, err
	}
	return strings.Count(part, sub), nil
}

// search reads the arguments of a search: what for, and the window of the text.
func search(s string, args *exec.VarArgs) (sub, part string, from int, ok bool, err error) {
	a, err := arguments(args, 1, "", "", "")
	if err != nil {
		return "", "", 0, false, err
	}
	if sub, err = text(a[0]); err != nil {
		return "", "", 0, false, err
	}
	part, from, ok, err = window(s, a[1], a[2])
	return sub, part, from, ok, err
}

// window is s[start:end] and where it begins, in characters. It is no window where it ends before it begins.
func window(s string, start, end *exec.Value) (part string, from int, ok bool, err error) {
	if none(start) && none(end) {
		return s, 0, true, nil
	}
	runes := []rune(s)
	if from, err = bound(start, 0, len(runes)); err != nil {
		return "", 0, false, err
	}
	to, err := bound(end, len(runes), len(runes))
	if to = min(to, len(runes)); err != nil || from > to {
		return "", 0, false, err
	}
	return string(runes[from:to]), from, true, nil
}

func bound(v *exec.Value, otherwise, n int) (int, error) {
	i, err := integer(v, otherwise)
	if i < 0 {
		i = max(i+n, 0)
	}
	return i, err
}

func replaceMethod(s string, args *exec.VarArgs) (any, error) {
	a, err := arguments(args, 2, "", "", "")
	if err != nil {
		return nil, err
	}
	old, err := text(a[0])
	if err != nil {
		return nil, err
	}
	by, err := text(a[1])
	if err != nil {
		return nil, err
	}
	most, err := integer(a[2], -1)
	if err != nil {
		return nil, err
	}
	return replace(s, old, by, most)
}

// replace refuses a result that is too large before it is made.
func replace(s, old, by string, most int) (string, error) {
	n := strings.Count(s, old)
	if most >= 0 {
		n = min(n, most)
	}
	if len(s)+n*(len(by)-len(old)) > maxValue {
		return "", errTooLarge
	}
	return strings.Replace(s, old, by, n), nil
}

func joinMethod(s string, args *exec.VarArgs) (any, error) {
	a, err := arguments(args, 1, "")
	if err != nil {
		return nil, err
	}
	list, err := elements(a[0])
	if err != nil {
		return nil, err
	}
	parts, total := make([]string, len(list)), 0
	for i, v := range list {
		part, ok := v.(string)
		if !ok {
			return nil, errors.New("joins texts only")
		}
		if total += len(part) + len(s); total > maxValue {
			return nil, errTooLarge
		}
		parts[i] = part
	}
	return strings.Join(parts, s), nil
}

func partitionMethod(index func(s, sep string) int, last bool) stringMethod {
	return func(s string, args *exec.VarArgs) (any, error) {
		a, err := arguments(args, 1, "")
		if err != nil {
			return nil, err
		}
		sep, err := separator(a[0])
		if err != nil {
			return nil, err
		}
		parts := tuple{s, "", ""}
		if i := index(s, sep); i >= 0 {
			parts = tuple{s[:i], sep, s[i+len(sep):]}
		} else if last {
			slices.Reverse(parts)
		}
		return parts, nil
	}
}

func separator(v *exec.Value) (string, error) {
	sep, err := text(v)
	if err == nil && sep == "" {
		err = errors.New("the separator is empty")
	}
	return sep, err
}
