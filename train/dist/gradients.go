package dist

import "gopeft/bindings"

// Gradients are those of a step, summed over the ranks. Of a nil Group they are nil, and nothing is to be summed.
type Gradients struct {
	group *Group
	sums  *bindings.Gradients
	parts *bindings.GradientParts // in place of sums where each rank keeps its part
}

// Gradients lets params have gradients that are summed over the ranks.
func (g *Group) Gradients(s *bindings.Scope, params []bindings.Tensor) (*Gradients, error) {
	if g == nil {
		return nil, nil
	}
	sums, err := s.SumGradients(g.group.Load(), params)
	if err != nil {
		return nil, err
	}
	return &Gradients{group: g, sums: sums}, nil
}

// GradientParts lets params have gradients that are summed over the ranks, of which this one keeps own: of each parameter,
// laid flat, what begins at from.
func (g *Group) GradientParts(s *bindings.Scope, params, own []bindings.Tensor, from []int64) (*Gradients, error) {
	parts, err := s.ScatterGradients(g.group.Load(), params, own, from)
	if err != nil {
		return nil, err
	}
	return &Gradients{group: g, parts: parts}, nil
}

// Begin starts a step: all gradients are zero.
func (a *Gradients) Begin() error {
	switch {
	case a == nil:
		return nil
	case a.parts != nil:
		return a.parts.Begin()
	}
	return a.sums.Begin()
}

// Last says that the coming backward pass is the step's last. Gradients in parts need not know.
func (a *Gradients) Last() error {
	if a == nil || a.parts != nil {
		return nil
	}
	return a.sums.Last()
}

// Pass ends a backward pass: gradients in parts are summed then.
func (a *Gradients) Pass() error {
	if a == nil || a.parts == nil {
		return nil
	}
	return a.group.do(a.parts.Pass)
}

// Sum ends a step's passes: every gradient is the sum of the ranks' then.
func (a *Gradients) Sum() error {
	if a == nil || a.parts != nil {
		return nil
	}
	return a.group.do(a.sums.Sum)
}

// Own are this rank's parts of the sums, none of a parameter that has no gradient on any rank; nil where it has them whole.
func (a *Gradients) Own() []bindings.Tensor {
	if a == nil || a.parts == nil {
		return nil
	}
	return a.parts.Own()
}

// Close gives the parameters gradients of their own again.
func (a *Gradients) Close() {
	switch {
	case a == nil:
	case a.parts != nil:
		a.parts.Close()
	default:
		a.sums.Close()
	}
}
