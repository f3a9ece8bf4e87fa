package peft

import (
	"strings"

	"gopeft/model"
)

// fullMethod trains the model's own weights in place: all of them, or those that patterns name.
func fullMethod() Definition {
	return Definition{
		Name:     "full",
		New:      func(o Options) Tuner { return &full{o: o} },
		Dialects: []Dialect{DialectModelFolder},
		InPlace:  true,
	}
}

type full struct {
	Common
	o Options
}

func (f *full) Trains(_ model.Model, p *model.Param) bool {
	return len(f.o.Unfreeze) == 0 || matchesAny(f.o.Unfreeze, p.Name)
}

func (f *full) Needs() Needs { return Needs{StoredWeights: true, WholeModel: true} }
func (f *full) LR() float64  { return 5e-5 }

func (f *full) Describe() string {
	if len(f.o.Unfreeze) == 0 {
		return "every weight of the model, from the checkpoint's values"
	}
	return "the model's weights matching " + strings.Join(f.o.Unfreeze, " ") + ", from the checkpoint's values"
}
