package chat

import (
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/exec"
)

// tuple is a list that prints with round brackets.
type tuple []any

func (t tuple) String() string {
	list := exec.AsValue([]any(t)).String()
	return "(" + list[1:len(list)-1] + ")"
}

var dictMethods = map[string]func(d *exec.Dict, args *exec.VarArgs) (any, error){
	"items":  ofDict(func(d *exec.Dict) any { return items(d) }),
	"keys":   ofDict(func(d *exec.Dict) any { return keys(d) }),
	"values": ofDict(func(d *exec.Dict) any { return values(d) }),
	"copy":   ofDict(func(d *exec.Dict) any { return &exec.Dict{Pairs: slices.Clone(d.Pairs)} }),
	"get": func(d *exec.Dict, args *exec.VarArgs) (any, error) {
		a, err := arguments(args, 1, "", "")
		if err != nil {
			return nil, err
		}
		value, ok := lookup(d, a[0])
		if !ok && a[1] != nil {
			value = a[1]
		}
		return value.Interface(), nil
	},
}

var listMethods = map[string]func(list *exec.Value, args *exec.VarArgs) (any, error){
	"copy": func(list *exec.Value, args *exec.VarArgs) (any, error) {
		if _, err := arguments(args, 0); err != nil {
			return nil, err
		}
		return elements(list)
	},
}

func ofDict(f func(d *exec.Dict) any) func(d *exec.Dict, args *exec.VarArgs) (any, error) {
	return func(d *exec.Dict, args *exec.VarArgs) (any, error) {
		if _, err := arguments(args, 0); err != nil {
			return nil, err
		}
		return f(d), nil
	}
}

// lookup finds a key's value, undefined where there is none.
func lookup(d *exec.Dict, key *exec.Value) (*exec.Value, bool) {
	for _, p := range d.Pairs {
		if p.Key.EqualValueTo(key) {
			return p.Value, true
		}
	}
	return exec.AsValue(nil), false
}

func keys(d *exec.Dict) []any {
	list := make([]any, len(d.Pairs))
	for i, p := range d.Pairs {
		list[i] = p.Key.Interface()
	}
	return list
}

func values(d *exec.Dict) []any {
	list := make([]any, len(d.Pairs))
	for i, p := range d.Pairs {
		list[i] = p.Value.Interface()
	}
	return list
}

func items(d *exec.Dict) []any {
	list := make([]any, len(d.Pairs))
	for i, p := range d.Pairs {
		list[i] = tuple{p.Key.Interface(), p.Value.Interface()}
	}
	return list
}

// elements are what a loop meets: characters, elements or keys; nothing if the value is undefined.
func elements(v *exec.Value) ([]any, error) {
	dict, isDict := v.Interface().(*exec.Dict)
	switch {
	case v.IsNil():
		return []any{}, nil
	case isDict:
		return keys(dict), nil
	case v.IsString():
		return characters(v.String())
	case v.IsList():
		list := make([]any, v.Len())
		for i := range list {
			list[i] = v.Index(i).Interface()
		}
		return list, nil
	}
	return nil, fmt.Errorf("%s has no elements", kind(v))
}

func characters(s string) ([]any, error) {
	n := utf8.RuneCountInString(s)
	if n > maxElements {
		return nil, errTooLarge
	}
	list := make([]any, 0, n)
	for _, r := range s {
		list = append(list, string(r))
	}
	return list, nil
}

// reverseFilter turns a text or list around; the library's sorts it.
func reverseFilter(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	if _, err := arguments(params, 0); err != nil {
		return exec.AsValue(err)
	}
	if in.IsString() {
		runes := []rune(in.String())
		slices.Reverse(runes)
		return exec.AsValue(string(runes))
	}
	list, err := elements(in)
	if err != nil {
		return exec.AsValue(err)
	}
	slices.Reverse(list)
	return exec.AsValue(list)
}

// itemsFilter is the pairs of a dictionary; the library's are none.
func itemsFilter(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	if _, err := arguments(params, 0); err != nil {
		return exec.AsValue(err)
	}
	if in.IsNil() {
		return exec.AsValue([]any{})
	}
	dict, ok := in.Interface().(*exec.Dict)
	if !ok {
		return exec.AsValue(errors.New("takes a dictionary"))
	}
	return exec.AsValue(items(dict))
}

// dictSortFilter is the pairs of a dictionary in order.
func dictSortFilter(e *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	a, err := arguments(params, 0, "case_sensitive", "by", "reverse")
	if err != nil {
		return exec.AsValue(err)
	}
	dict, ok := in.Interface().(*exec.Dict)
	if !ok {
		return exec.AsValue(errors.New("takes a dictionary"))
	}
	by := "0"
	switch {
	case a[1] == nil || a[1].String() == "key":
	case a[1].String() == "value":
		by = "1"
	default:
		return exec.AsValue(errors.New("sorts by key or value"))
	}
	how := exec.NewVarArgs()
	how.KwArgs["attribute"] = exec.AsValue(by)
	how.KwArgs["case_sensitive"] = exec.AsValue(a[0] != nil && a[0].IsTrue())
	how.KwArgs["reverse"] = exec.AsValue(a[2] != nil && a[2].IsTrue())
	sorted, _ := builtins.Filters.Get("sort")
	return sorted(e, exec.AsValue(items(dict)), how)
}
