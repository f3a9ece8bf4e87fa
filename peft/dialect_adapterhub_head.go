package peft

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

const hubLMHead = "lm_head.weight" // in head files of language models

// hubHeadConfig is head_config.json.
type hubHeadConfig struct {
	Config *struct {
		Type       string         `json:"head_type"`
		Layers     int            `json:"layers"`
		Activation string         `json:"activation_function"`
		UsePooler  bool           `json:"use_pooler"`
		Label2ID   map[string]int `json:"label2id"`
	} `json:"config"`
	Name     *string        `json:"name"`
	Class    string         `json:"model_class"`
	Label2ID map[string]int `json:"label2id"`
}

// hubHeadFile is an opened head.
type hubHeadFile struct {
	archive  files.Archive
	causal   bool   // a language model's, which has no labels
	flexible string // name of a flexible head ("heads.{name}.…"), "" for a static one
	layers   int
	act      string
}

func (f *adapterFiles) openHubHead() (*hubHeadFile, error) {
	path := filepath.Join(f.Path, "head_config.json")
	raw, err := hf.ReadJSON(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c hubHeadConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	h := &hubHeadFile{}
	n, output := 0, "classifier.weight or score.weight"
	if c.Config != nil {
		switch {
		case hubProblem(c.Config.Type) == "":
			return nil, fmt.Errorf("%s: head_type %q is not supported (classification, multilabel_classification)", path, c.Config.Type)
		case c.Config.UsePooler:
			return nil, fmt.Errorf("%s: use_pooler is not supported", path)
		case c.Config.Layers != 1 && c.Config.Layers != 2:
			return nil, fmt.Errorf("%s: %d layers are not supported (1, 2)", path, c.Config.Layers)
		case c.Name == nil:
			return nil, fmt.Errorf("%s: name is missing", path)
		}
		if _, err := activation(c.Config.Activation); err != nil && c.Config.Layers > 1 {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		h.flexible, h.layers, h.act = *c.Name, c.Config.Layers, c.Config.Activation
		if p := hubProblem(c.Config.Type); f.Problem == "" && p == model.AnyLabels {
			f.Problem = p
		}
		output = h.key(h.layers) + ".weight"
	}
	if h.archive, err = files.OpenFirst(f.Path, "model_head.safetensors", hubHead); err != nil {
		return nil, err
	}
	f.close = append(f.close, h.archive)
	switch kind, ok := hubHeadKind(c.Class); {
	case h.flexible != "" || kind == "ForSequenceClassification" || !ok && labelsIn(h.archive) > 0:
	case kind == "ForCausalLM":
		h.causal = true
		return h, nil
	case ok:
		return nil, fmt.Errorf("%s: the head of a %s is not supported (ForSequenceClassification, ForCausalLM)", path, c.Class)
	}
	for _, e := range h.archive.Entries() {
		if rows, ok := headRows(e); ok {
			n = rows
		}
		if h.flexible != "" && e.Name == output && len(e.Shape) == 2 && e.Shape[1] > 0 {
			n = int(e.Shape[0])
		}
	}
	if n == 0 { // loading says which keys are missing, if it gets to know how many labels were meant
		n = max(len(c.Label2ID), len(f.Labels))
		if c.Config != nil {
			n = max(n, len(c.Config.Label2ID))
		}
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: no classification head (%s) is in its weights file: it holds %s", path, output, hf.List(entryNames(h.archive)))
	}
	f.NumLabels = n
	if f.sidecar == nil && len(c.Label2ID) == n {
		labels := make([]string, n)
		for name, id := range c.Label2ID {
			if id < 0 || id >= n || labels[id] != "" {
				return nil, fmt.Errorf("%s: label2id does not number %d labels", path, n)
			}
			labels[id] = name
		}
		f.Labels = labels
	}
	return h, nil
}

// hubProblem is what a flexible head of a type scores; "" of one that is no classifier. Regression is a classification of
// one label there.
func hubProblem(headType string) model.Problem {
	switch headType {
	case "classification":
		return model.OneLabel
	case hubMultiLabel:
		return model.AnyLabels
	}
	return ""
}

const hubMultiLabel = "multilabel_classification"

// hubHeadKind is what the class of a model says of its own head: what follows its architecture's name.
func hubHeadKind(class string) (kind string, ok bool) {
	i := strings.Index(class, "For")
	if i < 0 {
		return "", false
	}
	return class[i:], true
}

// lmHead has the model's language-model head trained where the file's is another one: the library freezes the base alone.
func (f *adapterFiles) lmHead(m model.Model, h *hubHeadFile, o *Options) error {
	c, causal := m.(model.CausalLM)
	if !causal || c.LMHead() == nil {
		return nil
	}
	p, same := c.LMHead(), false
	path := archiveName(f.Path, h.archive)
	err := m.Scope().Run(func(s *bindings.Scope) error {
		_, err := pick(s, path, h.archive, []want{{[]string{hubLMHead}, p.T.Shape(), false}}, nil)
		if e, ok := h.archive.Lookup(hubLMHead); err == nil && ok && !p.Quantised() {
			same, err = sameValues(s, e, p)
		}
		return err
	})
	switch {
	case err != nil || same || matchesAny(o.Unfreeze, p.Name):
	case p.Quantised():
		f.notes = append(f.notes, path+": the model's language-model head is quantised and stays; whether the file's was trained is not known")
	case p.Name != hubLMHead:
		return fmt.Errorf("%s: the language-model head was trained, but the model's is its embeddings", path)
	default:
		o.Unfreeze = append(o.Unfreeze, p.Name)
	}
	return err
}

// trainedHead reads a language-model head, if the method trains it.
func (f *adapterFiles) trainedHead(s *bindings.Scope, m model.Model, a *method, h *hubHeadFile, g storedValues) error {
	p := m.Params().Get(hubLMHead)
	if p == nil || !a.trains(m, p) {
		return nil
	}
	ts, err := pick(s, archiveName(f.Path, h.archive), h.archive, []want{{[]string{hubLMHead}, p.T.Shape(), false}}, nil)
	if err == nil {
		g.model[hubLMHead] = ts[0]
	}
	return err
}

func entryNames(a files.Archive) []string {
	var names []string
	for _, e := range a.Entries() {
		names = append(names, e.Name)
	}
	return names
}

// key is the prefix of a flexible head's n-th layer: between linear maps lie activation and dropout.
func (h *hubHeadFile) key(layer int) string { return fmt.Sprintf("heads.%s.%d", h.flexible, 3*layer-2) }

// hubClassifier is AdapterHub's flexible head on the pooled state: linear, or linear → activation → linear.
// It takes the place of the model's own head and belongs to the method.
type hubClassifier struct {
	layers []*model.Param // weight, bias, weight, bias
	act    func(*bindings.Scope, bindings.Tensor) bindings.Tensor
}

// Forward implements model.Linear.
func (h *hubClassifier) Forward(s *bindings.Scope, x bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		x := s.To(x, h.layers[0].T.DType())
		for i := 0; i < len(h.layers); i += 2 {
			if i > 0 {
				x = h.act(s, x)
			}
			x = s.Linear(x, h.layers[i].T, h.layers[i+1].T)
		}
		return x
	})
}

// headTuner is a tuner with a classification head of its own.
type headTuner struct {
	Tuner
	names  []string // of the parameters, layer by layer
	shapes [][]int64
	head   *hubHeadFile
}

// ownHead reports whether the method has a head of its own in place of the model's.
func (a *method) ownHead() bool {
	_, ok := a.tuner.(*headTuner)
	return ok
}

// ownTuner is the method's tuner, without a head around it.
func (a *method) ownTuner() Tuner {
	if w, ok := a.tuner.(*headTuner); ok {
		return w.Tuner
	}
	return a.tuner
}

// Adds implements Tuner.
func (w *headTuner) Adds(x *Structure) ([]NewParam, error) {
	added, err := w.Tuner.Adds(x)
	for i, name := range w.names {
		added = append(added, NewParam{Name: name, Shape: w.shapes[i], Init: Constant(0)})
	}
	return added, err
}

// Attach implements Tuner.
func (w *headTuner) Attach(x *Attachment) error {
	if err := w.Tuner.Attach(x); err != nil {
		return err
	}
	h := &hubClassifier{}
	for _, name := range w.names {
		h.layers = append(h.layers, x.Param(name))
	}
	var err error
	if len(h.layers) > 2 {
		h.act, err = activation(w.head.act)
	}
	x.Hooks.Classifier = h
	return err
}

// flexibleHead reads a flexible head and puts it on the method.
func (f *adapterFiles) flexibleHead(s *bindings.Scope, m model.Model, a *method, h *hubHeadFile, g storedValues) error {
	d := int64(m.Info().Hidden)
	w := &headTuner{Tuner: a.tuner, head: h}
	var wants []want
	for layer := 1; layer <= h.layers; layer++ {
		out := d
		if layer == h.layers {
			out = int64(f.NumLabels)
		}
		for _, part := range []struct {
			name  string
			shape []int64
		}{{"weight", []int64{out, d}}, {"bias", []int64{out}}} {
			name := fmt.Sprintf("%s.%s", h.key(layer), part.name)
			w.names, w.shapes = append(w.names, name), append(w.shapes, part.shape)
			wants = append(wants, want{[]string{name}, part.shape, false})
		}
	}
	ts, err := pick(s, archiveName(f.Path, h.archive), h.archive, wants, nil)
	if err != nil {
		return err
	}
	for i, name := range w.names {
		g.own[name] = ts[i]
	}
	a.tuner = w
	return nil
}
