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

// withHead is a technique with a head of its own.
type withHead struct {
	technique
	names  []string // of the parameters, layer by layer
	shapes [][]int64
	head   *hubHeadFile
}

// core is the technique that distinguishes a method, without a head around it.
func core(t technique) technique {
	if w, ok := t.(*withHead); ok {
		return w.technique
	}
	return t
}

func (w *withHead) specs(o *outline) ([]spec, error) {
	specs, err := w.technique.specs(o)
	for i, name := range w.names {
		specs = append(specs, spec{name, w.shapes[i], constant(0)})
	}
	return specs, err
}

func (w *withHead) mount(x *mounting) error {
	if err := w.technique.mount(x); err != nil {
		return err
	}
	h := &hubClassifier{}
	for _, name := range w.names {
		h.layers = append(h.layers, x.params.Get(name))
	}
	var err error
	if len(h.layers) > 2 {
		h.act, err = activation(w.head.act)
	}
	x.hooks.Classifier = h
	return err
}

// flexibleHead reads a flexible head and puts it on the method.
func (f *folder) flexibleHead(s *bindings.Scope, m model.Model, a *adapter, h *hubHeadFile, g given) error {
	d := int64(m.Info().Hidden)
	w := &withHead{technique: a.technique, head: h}
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
	a.technique = w
	return nil
}
