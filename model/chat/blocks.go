package chat

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// set names a value or, with a body, what the body renders; or it gives a namespace an attribute.
type set struct {
	statement
	budget    *budget
	target    string
	attribute string // of the namespace that target names

	value, condition, otherwise nodes.Expression

	body    *nodes.Wrapper
	filters []*nodes.FilterCall
}

func (b *budget) set(p, args *parser.Parser) (nodes.ControlStructure, error) {
	s := &set{statement: statement{p.Current(), "set"}, budget: b}
	if err := s.parseTarget(args); err != nil {
		return nil, err
	}
	w := &rewriter{}
	var err error
	if args.Match(tokens.Assign) != nil {
		err = s.parseValue(args, w)
	} else if args.Match(tokens.Pipe) != nil {
		s.filters, err = parseFilters(args, w)
	}
	if err != nil {
		return nil, err
	}
	if !args.End() {
		return nil, errors.New("set is malformed")
	}
	if s.value == nil {
		if s.body, err = parseBody(p, "endset"); err != nil {
			return nil, err
		}
	}
	return s, w.err
}

func (s *set) parseTarget(args *parser.Parser) error {
	target, err := args.ParseVariableOrLiteral()
	if err != nil {
		return err
	}
	if attribute, ok := target.(*nodes.GetAttribute); ok && attribute.Attribute != "" {
		target, s.attribute = attribute.Node, attribute.Attribute
	}
	name, ok := target.(*nodes.Name)
	if !ok {
		return errors.New("set takes a name or a namespace's attribute")
	}
	s.target = name.Name.Val
	return nil
}

func (s *set) parseValue(args *parser.Parser, w *rewriter) error {
	value, err := args.ParseExpression()
	if err != nil {
		return err
	}
	if value == nil {
		return errors.New("set has no value")
	}
	condition, otherwise, err := args.ParseCondition()
	if err != nil {
		return err
	}
	s.value, s.condition, s.otherwise = w.expr(value), w.expr(condition), w.expr(otherwise)
	return nil
}

// Execute implements exec.ControlStructure.
func (s *set) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	value, err := s.evaluate(r)
	if err != nil {
		return err
	}
	if err := checkSize(value); err != nil {
		return err
	}
	if s.attribute == "" {
		r.Environment.Context.Set(s.target, value)
		return nil
	}
	held, _ := r.Environment.Context.Get(s.target)
	ns, ok := exec.ToValue(held).Interface().(map[string]any)
	if !ok {
		return fmt.Errorf("%s is no namespace", s.target)
	}
	ns[s.attribute] = value
	return checkSize(ns)
}

func (s *set) evaluate(r *exec.Renderer) (any, error) {
	if s.body != nil {
		value, err := s.budget.capture(r, s.body, s.filters)
		if err != nil {
			return nil, err
		}
		return value.Interface(), nil
	}
	chosen := s.value
	if s.condition != nil {
		condition := r.Eval(s.condition)
		if condition.IsError() {
			return nil, condition
		}
		if !condition.IsTrue() {
			chosen = s.otherwise
		}
	}
	if chosen == nil {
		return nil, nil
	}
	value := r.Eval(chosen)
	if value.IsError() {
		return nil, value
	}
	return value.Interface(), nil
}

// capture is what a body renders, through filters.
func (b *budget) capture(r *exec.Renderer, body *nodes.Wrapper, filters []*nodes.FilterCall) (*exec.Value, error) {
	var out strings.Builder
	sub := r.Inherit()
	sub.Output = &metered{to: &out, budget: b, limit: maxValue}
	if err := sub.ExecuteWrapper(body); err != nil {
		return nil, err
	}
	value := exec.AsValue(out.String())
	for _, f := range filters {
		if value = r.Evaluator().ExecuteFilter(f, value); value.IsError() {
			return nil, value
		}
	}
	return value, nil
}

func parseFilters(args *parser.Parser, w *rewriter) ([]*nodes.FilterCall, error) {
	var list []*nodes.FilterCall
	for {
		f, err := args.ParseFilter()
		if err != nil {
			return nil, err
		}
		w.filter(f)
		list = append(list, f)
		if args.Match(tokens.Pipe) == nil {
			return list, nil
		}
	}
}

// filterBlock renders its body through filters.
type filterBlock struct {
	statement
	budget  *budget
	filters []*nodes.FilterCall
	body    *nodes.Wrapper
}

func (b *budget) filterBlock(p, args *parser.Parser) (nodes.ControlStructure, error) {
	f := &filterBlock{statement: statement{p.Current(), "filter"}, budget: b}
	w := &rewriter{}
	var err error
	if f.filters, err = parseFilters(args, w); err != nil {
		return nil, err
	}
	if !args.End() {
		return nil, errors.New("filter is malformed")
	}
	if f.body, err = parseBody(p, "endfilter"); err != nil {
		return nil, err
	}
	return f, w.err
}

// Execute implements exec.ControlStructure.
func (f *filterBlock) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	value, err := f.budget.capture(r, f.body, f.filters)
	if err != nil {
		return err
	}
	_, err = io.WriteString(r.Output, value.String())
	return err
}

// with names values for its body.
type with struct {
	statement
	names  []string
	values []nodes.Expression
	body   *nodes.Wrapper
}

func parseWith(p, args *parser.Parser) (nodes.ControlStructure, error) {
	s := &with{statement: statement{p.Current(), "with"}}
	w := &rewriter{}
	for !args.End() {
		name := args.Match(tokens.Name)
		if name == nil || args.Match(tokens.Assign) == nil {
			return nil, errors.New("with takes names and their values")
		}
		value, err := args.ParseExpression()
		if err != nil {
			return nil, err
		}
		s.names, s.values = append(s.names, name.Val), append(s.values, w.expr(value))
		if args.Match(tokens.Comma) == nil && !args.End() {
			return nil, errors.New("with is malformed")
		}
	}
	var err error
	if s.body, err = parseBody(p, "endwith"); err != nil {
		return nil, err
	}
	return s, w.err
}

// Execute implements exec.ControlStructure.
func (s *with) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	sub := r.Inherit()
	for i, name := range s.names {
		value := r.Eval(s.values[i])
		if value.IsError() {
			return value
		}
		sub.Environment.Context.Set(name, value)
	}
	return sub.ExecuteWrapper(s.body)
}

// generation marks the assistant's words for training masks; it renders its body.
type generation struct {
	statement
	body *nodes.Wrapper
}

func parseGeneration(p, args *parser.Parser) (nodes.ControlStructure, error) {
	g := &generation{statement: statement{p.Current(), "generation"}}
	if !args.End() {
		return nil, errors.New("generation takes no arguments")
	}
	var err error
	g.body, err = parseBody(p, "endgeneration")
	return g, err
}

// Execute implements exec.ControlStructure.
func (g *generation) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	return r.ExecuteWrapper(g.body)
}
