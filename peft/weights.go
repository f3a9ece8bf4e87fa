package peft

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gopeft/bindings"
	"gopeft/model/hf"
	"gopeft/model/hf/files"
)

// want is a tensor asked of an adapter's weights file.
type want struct {
	keys     []string // its name there, and other names it may have
	shape    []int64
	optional bool
}

// pick gives the wanted tensors in order, in fp32 on the CPU and owned by s, none where an optional one is
// absent. All missing, unexpected and mis-shaped keys are listed in one error. Keys that known accepts are not
// unexpected.
func pick(s *bindings.Scope, path string, a files.Archive, wants []want, known func(key string) bool) ([]bindings.Tensor, error) {
	used := map[string]bool{}
	found := make([]*files.Entry, len(wants))
	var missing, unexpected, misshaped []string
	for i, w := range wants {
		for _, key := range w.keys {
			e, ok := a.Lookup(key)
			if !ok {
				continue
			}
			used[key] = true
			if found[i] == nil {
				found[i] = &e
			}
			if !slices.Equal(e.Shape, w.shape) {
				misshaped = append(misshaped, fmt.Sprintf("%s is %v, want %v", key, e.Shape, w.shape))
			}
		}
		if found[i] == nil && !w.optional && !slices.Contains(missing, w.keys[0]) {
			missing = append(missing, w.keys[0])
		}
	}
	for _, e := range a.Entries() {
		if !used[e.Name] && (known == nil || !known(e.Name)) {
			unexpected = append(unexpected, e.Name)
		}
	}
	var parts []string
	for _, p := range []struct {
		what string
		keys []string
	}{{"missing", missing}, {"unexpected", unexpected}, {"of the wrong shape", misshaped}} {
		if len(p.keys) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%s)", len(p.keys), p.what, hf.List(p.keys)))
		}
	}
	if len(parts) > 0 {
		return nil, fmt.Errorf("%s: the weights do not fit the adapter's settings and the model: %s", path, strings.Join(parts, "; "))
	}
	out := make([]bindings.Tensor, len(wants))
	for i, e := range found {
		if e == nil {
			continue
		}
		t, err := floats(s, *e)
		if err != nil {
			return nil, err
		}
		out[i] = t
	}
	return out, nil
}

// floats copies an entry to an fp32 tensor.
func floats(s *bindings.Scope, e files.Entry) (bindings.Tensor, error) {
	var err error
	t := s.In(func(s *bindings.Scope) bindings.Tensor {
		var t bindings.Tensor
		if t, err = hf.Tensor(s, e); err != nil {
			return t
		}
		if !t.DType().Floating() {
			err = fmt.Errorf("%s: tensor %s holds %v, want floating-point weights", e.File, e.Name, t.DType())
			return t
		}
		return s.Clone(s.To(t, bindings.Float))
	})
	return t, err
}

// write saves named tensors as a safetensors file in a folder.
func write(s *bindings.Scope, dir, name string, ts []hf.Named) error {
	out, err := hf.Outgoing(s, ts)
	if err != nil {
		return err
	}
	return files.WriteSafetensors(filepath.Join(dir, name), out, nil)
}
