package peft

import (
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
)

// lnTuningMethod trains the norms alone (Zhao et al. 2023).
func lnTuningMethod() Definition {
	return Definition{
		Name:     "ln-tuning",
		New:      func(o Options) Tuner { return &lnTuning{o: o} },
		Dialects: []Dialect{DialectPeft},
	}
}

type lnTuning struct {
	Common
	o       Options
	modules []string // the norms' names; nil: all
}

func (l *lnTuning) Trains(_ model.Model, p *model.Param) bool {
	return p.Norm && (l.modules == nil || slices.Contains(l.modules, moduleOf(p)))
}

// moduleOf is the name of a parameter's module.
func moduleOf(p *model.Param) string { return p.Name[:strings.LastIndex(p.Name, ".")] }

func (l *lnTuning) LR() float64      { return 1e-3 }
func (l *lnTuning) Describe() string { return "norms, from the checkpoint's values" }

// Merge implements Merger: no map changes.
func (l *lnTuning) Merge(*bindings.Scope, *Attachment) ([]Merged, error) { return nil, nil }
