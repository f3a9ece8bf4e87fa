package chat

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nikolalohinski/gonja/v2/nodes"
)

// Names of operators. To the library they are filters, with names that no template can write.
const (
	opItem   = "[]" // an index
	opCall   = "."  // a method: its name and arguments
	opAdd    = "+"
	opConcat = "~"
	opDivide = "/"
	opFloor  = "//"
	opModulo = "%"
	opNew    = "{}" // a list, dictionary or slice that has just been made
	opEach   = "*"  // what a loop goes over
)

// rewriter puts operators of this package in place of the library's, whose results have no bounds and are not
// Python's: its indices and loops cut characters apart, and its methods return types that equal nothing else.
type rewriter struct {
	depth int
	err   error
}

func (w *rewriter) body(wrapper *nodes.Wrapper) {
	if wrapper != nil {
		w.nodes(wrapper.Nodes)
	}
}

func (w *rewriter) nodes(list []nodes.Node) {
	for _, n := range list {
		if out, ok := n.(*nodes.Output); ok {
			out.Expression, out.Condition, out.Alternative = w.expr(out.Expression), w.expr(out.Condition), w.expr(out.Alternative)
		}
	}
}

func (w *rewriter) all(list []nodes.Expression) {
	for i, x := range list {
		list[i] = w.expr(x)
	}
}

func (w *rewriter) named(args map[string]nodes.Expression) {
	for name, x := range args {
		args[name] = w.expr(x)
	}
}

func (w *rewriter) filter(f *nodes.FilterCall) {
	w.all(f.Args)
	w.named(f.Kwargs)
}

func (w *rewriter) expr(x nodes.Expression) nodes.Expression {
	if x == nil || w.err != nil {
		return x
	}
	if w.depth >= maxNesting {
		w.err = fmt.Errorf("operations are nested more than %d deep", maxNesting)
		return x
	}
	w.depth++
	defer func() { w.depth-- }()
	switch n := x.(type) {
	case *nodes.List:
		w.all(n.Val)
		return operation(n, opNew)
	case *nodes.Tuple:
		w.all(n.Val)
		return operation(n, opNew)
	case *nodes.Dict:
		for _, p := range n.Pairs {
			p.Key, p.Value = w.expr(p.Key), w.expr(p.Value)
		}
		return operation(n, opNew)
	case *nodes.GetItem:
		if n.Arg == nil {
			w.err = errors.New("an index is empty")
			return x
		}
		return operation(w.expr(n.Node), opItem, w.expr(n.Arg))
	case *nodes.GetSlice:
		n.Node, n.Start, n.End, n.Step = w.expr(n.Node), w.expr(n.Start), w.expr(n.End), w.expr(n.Step)
		return operation(n, opNew)
	case *nodes.GetAttribute:
		if n.Attribute == "" {
			return operation(w.expr(n.Node), opItem, &nodes.Integer{Location: n.Location, Val: n.Index})
		}
		n.Node = w.expr(n.Node)
	case *nodes.Call:
		return w.call(n)
	case *nodes.Negation:
		n.Term = w.expr(n.Term)
	case *nodes.UnaryExpression:
		n.Term = w.expr(n.Term)
	case *nodes.BinaryExpression:
		n.Left, n.Right = w.expr(n.Left), w.expr(n.Right)
		switch op := n.Operator.Token.Val; op {
		case opAdd, opConcat, opDivide, opFloor, opModulo:
			return operation(n.Left, op, n.Right)
		}
	case *nodes.FilteredExpression:
		n.Expression = w.expr(n.Expression)
		for _, f := range n.Filters {
			w.filter(f)
		}
	case *nodes.TestExpression:
		n.Expression = w.expr(n.Expression)
		w.all(n.Test.Args)
		w.named(n.Test.Kwargs)
	}
	return x
}

// call rewrites a method's call, and dict(a=1, b=2): the library hands named arguments on without their order.
func (w *rewriter) call(n *nodes.Call) nodes.Expression {
	w.all(n.Args)
	w.named(n.Kwargs)
	switch f := n.Func.(type) {
	case *nodes.GetAttribute:
		if f.Attribute == "" {
			break
		}
		name := &nodes.String{Location: f.Location, Val: f.Attribute}
		called := operation(w.expr(f.Node), opCall, append([]nodes.Expression{name}, n.Args...)...)
		called.Filters[0].Kwargs = n.Kwargs
		return called
	case *nodes.Name:
		if f.Name.Val == "dict" && len(n.Args) == 0 {
			return operation(dictionary(n), opNew)
		}
	}
	n.Func = w.expr(n.Func)
	return n
}

// dictionary is dict(a=1, b=2) as {'a': 1, 'b': 2}.
func dictionary(call *nodes.Call) *nodes.Dict {
	names := slices.SortedFunc(maps.Keys(call.Kwargs), func(a, b string) int {
		return call.Kwargs[a].Position().Pos - call.Kwargs[b].Position().Pos
	})
	dict := &nodes.Dict{Token: call.Location}
	for _, name := range names {
		key := &nodes.String{Location: call.Location, Val: name}
		dict.Pairs = append(dict.Pairs, &nodes.Pair{Key: key, Value: call.Kwargs[name]})
	}
	return dict
}

func operation(in nodes.Expression, name string, args ...nodes.Expression) *nodes.FilteredExpression {
	call := &nodes.FilterCall{Name: name, Args: args}
	return &nodes.FilteredExpression{Expression: in, Filters: []*nodes.FilterCall{call}}
}
