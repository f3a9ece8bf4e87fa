package model

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf/files"
)

// family is what the package knows of one architecture. Each is one file; families names them all.
type family struct {
	name   string   // Info's Family
	usual  Info     // the sizes of a common model of it
	types  []string // the model_types of a config.json that it loads
	asked  []string // those that it loads where Options.As asks for it
	traits Traits
	maps   func(Info) []Map
	// size reads from a config.json how many positions and tokens its model has.
	size func(config []byte) (positions, vocab int, err error)
	load func(s *bindings.Scope, c *opened) (Model, error)

	// config is the config.json of a model with i's sizes and, with labels, that many classes.
	config func(i Info, labels int) map[string]any

	gguf       []string                                                 // the general.architecture of GGUF files that it loads; none: it has no such files
	ggufConfig func(g *files.GGUF, architecture string) ([]byte, error) // the config.json that such a file was made from
}

// families are all that the package loads.
func families() []family {
	return []family{distilBERTFamily(), bertFamily(), robertaFamily(), llamaFamily(), qwen3Family(), gpt2Family(), phi3Family(),
		olmo2Family(), smollm3Family(), graniteFamily(), gemma2Family(), gemma3Family()}
}

// Architectures gives a common model of each architecture that the package loads.
func Architectures() []Info {
	var out []Info
	for _, f := range families() {
		i := f.usual
		i.Family = f.name
		out = append(out, i.Complete())
	}
	return out
}

// ConfigJSON is the config.json of a model of i's sizes, for New. HeadDim may be 0, for Hidden spread over the heads; labels
// counts the classes of a model with a head for them.
func (i Info) ConfigJSON(labels int) ([]byte, error) {
	f := familyNamed(i.Family)
	if f.config == nil {
		return nil, fmt.Errorf("%q is no architecture", i.Family)
	}
	return json.Marshal(f.config(i, labels))
}

// familyNamed finds a family by its name; without one, what it has in common with others is nothing.
func familyNamed(name string) family {
	for _, f := range families() {
		if f.name == name {
			return f
		}
	}
	return family{maps: func(Info) []Map { return nil }}
}

// familyOfType finds the family that loads a model_type: the one called as where that can.
func familyOfType(modelType, as string) (family, error) {
	if f := familyNamed(as); slices.Contains(f.asked, modelType) {
		return f, nil
	}
	return choose("model_type", modelType, func(f family) []string { return f.types })
}

// FirstReading is the family that what can be read as more than one was read as before there was a choice.
const FirstReading = "distilbert"

// ReadAs is the family that m's checkpoint was loaded as, where there is more than one that can; else "".
func ReadAs(m Model) string {
	i := m.Info()
	modelType := i.LoadedFrom
	if modelType == "" {
		modelType, _ = m.Config()["model_type"].(string)
	}
	if slices.ContainsFunc(families(), func(f family) bool { return slices.Contains(f.asked, modelType) }) {
		return i.Family
	}
	return ""
}

// familyOfGGUF finds the family that loads a GGUF file, and the architecture that the file names.
func familyOfGGUF(g *files.GGUF) (f family, architecture string, err error) {
	if architecture, err = g.Text("general.architecture"); err != nil {
		return f, "", err
	}
	f, err = choose("general.architecture", architecture, func(f family) []string { return f.gguf })
	return f, architecture, err
}

// choose finds the family that has name among its names of some kind.
func choose(kind, name string, names func(family) []string) (family, error) {
	var known []string
	for _, f := range families() {
		if slices.Contains(names(f), name) {
			return f, nil
		}
		known = append(known, names(f)...)
	}
	if what := refused(name); what != "" {
		return family{}, fmt.Errorf("%s %q is not supported: %s", kind, name, what)
	}
	return family{}, fmt.Errorf("%s %q is not supported; the nearest that is: %s (of %s)", kind, name, nearest(name, known), strings.Join(known, ", "))
}
