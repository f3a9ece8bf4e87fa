package chat

import (
	"errors"
	"fmt"
	"math"

	"github.com/nikolalohinski/gonja/v2/exec"
)

// operators are what the rewriter puts in place of the library's operations.
func (b *budget) operators() map[string]exec.FilterFunction {
	return map[string]exec.FilterFunction{
		opItem: b.item, opEach: b.each,
		opCall: b.bounded(method), opAdd: b.bounded(add), opConcat: b.bounded(concat), opNew: b.bounded(newCollection),
		opDivide: b.divided(opDivide), opFloor: b.divided(opFloor), opModulo: b.divided(opModulo),
	}
}

// bounded takes a step and the result off the budget. Errors pass through.
func (b *budget) bounded(f exec.FilterFunction) exec.FilterFunction {
	return func(e *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
		if in.IsError() {
			return in
		}
		if err := b.spend(1); err != nil {
			return exec.AsValue(err)
		}
		return b.checked(f(e, in, params))
	}
}

// item is in[key], undefined where there is none.
func (b *budget) item(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	if in.IsError() {
		return in
	}
	if err := b.spend(1); err != nil {
		return exec.AsValue(err)
	}
	key := params.First()
	dict, isDict := in.Interface().(*exec.Dict)
	switch {
	case in.IsNil():
		return exec.AsValue(b.fail(errors.New("an undefined value has no elements")))
	case isDict:
		value, _ := lookup(dict, key)
		return value
	case in.IsString() && key.IsInteger():
		runes := []rune(in.String())
		if i, ok := place(key.Integer(), len(runes)); ok {
			return exec.AsValue(string(runes[i]))
		}
	case in.IsList() && key.IsInteger():
		if i, ok := place(key.Integer(), in.Len()); ok {
			return in.Index(i)
		}
	case key.IsString():
		if value, ok := in.Get(key.String()); ok {
			return value
		}
	}
	return exec.AsValue(nil)
}

// place is where an index points in n elements, from the end if it is negative.
func place(i, n int) (int, bool) {
	if i < 0 {
		i += n
	}
	return i, i >= 0 && i < n
}

// each is what a loop goes over, with the characters of a string.
func (b *budget) each(_ *exec.Evaluator, in *exec.Value, _ *exec.VarArgs) *exec.Value {
	switch {
	case in.IsError() || in.IsNil():
		return in
	case !in.IsIterable():
		return exec.AsValue(b.fail(fmt.Errorf("%s has no elements", kind(in))))
	}
	if err := b.spend(in.Len()); err != nil {
		return exec.AsValue(err)
	}
	if !in.IsString() {
		return in
	}
	list, err := elements(in)
	if err != nil {
		return exec.AsValue(b.fail(err))
	}
	return exec.AsValue(list)
}

// newCollection passes a new list, dictionary or slice on, or the first error among its elements: the library leaves
// errors there.
func newCollection(_ *exec.Evaluator, in *exec.Value, _ *exec.VarArgs) *exec.Value {
	if list, ok := in.Interface().(exec.ValuesList); ok {
		for _, v := range list {
			if v.IsError() {
				return v
			}
		}
	}
	return in
}

func add(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	left, right := number(in), number(params.First())
	switch {
	case left.IsString() && right.IsString():
		return exec.AsValue(left.String() + right.String())
	case left.IsList() && right.IsList():
		list, err := elements(left)
		if err != nil {
			return exec.AsValue(err)
		}
		more, err := elements(right)
		if err != nil {
			return exec.AsValue(err)
		}
		return exec.AsValue(append(list, more...))
	case left.IsInteger() && right.IsInteger():
		return exec.AsValue(left.Integer() + right.Integer())
	case left.IsNumber() && right.IsNumber():
		return exec.AsValue(left.Float() + right.Float())
	}
	return exec.AsValue(fmt.Errorf("%s and %s do not add up", kind(left), kind(right)))
}

// divided divides as Python does: rounding goes down, and a remainder has the divisor's sign.
func (b *budget) divided(op string) exec.FilterFunction {
	return b.bounded(func(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
		left, right := number(in), number(params.First())
		switch {
		case right.IsError():
			return right
		case !left.IsNumber() || !right.IsNumber():
			return exec.AsValue(b.fail(fmt.Errorf("%s %s %s cannot be computed", kind(left), op, kind(right))))
		case right.Float() == 0:
			return exec.AsValue(b.fail(errors.New("division by zero")))
		case op == opDivide:
			return exec.AsValue(left.Float() / right.Float())
		}
		if left.IsInteger() && right.IsInteger() {
			q, r := left.Integer()/right.Integer(), left.Integer()%right.Integer()
			if r != 0 && (r < 0) != (right.Integer() < 0) {
				q, r = q-1, r+right.Integer()
			}
			if op == opFloor {
				return exec.AsValue(q)
			}
			return exec.AsValue(r)
		}
		q := math.Floor(left.Float() / right.Float())
		if op == opFloor {
			return exec.AsValue(q)
		}
		return exec.AsValue(left.Float() - q*right.Float())
	})
}

// number takes True for 1 as Python does.
func number(v *exec.Value) *exec.Value {
	if !v.IsBool() {
		return v
	}
	if v.Bool() {
		return exec.AsValue(1)
	}
	return exec.AsValue(0)
}

func concat(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	return exec.AsValue(in.String() + params.First().String())
}

// method calls a method of a string, dictionary or list, or a function that a namespace or loop holds by that name.
func method(_ *exec.Evaluator, in *exec.Value, params *exec.VarArgs) *exec.Value {
	name := params.First().String()
	args := &exec.VarArgs{Args: params.Args[1:], KwArgs: params.KwArgs}
	if call := methodOf(in, name); call != nil {
		v, err := call(args)
		if err != nil {
			return exec.AsValue(fmt.Errorf("%s: %v", name, err)) // the innermost error is what is told
		}
		return exec.AsValue(v)
	}
	if held, ok := in.Get(name); ok {
		switch f := held.Interface().(type) {
		case exec.Macro:
			return f(args)
		case func(*exec.VarArgs) *exec.Value:
			return f(args)
		}
	}
	return exec.AsValue(fmt.Errorf("%s has no method %q", kind(in), name))
}

func methodOf(in *exec.Value, name string) func(args *exec.VarArgs) (any, error) {
	dict, isDict := in.Interface().(*exec.Dict)
	switch {
	case in.IsString():
		if f, ok := stringMethods[name]; ok {
			return func(args *exec.VarArgs) (any, error) { return f(in.String(), args) }
		}
	case isDict:
		if f, ok := dictMethods[name]; ok {
			return func(args *exec.VarArgs) (any, error) { return f(dict, args) }
		}
	case in.IsList():
		if f, ok := listMethods[name]; ok {
			return func(args *exec.VarArgs) (any, error) { return f(in, args) }
		}
	}
	return nil
}

// kind is a value's type in words.
func kind(v *exec.Value) string {
	switch {
	case v.IsNil():
		return "an undefined value"
	case v.IsBool():
		return "a truth value"
	case v.IsString():
		return "a text"
	case v.IsNumber():
		return "a number"
	case v.IsDict():
		return "a dictionary"
	case v.IsList():
		return "a list"
	}
	return "this value"
}

// arguments are a call's arguments in the order of its parameters, nil where one is not given. Of the parameters
// at least the first ones are needed, and those without a name are given by position only.
func arguments(args *exec.VarArgs, least int, parameters ...string) ([]*exec.Value, error) {
	if len(args.Args) > len(parameters) {
		return nil, fmt.Errorf("takes no more than %d arguments", len(parameters))
	}
	values := make([]*exec.Value, len(parameters))
	copy(values, args.Args)
	for name, v := range args.KwArgs {
		i := 0
		for i < len(parameters) && parameters[i] != name {
			i++
		}
		if i == len(parameters) || values[i] != nil {
			return nil, fmt.Errorf("takes no %s here", name)
		}
		values[i] = v
	}
	for _, v := range values[:least] {
		if v == nil {
			return nil, fmt.Errorf("needs %d arguments", least)
		}
	}
	return values, nil
}

// none is whether an argument is missing or None.
func none(v *exec.Value) bool { return v == nil || v.IsNil() }

func text(v *exec.Value) (string, error) {
	if !v.IsString() {
		return "", fmt.Errorf("needs a text, not %s", kind(v))
	}
	return v.String(), nil
}

func integer(v *exec.Value, otherwise int) (int, error) {
	switch {
	case none(v):
		return otherwise, nil
	case !v.IsInteger():
		return 0, fmt.Errorf("needs a whole number, not %s", kind(v))
	}
	return v.Integer(), nil
}
