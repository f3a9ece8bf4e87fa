package chat

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/nikolalohinski/gonja/v2/builtins"
	control "github.com/nikolalohinski/gonja/v2/builtins/control_structures"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// Bounds of one rendering, far above what any chat needs.
const (
	maxSource  = 256 << 10 // bytes of a template
	maxNesting = 200       // brackets within brackets
	maxSteps   = 500_000   // statements executed and numbers of ranges
	maxDepth   = 64        // macros within macros, and lists within lists
	maxValue   = 8 << 20   // bytes and elements of a value
	maxOutput  = 16 << 20
	maxTime    = 10 * time.Second
)

// What of the library a template may use. The rest reads other templates, refers to itself without end, or
// lets a few characters ask for gigabytes; chat templates have no need of it.
var (
	allowedStatements = []string{"for", "if", "set", "macro", "call", "with", "filter", "raw", "do", "break", "continue"}
	allowedFilters    = []string{"abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "indent", "int",
		"items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "round",
		"safe", "select", "selectattr", "sort", "string", "sum", "title", "trim", "unique", "upper"}
	allowedStrings = []string{"capitalize", "count", "endswith", "find", "isalnum", "isalpha", "isdigit", "islower", "isspace", "isupper", "join",
		"lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rpartition", "rsplit", "rstrip", "split",
		"splitlines", "startswith", "strip", "title", "upper"}
	allowedDicts = []string{"get", "items", "keys", "values", "copy"}
	allowedLists = []string{"copy"}
)

// budget is what is left of one rendering's bounds.
type budget struct {
	now    time.Time
	end    time.Time
	steps  int
	depth  int
	raised string // message of the template's own error
}

func (b *budget) start(now time.Time) {
	*b = budget{now: now, end: time.Now().Add(maxTime)}
}

func (b *budget) spend(n int) error {
	if b.steps += n; b.steps > maxSteps || n < 0 {
		return fmt.Errorf("takes more than %d steps", maxSteps)
	}
	if time.Now().After(b.end) {
		return fmt.Errorf("takes longer than %v", maxTime)
	}
	return nil
}

func (b *budget) controlStructures() *exec.ControlStructureSet {
	set := map[string]parser.ControlStructureParser{"generation": b.generation}
	for _, name := range allowedStatements {
		inner, _ := builtins.ControlStructures.Get(name)
		set[name] = func(p, args *parser.Parser) (nodes.ControlStructure, error) {
			target := ""
			if token := args.Current(); token != nil && token.Type == tokens.Name {
				target = token.Val
			}
			cs, err := inner(p, args)
			if err != nil {
				return nil, err
			}
			if loop, ok := cs.(*control.ForControlStructure); ok && loop.Recursive {
				return nil, errors.New("recursive loops are not supported")
			}
			executed, ok := cs.(exec.ControlStructure)
			if !ok {
				return cs, nil
			}
			return &counted{executed, b, name, target}, nil
		}
	}
	return exec.NewControlStructureSet(set)
}

// counted is a statement that draws on the budget.
type counted struct {
	exec.ControlStructure
	budget *budget
	name   string
	target string // what a set or macro names
}

// Execute implements exec.ControlStructure.
func (c *counted) Execute(r *exec.Renderer, block *nodes.ControlStructureBlock) error {
	if err := c.budget.spend(1); err != nil {
		return err
	}
	if err := c.ControlStructure.Execute(r, block); err != nil {
		return err
	}
	value, _ := r.Environment.Context.Get(c.target)
	switch c.name {
	case "set":
		return checkSize(value)
	case "macro":
		if macro, ok := value.(exec.Macro); ok {
			r.Environment.Context.Set(c.target, c.budget.macro(macro))
		}
	}
	return nil
}

// macro bounds how deep macros call each other.
func (b *budget) macro(inner exec.Macro) exec.Macro {
	return func(params *exec.VarArgs) *exec.Value {
		b.depth++
		defer func() { b.depth-- }()
		if b.depth > maxDepth {
			return exec.AsValue(fmt.Errorf("macros call each other more than %d deep", maxDepth))
		}
		if err := b.spend(1); err != nil {
			return exec.AsValue(err)
		}
		return inner(params)
	}
}

// generation is the statement that marks the assistant's words for training masks; it renders its body.
func (b *budget) generation(p, args *parser.Parser) (nodes.ControlStructure, error) {
	at := p.Current()
	if !args.End() {
		return nil, errors.New("generation takes no arguments")
	}
	body, _, err := p.WrapUntil("endgeneration")
	return &generation{at, body}, err
}

type generation struct {
	at   *tokens.Token
	body *nodes.Wrapper
}

func (g *generation) Position() *tokens.Token { return g.at }
func (g *generation) String() string          { return "generation" }

// Execute implements exec.ControlStructure.
func (g *generation) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	return r.ExecuteWrapper(g.body)
}

func (b *budget) globals() map[string]any {
	namespace, _ := builtins.GlobalFunctions.Get("namespace")
	dict, _ := builtins.GlobalFunctions.Get("dict")
	return map[string]any{
		"namespace": namespace, "dict": dict, "range": b.rangeOf, fromEnd: itemFromEnd,
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
			return strftime(b.now, args.Args[0].String())
		},
	}
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

func (b *budget) filters() *exec.FilterSet {
	set := map[string]exec.FilterFunction{"tojson": toJSON}
	for _, name := range allowedFilters {
		inner, _ := builtins.Filters.Get(name)
		set[name] = func(e *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
			if in.IsError() {
				return in
			}
			if err := b.checkCall(in.Interface(), params); err != nil {
				return exec.AsValue(err)
			}
			return inner(e, in, params)
		}
	}
	return exec.NewFilterSet(set)
}

func (b *budget) methods() exec.Methods {
	all := builtins.Methods
	return exec.Methods{
		Bool: exec.NewMethodSet(map[string]exec.Method[bool]{}), Int: exec.NewMethodSet(map[string]exec.Method[int]{}),
		Float: exec.NewMethodSet(map[string]exec.Method[float64]{}),
		Str:   limit(b, all.Str, allowedStrings), Dict: limit(b, all.Dict, allowedDicts), List: limit(b, all.List, allowedLists),
	}
}

func limit[I any](b *budget, all *exec.MethodSet[I], allowed []string) *exec.MethodSet[I] {
	set := map[string]exec.Method[I]{}
	for _, name := range allowed {
		inner, _ := all.Get(name)
		set[name] = func(self I, value *exec.Value, args *exec.VarArgs) (any, error) {
			if err := b.checkCall(self, args); err != nil {
				return nil, err
			}
			return inner(self, value, args)
		}
	}
	return exec.NewMethodSet(set)
}

// checkCall refuses a filter or method whose result could be too large: it may hold its arguments once for
// every byte of what it is called on, and a width is an argument too.
func (b *budget) checkCall(in any, args *exec.VarArgs) error {
	if err := b.spend(1); err != nil {
		return err
	}
	n, err := size(in, 0)
	if err != nil {
		return err
	}
	most := 1
	count := func(v *exec.Value) error {
		m, err := size(v.Interface(), 0)
		if v.IsInteger() {
			m = max(v.Integer(), -v.Integer())
		}
		most = max(most, m)
		return err
	}
	for _, v := range args.Args {
		if err := count(v); err != nil {
			return err
		}
	}
	for _, v := range args.KwArgs {
		if err := count(v); err != nil {
			return err
		}
	}
	if n > maxValue || most > maxValue || (n+1)*most > 8*maxValue {
		return fmt.Errorf("a value grows beyond %d bytes", maxValue)
	}
	return nil
}

func checkSize(v any) error {
	n, err := size(v, 0)
	if err == nil && n > maxValue {
		err = fmt.Errorf("a value grows beyond %d bytes", maxValue)
	}
	return err
}

// size is about the bytes and elements of a value, counted no further than maxValue.
func size(v any, depth int) (int, error) {
	if depth > maxDepth {
		return 0, fmt.Errorf("values are nested more than %d deep", maxDepth)
	}
	if value, ok := v.(*exec.Value); ok {
		v = value.Interface()
	}
	if pairs, ok := v.(*exec.Dict); ok {
		total := 0
		for _, p := range pairs.Pairs {
			n, err := size(p.Value, depth+1)
			if total += n + 8; err != nil || total > maxValue {
				return total, err
			}
		}
		return total, nil
	}
	r := reflect.ValueOf(v)
	total := 8
	switch r.Kind() {
	case reflect.String:
		return r.Len(), nil
	case reflect.Slice, reflect.Array:
		for i := 0; i < r.Len() && total <= maxValue; i++ {
			n, err := size(r.Index(i).Interface(), depth+1)
			if err != nil {
				return 0, err
			}
			total += n
		}
	case reflect.Map:
		for it := r.MapRange(); it.Next() && total <= maxValue; {
			n, err := size(it.Value().Interface(), depth+1)
			if err != nil {
				return 0, err
			}
			total += n + len(fmt.Sprint(it.Key()))
		}
	}
	return total, nil
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
