package hf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"

	"gopeft/bindings"
	"gopeft/model/fsutil"
	"gopeft/model/hf/files"
)

// Named is a tensor with the name it is saved under.
type Named struct {
	Name    string
	Tensor  bindings.Tensor
	As      bindings.DType // to write it in; 0: its own
	Written func()         // called once the tensor is in the file; nil: nothing to do
	// Quantised, unless nil, is written in the place of Tensor, which says the dtype that it stands for: as it is (see
	// SaveQuantised), or with As dequantised.
	Quantised *bindings.Quantised
	// Make, unless nil, gives the tensor when its turn comes, of Shape (nil: that of Tensor) and the dtype of Tensor.
	Make  func(s *bindings.Scope) (bindings.Tensor, error)
	Shape []int64
}

// Outgoing describes tensors for package files' writers, which read each, and cast it, when its turn comes.
func Outgoing(s *bindings.Scope, ts []Named) ([]files.Tensor, error) {
	var out []files.Tensor
	for _, n := range ts {
		if n.Quantised != nil && n.As == 0 {
			parts, err := outgoingQuantised(s, n)
			if err != nil {
				return nil, err
			}
			out = append(out, parts...)
			continue
		}
		as := n.As
		if as == 0 {
			as = n.Tensor.DType()
		}
		d, err := FileDType(as)
		if err != nil {
			return nil, fmt.Errorf("save %s: %w", n.Name, err)
		}
		shape := n.Shape
		if shape == nil {
			shape = n.Tensor.Shape()
		}
		out = append(out, files.Tensor{Name: n.Name, DType: d, Shape: shape, Write: func(w io.Writer) error {
			return s.Run(func(s *bindings.Scope) error {
				t := n.Tensor
				if n.Make != nil {
					var err error
					if t, err = n.Make(s); err != nil {
						return err
					}
				}
				if n.Quantised != nil {
					t = s.Dequantise(n.Quantised, as)
				}
				t = s.Contiguous(s.ToDevice(s.Detach(t), as, bindings.CPU))
				if n.Written != nil {
					defer n.Written()
				}
				return t.View(func(raw []byte) error { _, err := w.Write(raw); return err })
			})
		}})
	}
	return out, nil
}

// FileDType is how weights files call a dtype.
func FileDType(d bindings.DType) (files.DType, error) {
	for f, b := range dtypes {
		if b == d {
			return f, nil
		}
	}
	return 0, fmt.Errorf("dtype %v has no place in a weights file", d)
}

// SaveModel writes config.json and model.safetensors (in shards above 5 GB) into an existing folder.
func SaveModel(s *bindings.Scope, folder string, config any, ts []Named) error {
	if err := WriteJSON(filepath.Join(folder, "config.json"), config); err != nil {
		return err
	}
	out, err := Outgoing(s, ts)
	if err != nil {
		return err
	}
	_, err = files.WriteSharded(folder, "model", out, nil, 0)
	return err
}

// WriteJSON writes v as HuggingFace does: two spaces, keys sorted, a final newline.
func WriteJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// A round trip through a map sorts the keys of structs too.
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var sorted any
	if err := decoder.Decode(&sorted); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return fsutil.WriteFile(path, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(sorted)
	})
}
