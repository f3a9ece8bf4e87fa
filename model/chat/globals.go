package chat

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nikolalohinski/gonja/v2/exec"
)

func (b *budget) globals() map[string]any {
	return map[string]any{
		"namespace": namespace, "range": b.rangeOf,
		"dict": func(*exec.Evaluator, *exec.VarArgs) (any, error) { // the rewriter turns a call with names only into a dictionary
			return nil, errors.New("dict takes names and their values only")
		},
		"raise_exception": func(_ *exec.Evaluator, args *exec.VarArgs) (string, error) {
			b.raised = "the template refuses this chat"
			if len(args.Args) > 0 {
				b.raised = args.Args[0].String()
			}
			return "", errors.New(b.raised)
		},
		"strftime_now": func(_ *exec.Evaluator, args *exec.VarArgs) (string, error) {
			if len(args.Args) != 1 {
				return "", errors.New("strftime_now takes a format")
			}
			date, err := strftime(b.now, args.Args[0].String())
			if err != nil {
				return "", err
			}
			if err := checkSize(date); err != nil {
				return "", err
			}
			return date, b.produce(len(date))
		},
	}
}

// namespace makes the one kind of value that a template can change. No other value is a Go map.
func namespace(_ *exec.Evaluator, args *exec.VarArgs) (map[string]any, error) {
	if len(args.Args) > 0 {
		return nil, errors.New("namespace takes names and their values only")
	}
	ns := map[string]any{}
	for name, v := range args.KwArgs {
		ns[name] = v.Interface()
	}
	return ns, checkSize(ns)
}

// rangeOf is Python's range as a list.
func (b *budget) rangeOf(_ *exec.Evaluator, args *exec.VarArgs) ([]int, error) {
	from, to, step := 0, 0, 1
	for _, a := range args.Args {
		if !a.IsInteger() {
			return nil, errors.New("range takes whole numbers")
		}
	}
	switch len(args.Args) {
	case 1:
		to = args.Args[0].Integer()
	case 2, 3:
		from, to = args.Args[0].Integer(), args.Args[1].Integer()
		if len(args.Args) == 3 {
			step = args.Args[2].Integer()
		}
	default:
		return nil, errors.New("range takes one to three numbers")
	}
	if step == 0 {
		return nil, errors.New("range's step is 0")
	}
	list := []int{}
	for i := from; (step > 0 && i < to) || (step < 0 && i > to); i += step {
		if err := b.spend(1); err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	return list, nil
}

// strftime is Python's strftime for the directives that dates in prompts use, in English.
func strftime(t time.Time, format string) (string, error) {
	layouts := map[byte]string{'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'y': "06",
		'b': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'j': "002", 'Z': "MST", 'z': "-0700", 'e': "_2"}
	var out strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			out.WriteByte(format[i])
			continue
		}
		i++
		layout, ok := layouts[format[i]]
		switch {
		case format[i] == '%':
			out.WriteByte('%')
		case !ok:
			return "", fmt.Errorf("strftime_now: %%%c is not supported", format[i])
		default:
			out.WriteString(t.Format(layout))
		}
	}
	return out.String(), nil
}
