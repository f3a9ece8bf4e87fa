package files

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Limits of the walk over what a pickle built, which may be deep, cyclic or
// shared so often that walking it all would never end.
const (
	maxStateDepth = 8
	maxStateNodes = 1 << 18
)

// maxCopiedBytes bounds, beside the size of the file, the memory for views that
// are not contiguous: a stride of zero can blow up a single number to any shape.
const maxCopiedBytes = 64 << 20

type namedTensor struct {
	*pyTensor
	name string
}

// stateWalker collects the tensors and settings of a saved dict.
type stateWalker struct {
	tensors  []namedTensor
	metadata map[string]string
	nodes    int
}

// readState walks the saved object. A training checkpoint is entered at the dict
// that holds its weights; of the rest only the settings are kept.
func readState(root any) (*stateWalker, error) {
	top, ok := root.(*pyDict)
	if !ok {
		return nil, fmt.Errorf("it holds %s, not a dict of named tensors", pyKind(root))
	}
	w := &stateWalker{metadata: map[string]string{}}
	weights := top.weights()
	if weights != nil {
		if err := w.dict("", weights, true, 0); err != nil {
			return nil, err
		}
	}
	if err := w.dict("", top, weights == nil, 0); err != nil {
		return nil, err
	}
	if len(w.tensors) == 0 {
		return nil, errors.New("it holds no tensors")
	}
	return w, nil
}

// weights gives the dict of weights inside a training checkpoint, nil when the
// tensors lie in the dict itself.
func (d *pyDict) weights() *pyDict {
	if d.holdsTensors() {
		return nil
	}
	for i, key := range d.keys {
		switch key {
		case any("state_dict"), any("model"), any("model_state_dict"), any("module"):
			if inner, ok := d.values[i].(*pyDict); ok && inner.holdsTensors() {
				return inner
			}
		}
	}
	return nil
}

func (d *pyDict) holdsTensors() bool {
	return slices.ContainsFunc(d.values, func(v any) bool {
		_, ok := v.(*pyTensor)
		return ok
	})
}

func (w *stateWalker) dict(prefix string, d *pyDict, tensors bool, depth int) error {
	if depth > maxStateDepth {
		return fmt.Errorf("dicts are nested more than %d deep at %s", maxStateDepth, quote(prefix))
	}
	for i, value := range d.values {
		if w.nodes++; w.nodes > maxStateNodes {
			return fmt.Errorf("it holds more than %d values", maxStateNodes)
		}
		name, ok := keyName(d.keys[i])
		if ok && len(prefix)+len(name) <= maxNameBytes {
			name = prefix + name
		} else if _, isTensor := value.(*pyTensor); isTensor && tensors {
			return fmt.Errorf("a tensor's name in %s is %s", quote(prefix), pyKind(d.keys[i]))
		} else {
			continue
		}
		switch v := value.(type) {
		case *pyTensor:
			if !tensors {
				continue
			}
			if err := checkName(name); err != nil {
				return err
			}
			w.tensors = append(w.tensors, namedTensor{v, name})
		case *pyDict:
			if v == d {
				return fmt.Errorf("the dict %s contains itself", quote(name))
			}
			if err := w.dict(name+".", v, tensors, depth+1); err != nil {
				return err
			}
		case string:
			w.metadata[name] = v
		case bool, int64:
			w.metadata[name] = fmt.Sprint(v)
		case float64:
			w.metadata[name] = strconv.FormatFloat(v, 'g', -1, 64)
		}
	}
	return nil
}

// keyName gives a dict key as part of a name; integers number things.
func keyName(key any) (string, bool) {
	switch k := key.(type) {
	case string:
		return k, true
	case int64:
		return strconv.FormatInt(k, 10), true
	}
	return "", false
}

// entries binds the tensors to their bytes, in file order.
func (w *stateWalker) entries(m *mapping) ([]Entry, error) {
	slices.SortStableFunc(w.tensors, func(a, b namedTensor) int { return cmp.Compare(a.position(), b.position()) })
	list := make([]Entry, len(w.tensors))
	room := int64(len(m.data)) + maxCopiedBytes
	for i, t := range w.tensors {
		e := &list[i]
		*e = Entry{Name: t.name, DType: t.storage.dtype, Shape: t.shape}
		size, err := byteSize(e.DType, e.Shape)
		switch {
		case err != nil:
			return nil, fmt.Errorf("tensor %s: %w", quote(t.name), err)
		case size == 0:
		case !t.storage.found:
			return nil, fmt.Errorf("tensor %s: its storage %s is not in the file: the file is cut short", quote(t.name), quote(t.storage.key))
		case t.contiguous():
			m.view(e, t.position(), size)
		default:
			if room -= size; room < 0 {
				return nil, fmt.Errorf("tensor %s: shape %v with strides %v repeats its storage of %d numbers too often", quote(t.name), t.shape, t.stride, t.storage.count)
			}
			e.Data = t.gather(m.data)
		}
	}
	return list, nil
}

// position is where the view begins in the file.
func (t *pyTensor) position() int64 {
	return t.storage.at + t.offset*int64(t.storage.dtype.Size())
}

func (t *pyTensor) contiguous() bool {
	next := int64(1)
	for i := len(t.shape) - 1; i >= 0; i-- {
		if t.shape[i] != 1 && t.stride[i] != next {
			return false
		}
		next *= t.shape[i]
	}
	return true
}

// gather copies a strided view, which has at least one element and has been
// checked to stay inside its storage, into row-major order.
func (t *pyTensor) gather(file []byte) []byte {
	width := int64(t.storage.dtype.Size())
	last := len(t.shape) - 1
	count := int64(1)
	for _, d := range t.shape {
		count *= d
	}
	out := make([]byte, 0, count*width)
	index := make([]int64, len(t.shape))
	row := t.position() // of the first element of the current innermost row
	for {
		for k := range t.shape[last] {
			at := row + k*t.stride[last]*width
			out = append(out, file[at:at+width]...)
		}
		d := last - 1
		for ; d >= 0; d-- {
			index[d]++
			row += t.stride[d] * width
			if index[d] < t.shape[d] {
				break
			}
			row -= index[d] * t.stride[d] * width
			index[d] = 0
		}
		if d < 0 {
			return out
		}
	}
}
