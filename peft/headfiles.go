package peft

import (
	"strings"

	"gopeft/model"
	"gopeft/model/hf/files"
)

// What the dialects' files have in common that hold classification heads.

// headWants asks for the model's head with as many labels as the adapter has.
func (f *adapterFiles) headWants(m model.Model, optional bool, keys func(name string) []string) (names []string, wants []want) {
	for _, p := range m.Params().All() {
		if !isHead(m, p.Name) {
			continue
		}
		shape := p.T.Shape()
		if f.NumLabels > 0 && shape[0] == int64(len(m.Labels())) && isOutput(m, p.Name) {
			shape[0] = int64(f.NumLabels)
		}
		names = append(names, p.Name)
		wants = append(wants, want{keys(p.Name), shape, optional})
	}
	return names, wants
}

// isOutput reports whether a parameter belongs to the head's last module.
func isOutput(m model.Model, name string) bool {
	return strings.HasPrefix(name, m.Info().Classifier+".")
}

// headRows is the number of labels if an entry is a classification head's weight.
func headRows(e files.Entry) (int, bool) {
	for _, i := range model.Architectures() {
		name := i.Classifier + ".weight"
		if (e.Name == name || strings.HasSuffix(e.Name, "."+name)) && len(e.Shape) == 2 && e.Shape[1] > 0 {
			return int(e.Shape[0]), true
		}
	}
	return 0, false
}

// labelsIn is the number of labels of the classification head in an archive, 0 without one.
func labelsIn(a files.Archive) int {
	n := 0
	for _, e := range a.Entries() {
		if rows, ok := headRows(e); ok {
			n = rows
		}
	}
	return n
}
