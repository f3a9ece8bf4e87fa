package peft

import (
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

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
