package hf

import (
	"fmt"

	"gopeft/bindings"
	"gopeft/model/hf/files"
)

// Quantisation is how a wanted matrix is held.
type Quantisation int

// The ways: with a weight per element whatever the file has; as the file has it, quantised or not; as NF4 with scales that
// are quantised too, or as Int8, whether the file has it so or in floating point.
const (
	Plain Quantisation = iota
	Keep
	NF4
	Int8
)

func (q Quantisation) String() string { return [...]string{"none", "keep", "nf4", "int8"}[q] }

var kinds = map[files.DType]bindings.QuantKind{
	files.NF4: bindings.NF4, files.FP4: bindings.FP4, files.Int8: bindings.Int8Rows, files.Int4: bindings.Int4,
	files.Q4_0: bindings.Q4_0, files.Q4_1: bindings.Q4_1, files.Q5_0: bindings.Q5_0, files.Q5_1: bindings.Q5_1,
	files.Q8_0: bindings.Q8_0, files.Q4_K: bindings.Q4_K, files.Q5_K: bindings.Q5_K, files.Q6_K: bindings.Q6_K,
}

// Kind is the kind that plain matrices are rounded to, if they are.
func (q Quantisation) Kind() (kind bindings.QuantKind, yes bool) {
	switch q {
	case NF4:
		return bindings.NF4, true
	case Int8:
		return bindings.Int8Rows, true
	}
	return 0, false
}

// staysQuantised reports whether a want's tensor is to be a quantised one. Only matrices are.
func (w Want) staysQuantised(e files.Entry) (bool, error) {
	same := w.Quantise == Keep || w.Quantise == NF4 && e.DType == files.NF4 || w.Quantise == Int8 && e.DType == files.Int8
	switch {
	case w.Quantise == Plain || len(e.Shape) != 2:
		return false, nil
	case !e.DType.Quantised():
		return w.Quantise != Keep, nil
	case w.Place.turned(e.Shape):
		return false, fmt.Errorf("%s: tensor %s holds %v of a transposed matrix, which is not supported", e.File, e.Name, e.DType)
	case !same:
		return false, fmt.Errorf("%s: tensor %s holds %v already: quantise keep uses it as it is", e.File, e.Name, e.DType)
	}
	return true, nil
}

// hold gives a want its quantised matrix, owned by s, through r.Quantised. A matrix that is stored as it is wanted, on the
// CPU, lies in the file's mapping unless r.Copy is set.
func hold(s *bindings.Scope, r Request, want int, e files.Entry, heads int64) (bindings.Tensor, error) {
	inFile := e.DType.Quantised() && (e.Packed == nil || e.Packed.InPlace()) && heads == 0 && !r.Copy && r.Device == bindings.CPU && inPlace(e)
	var q *bindings.Quantised
	err := s.Run(func(inner *bindings.Scope) (err error) {
		if e.DType.Quantised() {
			q, err = overFile(inner, e, heads, r.Copy && r.Device == bindings.CPU)
		} else {
			q, err = quantised(inner, e, heads, r.Wants[want])
		}
		if err == nil {
			q = inner.MoveQuantised(s, inner.QuantisedTo(q, r.Device))
		}
		return err
	})
	if err != nil {
		return bindings.Tensor{}, err
	}
	if !inFile {
		err = e.Release()
	} else if r.Mapped != nil {
		r.Mapped(want, e)
	}
	r.Quantised(want, q)
	return s.Placeholder(r.Wants[want].Shape, r.DType), err
}

// quantised rounds a floating-point entry where it lies in the file, without a copy in fp32.
func quantised(s *bindings.Scope, e files.Entry, heads int64, want Want) (*bindings.Quantised, error) {
	as := want.Quantise
	if !e.DType.Float() {
		return nil, notFloat(e)
	}
	if as == NF4 && want.Shape[1]%64 != 0 {
		return nil, fmt.Errorf("%s: tensor %s has rows of %d weights: NF4 wants a multiple of 64", e.File, e.Name, want.Shape[1])
	}
	var w bindings.Tensor
	var err error
	if d := dtypes[e.DType]; want.Place.turned(e.Shape) {
		w, err = turned(s, e, want, bindings.Float, bindings.CPU)
	} else if heads == 0 && d != bindings.Double {
		w, err = Tensor(s, e)
	} else {
		if d == bindings.Double {
			d = bindings.Float
		}
		w, err = byRows(s, e, heads, d, bindings.CPU)
	}
	if err != nil {
		return nil, err
	}
	if as == NF4 {
		return s.Quantise(w, bindings.NF4, true), nil
	}
	return s.Quantise(w, bindings.Int8Rows, false), nil
}

// dequantised is a grouped entry in dtype d.
func dequantised(s *bindings.Scope, e files.Entry, heads int64, d bindings.DType, dev bindings.Device) (bindings.Tensor, error) {
	var err error
	t := s.In(func(s *bindings.Scope) bindings.Tensor {
		var q *bindings.Quantised
		if q, err = overFile(s, e, heads, false); err != nil {
			return bindings.Tensor{}
		}
		return s.ToDevice(s.Dequantise(q, d), d, dev)
	})
	return t, err
}

// overFile is the matrix of a quantised entry, whose parts share the file's mapping where they can; with copied none does.
func overFile(s *bindings.Scope, e files.Entry, heads int64, copied bool) (*bindings.Quantised, error) {
	rows, cols := e.Shape[0], e.Shape[1]
	q := &bindings.Quantised{Kind: kinds[e.DType], Rows: rows, Cols: cols}
	if heads > 0 && (e.DType.Grouped() || rows%(2*heads) != 0) {
		return nil, fmt.Errorf("%s: tensor %s, %v%v, does not hold the rows of %d heads", e.File, e.Name, e.DType, e.Shape, heads)
	}
	codes, err := codesOf(s, e, copied)
	if err != nil {
		return nil, err
	}
	if q.Codes = codes; heads > 0 { // as byRows has it
		width := codes.Size(1)
		q.Codes = s.Reshape(s.Transpose(s.Reshape(codes, heads, rows/heads/2, 2, width), 1, 2), rows, width)
	}
	if p := e.Packed; p != nil {
		if e.DType != files.Int8 {
			q.Block = p.Block
		}
		if e.DType == files.Int4 {
			err = wholeScales(s, q, e)
		} else {
			q.NestedBlock, q.Offset = p.NestedBlock, p.Offset
			err = scalesOf(s, q, p, copied)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.CheckQuantised(q); err != nil {
		return nil, fmt.Errorf("%s: tensor %s: %w", e.File, e.Name, err)
	}
	return q, nil
}

// codesOf is an entry's codes as bindings.Quantised lays them out.
func codesOf(s *bindings.Scope, e files.Entry, copied bool) (t bindings.Tensor, err error) {
	rows, cols := e.Shape[0], e.Shape[1]
	if e.Packed != nil && !e.Packed.InPlace() {
		t = s.Empty([]int64{rows, cols / 2}, bindings.Uint8, bindings.CPU)
		return t, t.View(e.Int4Codes)
	}
	raw := e
	raw.DType, raw.Shape = files.U8, []int64{rows, int64(len(e.Data)) / max(rows, 1)}
	switch e.DType {
	case files.Int8:
		raw.DType = files.I8
	case files.NF4, files.FP4:
		raw.Shape = []int64{int64(len(e.Data))}
	}
	err = part(s, raw, copied, &t)
	return t, err
}

// scalesOf gives NF4, FP4 and Int8 their scales.
func scalesOf(s *bindings.Scope, q *bindings.Quantised, p *files.Packed, copied bool) error {
	for _, x := range []struct {
		e files.Entry
		t *bindings.Tensor
	}{{p.Scales, &q.Scales}, {p.NestedScales, &q.NestedScales}, {p.NestedMap, &q.NestedMap}} {
		if err := part(s, x.e, copied, x.t); err != nil {
			return err
		}
	}
	return nil
}

// part makes the tensor of one of an entry's parts; one that there is not stays none.
func part(s *bindings.Scope, e files.Entry, copied bool, t *bindings.Tensor) (err error) {
	if e.Name == "" {
		return nil
	}
	if copied {
		*t = s.FromRaw(e.Data, dtypes[e.DType], e.Shape...)
		return nil
	}
	*t, err = Tensor(s, e)
	return err
}

// wholeScales gives Int4 its scales and zero points in fp32.
func wholeScales(s *bindings.Scope, q *bindings.Quantised, e files.Entry) error {
	n := e.Packed.Scales.Elements()
	scales, zeros := make([]float32, n), make([]float32, n)
	if err := e.Int4Scales(scales, zeros); err != nil {
		return err
	}
	q.Scales, q.Zeros = s.FromFloat32s(scales, q.Rows, q.Cols/q.Block), s.FromFloat32s(zeros, q.Rows, q.Cols/q.Block)
	return nil
}
