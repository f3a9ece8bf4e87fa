package peft

import (
	"gopeft/bindings"
	"gopeft/model"
)

// Memo keeps tensors computed from parameters alone, for as long as those stay the same and nothing is
// recorded for autograd: token-by-token generation would otherwise compute them anew for every token, and
// switching between adapters at every switch.
type Memo struct {
	from  []*model.Param
	scope *bindings.Scope // long-lived owner
	kept  []bindings.Tensor
	seen  []seen
	as    bindings.DType
}

// seen is a parameter's value at a time.
type seen struct {
	t       bindings.Tensor
	version int64
}

// Get gives what fn computes, for inputs that also depend on a compute dtype. In training it is fn itself.
func (c *Memo) Get(s *bindings.Scope, as bindings.DType, fn func(s *bindings.Scope) []bindings.Tensor) []bindings.Tensor {
	if s.GradEnabled() {
		return fn(s)
	}
	if len(c.kept) > 0 && as == c.as && c.current() {
		return c.kept
	}
	c.drop()
	child := s.Child()
	defer child.Close()
	for _, t := range fn(child) {
		c.kept = append(c.kept, child.MoveTo(c.scope, t))
	}
	c.as = as
	for _, p := range c.from {
		c.seen = append(c.seen, seen{p.T, p.T.Version()})
	}
	return c.kept
}

func (c *Memo) current() bool {
	for i, p := range c.from {
		if !p.T.Same(c.seen[i].t) || p.T.Version() != c.seen[i].version {
			return false
		}
	}
	return true
}

// drop frees what is kept.
func (c *Memo) drop() {
	for _, t := range c.kept {
		c.scope.Free(t)
	}
	c.kept, c.seen = nil, nil
}
