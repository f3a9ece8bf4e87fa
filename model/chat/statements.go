package chat

import (
	"errors"
	"fmt"

	"github.com/nikolalohinski/gonja/v2/builtins"
	control "github.com/nikolalohinski/gonja/v2/builtins/control_structures"
	"github.com/nikolalohinski/gonja/v2/exec"
	"github.com/nikolalohinski/gonja/v2/nodes"
	"github.com/nikolalohinski/gonja/v2/parser"
	"github.com/nikolalohinski/gonja/v2/tokens"
)

// allowedStatements are those of the library's statements that a template may use. The others read other templates, or
// keep their bodies where nothing can be put under the budget. Of the latter this package has its own set, with and
// filter.
var allowedStatements = []string{"for", "if", "macro", "call", "raw", "do", "break", "continue"}

func (b *budget) controlStructures() *exec.ControlStructureSet {
	set := map[string]parser.ControlStructureParser{
		"set": b.counted(b.set), "with": b.counted(parseWith), "filter": b.counted(b.filterBlock), "generation": b.counted(parseGeneration),
	}
	for _, name := range allowedStatements {
		inner, _ := builtins.ControlStructures.Get(name)
		set[name] = b.counted(func(p, args *parser.Parser) (nodes.ControlStructure, error) {
			cs, err := inner(p, args)
			if err != nil {
				return nil, err
			}
			return b.guarded(cs)
		})
	}
	return exec.NewControlStructureSet(set)
}

// counted makes a statement a step.
func (b *budget) counted(parse parser.ControlStructureParser) parser.ControlStructureParser {
	return func(p, args *parser.Parser) (nodes.ControlStructure, error) {
		cs, err := parse(p, args)
		if err != nil {
			return nil, err
		}
		executed, ok := cs.(exec.ControlStructure)
		if !ok {
			return nil, errors.New("a statement that does nothing")
		}
		return &step{executed, b}, nil
	}
}

type step struct {
	exec.ControlStructure
	budget *budget
}

// Execute implements exec.ControlStructure.
func (s *step) Execute(r *exec.Renderer, block *nodes.ControlStructureBlock) error {
	if err := s.budget.spend(1); err != nil {
		return err
	}
	return s.ControlStructure.Execute(r, block)
}

// guarded puts the expressions and bodies of one of the library's statements under the budget.
func (b *budget) guarded(cs nodes.ControlStructure) (nodes.ControlStructure, error) {
	w := &rewriter{}
	switch s := cs.(type) {
	case *control.IfControlStructure:
		w.all(s.Conditions)
		for _, body := range s.Wrappers {
			w.body(body)
		}
	case *control.ForControlStructure:
		if s.Recursive {
			return nil, errors.New("recursive loops are not supported")
		}
		s.ObjectEvaluator = operation(w.expr(s.ObjectEvaluator), opEach)
		s.IfCondition = w.expr(s.IfCondition)
		w.body(s.BodyWrapper)
		w.body(s.EmptyWrapper)
		before(s.BodyWrapper, func(*exec.Renderer) error { return b.spend(1) })
	case *control.CallControlStructure:
		call, ok := w.expr(s.Call).(*nodes.Call)
		if !ok {
			return nil, errors.New("call takes a macro")
		}
		s.Call = call
		w.body(s.Body)
		before(s.Body, b.meter)
	case *control.MacroControlStructure:
		for _, p := range s.Kwargs {
			p.Value = w.expr(p.Value)
		}
		w.body(s.Wrapper)
		before(s.Wrapper, b.meter)
		return &macro{s, b}, w.err
	case *control.DoControlStructure:
		s.Expression = w.expr(s.Expression)
	}
	return cs, w.err
}

// meter bounds what a macro or a call's body is rendered into.
func (b *budget) meter(r *exec.Renderer) error {
	r.Output = &metered{to: r.Output, budget: b, limit: maxValue}
	return nil
}

// before makes run the first statement of a body.
func before(body *nodes.Wrapper, run func(r *exec.Renderer) error) {
	first := &nodes.ControlStructureBlock{Location: body.Location, ControlStructure: &hook{statement{body.Location, "body"}, run}}
	body.Nodes = append([]nodes.Node{first}, body.Nodes...)
}

type hook struct {
	statement
	run func(r *exec.Renderer) error
}

// Execute implements exec.ControlStructure.
func (h *hook) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error { return h.run(r) }

// macro bounds how deep macros call each other, and the size of their arguments.
type macro struct {
	*control.MacroControlStructure
	budget *budget
}

// Execute implements exec.ControlStructure.
func (m *macro) Execute(r *exec.Renderer, _ *nodes.ControlStructureBlock) error {
	inner, err := exec.MacroNodeToFunc(m.Macro, r)
	if err != nil {
		return err
	}
	r.Environment.Context.Set(m.Name, exec.Macro(func(params *exec.VarArgs) *exec.Value {
		b := m.budget
		b.depth++
		defer func() { b.depth-- }()
		if b.depth > maxDepth {
			return exec.AsValue(b.fail(fmt.Errorf("macros call each other more than %d deep", maxDepth)))
		}
		if err := b.spend(1); err != nil {
			return exec.AsValue(err)
		}
		if err := checkArguments(params); err != nil {
			return exec.AsValue(b.fail(err))
		}
		return inner(params)
	}))
	return nil
}

// statement is what the library asks of every statement.
type statement struct {
	at   *tokens.Token
	kind string
}

// Position implements nodes.Node.
func (s *statement) Position() *tokens.Token { return s.at }

// String implements nodes.Node.
func (s *statement) String() string { return s.kind }

// parseBody parses the body of one of this package's statements.
func parseBody(p *parser.Parser, end string) (*nodes.Wrapper, error) {
	body, args, err := p.WrapUntil(end)
	if err != nil {
		return nil, err
	}
	if !args.End() {
		return nil, fmt.Errorf("%s takes no arguments", end)
	}
	w := &rewriter{}
	w.body(body)
	return body, w.err
}
