package peft

import (
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

// Dialect names a layout of adapter files.
type Dialect string

// The dialects.
const (
	DialectPeft        Dialect = "peft"          // a folder of the HuggingFace peft library
	DialectHub         Dialect = "adapterhub"    // a folder of AdapterHub's adapters library
	DialectLitLLaMA    Dialect = "lit-llama"     // a checkpoint file of lit-llama or litgpt
	DialectLLaMAFile   Dialect = "llama-adapter" // a checkpoint file of LLaMA-Adapter's own repository
	DialectModelFolder Dialect = "model"         // a HuggingFace model folder: what full and last save
)

// Dialects are what Convert writes.
func Dialects() []Dialect {
	return []Dialect{DialectPeft, DialectHub, DialectLitLLaMA, DialectLLaMAFile}
}

// IsFile reports whether the dialect is one file, not a folder.
func (d Dialect) IsFile() bool { return d == DialectLitLLaMA || d == DialectLLaMAFile }

// dialect reads and writes the files of one library. Only its own file knows how that library names methods,
// settings and weights.
type dialect interface {
	// recognises reports whether what is at f's path is of this dialect.
	recognises(f *adapterFiles) bool
	// read fills in f: what it says of itself, and how its settings and weights are read for a model.
	read(f *adapterFiles) error
	// keeps reports whether Save may choose the dialect for the method without changing what its numbers mean.
	keeps(a *method, m model.Model) bool
	// write saves the method at path; portable asks for what the library computes the same from, or an error saying
	// why there is nothing such, else extensions that only gopeft reads may be used.
	write(s *bindings.Scope, a *method, path string, m model.Model, portable bool) error
}

// dialectOf finds a dialect by its name, nil for an unknown one.
func dialectOf(name Dialect) dialect {
	switch name {
	case DialectPeft:
		return hfPeft{}
	case DialectHub:
		return adapterHub{}
	case DialectLitLLaMA, DialectLLaMAFile:
		return checkpointFile{name}
	case DialectModelFolder:
		return modelFolder{}
	}
	return nil
}

// Info is what an adapter folder says about itself.
type Info struct {
	Path    string
	Dialect Dialect
	Method  string
	Base    string // the base model's name or path, "" if not recorded
	Family  string // that the base was loaded as, "" if not recorded
	// NumLabels is the width of the classification head among the files, 0 without one. Labels are its names,
	// empty where the files do not record them.
	NumLabels int
	Labels    []string
	Problem   model.Problem // of that head; "": it is not recorded
	Tokenizer string        // name or path, "" if not recorded
	// TrainsTokens says that rows of single tokens were trained: a tokenizer beside the adapter may have more than the base's.
	TrainsTokens bool
	Options      Options // settings as far as the files tell them without the model
}

// HeadLabels are the label names to load a base model with, given the names that the base itself has: the
// recorded ones, the base's when there are as many, else LABEL_0, LABEL_1, …; none without a head.
func (i Info) HeadLabels(base []string) []string {
	switch {
	case len(i.Labels) > 0:
		return i.Labels
	case len(base) == i.NumLabels:
		return base
	}
	labels := make([]string, i.NumLabels)
	for n := range labels {
		labels[n] = fmt.Sprintf("LABEL_%d", n)
	}
	return labels
}
