package hf

import (
	"fmt"
	"slices"

	"gopeft/bindings"
	"gopeft/model/hf/files"
)

// Place is where a checkpoint holds a tensor that a model has otherwise: as some rows of a larger one, as a matrix that is
// transposed, or both. The zero value stands for a tensor that is stored as it is.
type Place struct {
	Name        string // of the stored tensor
	First, Rows int64  // the row of it that the tensor begins with, and how many it has, transposed or not
	Transposed  bool   // a matrix is stored as [in, out]
}

// elsewhere reports whether the tensor is stored otherwise.
func (p Place) elsewhere() bool { return p.Name != "" }

// Shape is the stored tensor's, for a part of a shape.
func (p Place) Shape(part []int64) []int64 {
	whole := slices.Clone(part)
	whole[0] = p.Rows
	if p.turned(whole) {
		slices.Reverse(whole)
	}
	return whole
}

// turned reports whether the stored tensor, of a shape, has to be transposed.
func (p Place) turned(shape []int64) bool { return p.Transposed && len(shape) == 2 }

// Cut gives the part with so many rows of the stored tensor.
func (p Place) Cut(s *bindings.Scope, whole bindings.Tensor, rows int64) bindings.Tensor {
	if !p.elsewhere() {
		return whole
	}
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		if p.turned(whole.Shape()) {
			whole = s.Transpose(whole, 0, 1)
		}
		return s.Contiguous(s.Narrow(whole, 0, p.First, rows))
	})
}

// Whole is the stored tensor of all its parts, in order.
func (p Place) Whole(s *bindings.Scope, parts []bindings.Tensor) bindings.Tensor {
	return s.In(func(s *bindings.Scope) bindings.Tensor {
		whole := parts[0]
		if len(parts) > 1 {
			whole = s.Cat(0, parts...)
		}
		if p.turned(whole.Shape()) {
			whole = s.Transpose(whole, 0, 1)
		}
		return whole
	})
}

// entry finds a want's part of a stored tensor. One that is transposed is left whole: see turned.
func (p Place) entry(e files.Entry, w Want) (files.Entry, error) {
	if !p.elsewhere() || p.turned(w.Shape) || p.First == 0 && p.Rows == w.Shape[0] {
		return e, nil
	}
	return e.Rows(p.First, w.Shape[0])
}

// turned copies a want's part of a matrix that is stored transposed, in dtype d.
func turned(s *bindings.Scope, e files.Entry, w Want, d bindings.DType, dev bindings.Device) (bindings.Tensor, error) {
	if !e.DType.Float() {
		return bindings.Tensor{}, fmt.Errorf("%s: tensor %s holds %v of a transposed matrix, which is not supported", e.File, e.Name, e.DType)
	}
	var err error
	t := s.In(func(s *bindings.Scope) bindings.Tensor {
		t := s.Empty(w.Shape, d, dev)
		var whole bindings.Tensor
		if whole, err = Tensor(s, e); err == nil {
			s.Copy(t, s.Narrow(s.Transpose(whole, 0, 1), 0, w.Place.First, w.Shape[0]))
			err = e.Release()
		}
		return t
	})
	return t, err
}
