package bindings

import (
	"context"
	"errors"

	"gopeft/bindings/csrc/c10d"
)

// GradientParts are the gradients of some parameters, summed over a group while the backward pass still makes others, of
// which this process keeps a part of each. A step calls Begin, and Pass after each backward pass, of which all processes
// make as many. In a backward pass sums are waited for where no context is looked at: Group.GiveUp ends that.
type GradientParts struct {
	p     c10d.Parts
	group *Group
	own   []Tensor
}

// ScatterGradients lets params have gradients that are summed over g, of which this process keeps own: of each parameter,
// laid flat, as many elements as own has from the one numbered from.
func (s *Scope) ScatterGradients(g *Group, params, own []Tensor, from []int64) (*GradientParts, error) {
	return s.scatterGradients(g, params, own, from, BucketBytes)
}

func (s *Scope) scatterGradients(g *Group, params, own []Tensor, from []int64, bucket int64) (*GradientParts, error) {
	for i, p := range params {
		if own[i].DType() != p.DType() || from[i] < 0 || from[i]+own[i].Numel() > p.Numel() {
			return nil, errors.New("a part of a gradient is no part of its parameter")
		}
	}
	p, msg := c10d.NewParts(g.p, raw(params), raw(own), from, bucket)
	if msg != "" {
		return nil, c10dError(msg)
	}
	return &GradientParts{p, g, own}, nil
}

// Begin makes all gradients zero.
func (a *GradientParts) Begin() error { return c10dError(c10d.BeginParts(a.p)) }

// Pass returns when what the backward pass gave is added up over the processes, and to what earlier ones gave.
func (a *GradientParts) Pass(ctx context.Context) error {
	return a.group.poll(ctx, func() (bool, string) { return c10d.PassParts(a.p, waitMS) })
}

// Own are the parts; none of a parameter that got a gradient on no process since Begin.
func (a *GradientParts) Own() []Tensor {
	out := make([]Tensor, len(a.own))
	for i, came := range c10d.PartsCame(a.p, len(a.own)) {
		if came {
			out[i] = a.own[i]
		}
	}
	return out
}

// Close gives the parameters gradients of their own again.
func (a *GradientParts) Close() {
	if !a.group.Broken() {
		c10d.FreeParts(a.p)
	}
}
