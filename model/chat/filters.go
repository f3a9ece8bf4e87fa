package chat

import (
	"slices"
	"strings"

	"github.com/nikolalohinski/gonja/v2/builtins"
	"github.com/nikolalohinski/gonja/v2/exec"
)

// The library's filters that a template may use. Of the others some let a few characters ask for gigabytes;
// chat templates have no need of them.
var allowedFilters = []string{"abs", "count", "d", "default", "e", "escape", "first", "float", "indent", "int", "join", "last", "length",
	"list", "map", "max", "min", "reject", "rejectattr", "round", "safe", "select", "selectattr", "sort", "string", "sum", "unique"}

// overElements are filters that go over elements. Of a string the library would give them bytes, not characters.
var overElements = []string{"join", "list", "map", "max", "min", "reject", "rejectattr", "select", "selectattr", "sort", "sum", "unique"}

func (b *budget) filters() *exec.FilterSet {
	set := b.operators()
	for name, f := range map[string]exec.FilterFunction{
		"capitalize": textFilter(capitalize), "lower": textFilter(lower), "upper": textFilter(upper), "title": textFilter(titleWords),
		"trim": trimFilter, "replace": replaceFilter, "reverse": reverseFilter, "items": itemsFilter, "dictsort": dictSortFilter, "tojson": toJSON,
	} {
		set[name] = b.bounded(f)
	}
	for _, name := range allowedFilters {
		f, _ := builtins.Filters.Get(name)
		if slices.Contains(overElements, name) {
			f = b.elementwise(f)
		}
		set[name] = b.bounded(grown(name, f))
	}
	return exec.NewFilterSet(set)
}

func (b *budget) elementwise(f exec.FilterFunction) exec.FilterFunction {
	return func(e *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
		if in.IsString() {
			if in = b.each(e, in, nil); in.IsError() {
				return in
			}
		}
		return f(e, in, params)
	}
}

// grown refuses what would be too large before a filter makes it.
func grown(name string, f exec.FilterFunction) exec.FilterFunction {
	return func(e *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
		added := 0
		switch name {
		case "join":
			added = in.Len() * len(argument(params, "d").String())
		case "indent":
			width := argument(params, "width")
			n := len(width.String())
			if width.IsInteger() {
				n = min(max(width.Integer(), 0), maxValue)
			}
			added = (1 + strings.Count(in.String(), "\n")) * n
		}
		if added > maxValue {
			return exec.AsValue(errTooLarge)
		}
		return f(e, in, params)
	}
}

// argument is a filter's first, undefined if it is not given.
func argument(params *exec.VarArgs, name string) *exec.Value {
	if v, ok := params.KwArgs[name]; ok {
		return v
	}
	return params.First()
}

func textFilter(f func(s string) string) exec.FilterFunction {
	return func(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
		if _, err := arguments(params, 0); err != nil {
			return exec.AsValue(err)
		}
		return exec.AsValue(f(in.String()))
	}
}

func trimFilter(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	a, err := arguments(params, 0, "chars")
	if err != nil {
		return exec.AsValue(err)
	}
	return result(strip(in.String(), a[0], true, true))
}

func replaceFilter(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	a, err := arguments(params, 2, "old", "new", "count")
	if err != nil {
		return exec.AsValue(err)
	}
	most, err := integer(a[2], -1)
	if err != nil {
		return exec.AsValue(err)
	}
	return result(replace(in.String(), a[0].String(), a[1].String(), most))
}

func result(v any, err error) *exec.Value {
	if err != nil {
		return exec.AsValue(err)
	}
	return exec.AsValue(v)
}
