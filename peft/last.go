package peft

import (
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// lastMethod trains copies of the model's last layers: the classification head or, in a language model, the final
// norm and the output embeddings.
func lastMethod() Definition {
	return Definition{
		Name:     "last",
		New:      func(o Options) Tuner { return &last{o: o} },
		Dialects: []Dialect{DialectModelFolder},
	}
}

type last struct {
	Common
	o Options
}

func (l *last) Trains(m model.Model, p *model.Param) bool {
	c, causal := m.(model.CausalLM)
	if !causal || c.LMHead() == nil {
		return false // a classifier's head is trained by every method
	}
	return p == c.LMHead() || p.Norm && !inBlock(m, p)
}

// inBlock reports whether a parameter belongs to a block.
func inBlock(m model.Model, p *model.Param) bool {
	for _, b := range m.Hooks().Blocks {
		if strings.HasPrefix(p.Name, b.Name+".") {
			return true
		}
	}
	return false
}

func (l *last) Needs() Needs { return Needs{StoredWeights: true, WholeModel: true} }
func (l *last) LR() float64  { return 1e-3 }

func (l *last) Describe() string {
	return strings.Join(append([]string{"the head, or final norm and output embeddings, the rest frozen"}, l.o.Unfreeze...), " and ")
}

// Merge implements Merger: what is trained becomes the model's, as with every method, and no map changes besides.
func (l *last) Merge(*bindings.Scope, *Attachment) ([]Merged, error) { return nil, nil }
