package bindings

import (
	"math"

	lib "github.com/sugarme/gotch/libtch"

	"gopeft/bindings/csrc"
)

// Shape operations return views where libtorch does.

// Reshape gives a another shape; one extent may be -1.
func (s *Scope) Reshape(a Tensor, shape ...int64) Tensor {
	d := s.dims(shape)
	lib.AtgReshape(s.prep(), lib.Ctensor(a.p), d, len(d))
	return s.take("reshape", a)
}

// Transpose swaps two dimensions.
func (s *Scope) Transpose(a Tensor, d0, d1 int) Tensor {
	lib.AtgTranspose(s.prep(), lib.Ctensor(a.p), int64(d0), int64(d1))
	return s.take("transpose", a)
}

// Permute reorders the dimensions.
func (s *Scope) Permute(a Tensor, order ...int64) Tensor {
	d := s.dims(order)
	lib.AtgPermute(s.prep(), lib.Ctensor(a.p), d, len(d))
	return s.take("permute", a)
}

// Unsqueeze inserts a dimension of extent 1.
func (s *Scope) Unsqueeze(a Tensor, dim int) Tensor {
	lib.AtgUnsqueeze(s.prep(), lib.Ctensor(a.p), int64(dim))
	return s.take("unsqueeze", a)
}

// Squeeze drops a dimension of extent 1.
func (s *Scope) Squeeze(a Tensor, dim int) Tensor {
	lib.AtgSqueezeDim(s.prep(), lib.Ctensor(a.p), int64(dim))
	return s.take("squeeze", a)
}

// Expand repeats dimensions of extent 1 without copying; -1 keeps an extent.
func (s *Scope) Expand(a Tensor, shape ...int64) Tensor {
	d := s.dims(shape)
	lib.AtgExpand(s.prep(), lib.Ctensor(a.p), d, len(d), 0)
	return s.take("expand", a)
}

// Contiguous is a in row-major order, a itself when it already is.
func (s *Scope) Contiguous(a Tensor) Tensor { return s.unary("contiguous", lib.AtgContiguous, a) }

// Clone is a copy of a.
func (s *Scope) Clone(a Tensor) Tensor { return s.made("clone", csrc.Clone(s.slot(), a.p), a) }

// Alias is a new handle on a, owned by s.
func (s *Scope) Alias(a Tensor) Tensor { return s.unary("alias", lib.AtgAlias, a) }

// Narrow is the view of length elements of dim beginning at start.
func (s *Scope) Narrow(a Tensor, dim int, start, length int64) Tensor {
	lib.AtgNarrow(s.prep(), lib.Ctensor(a.p), int64(dim), start, length)
	return s.take("narrow", a)
}

// Slice is a[start:end:step] along dim; end may lie beyond the extent.
func (s *Scope) Slice(a Tensor, dim int, start, end, step int64) Tensor {
	return s.made("slice", csrc.Slice(s.slot(), a.p, int64(dim), start, end, step), a)
}

// From is a[start:] along dim.
func (s *Scope) From(a Tensor, dim int, start int64) Tensor {
	return s.Slice(a, dim, start, math.MaxInt64, 1)
}

// Select is the view of one index of dim, which disappears.
func (s *Scope) Select(a Tensor, dim int, index int64) Tensor {
	lib.AtgSelect(s.prep(), lib.Ctensor(a.p), int64(dim), index)
	return s.take("select", a)
}

// IndexSelect gathers whole slices of dim by an int64 vector.
func (s *Scope) IndexSelect(a Tensor, dim int, index Tensor) Tensor {
	lib.AtgIndexSelect(s.prep(), lib.Ctensor(a.p), int64(dim), lib.Ctensor(index.p))
	return s.take("index_select", a, index)
}

// Gather picks elements of dim by an index of a's number of dimensions.
func (s *Scope) Gather(a Tensor, dim int, index Tensor) Tensor {
	lib.AtgGather(s.prep(), lib.Ctensor(a.p), int64(dim), lib.Ctensor(index.p), 0)
	return s.take("gather", a, index)
}

// Scatter is a with src written at the indices of dim.
func (s *Scope) Scatter(a Tensor, dim int, index, src Tensor) Tensor {
	lib.AtgScatter(s.prep(), lib.Ctensor(a.p), int64(dim), lib.Ctensor(index.p), lib.Ctensor(src.p))
	return s.take("scatter", a, index, src)
}

// Cat joins tensors along an existing dimension.
func (s *Scope) Cat(dim int, ts ...Tensor) Tensor {
	l := s.list(ts)
	lib.AtgCat(s.prep(), l, len(l), int64(dim))
	return s.take("cat", ts...)
}

// Stack joins tensors along a new dimension.
func (s *Scope) Stack(dim int, ts ...Tensor) Tensor {
	l := s.list(ts)
	lib.AtgStack(s.prep(), l, len(l), int64(dim))
	return s.take("stack", ts...)
}

// Triu keeps the elements on and above a diagonal.
func (s *Scope) Triu(a Tensor, diagonal int) Tensor {
	lib.AtgTriu(s.prep(), lib.Ctensor(a.p), int64(diagonal))
	return s.take("triu", a)
}

// To is a in another dtype, a itself when it already is.
func (s *Scope) To(a Tensor, d DType) Tensor { return s.ToDevice(a, d, a.Device()) }

// ToDevice is a in another dtype and on another device. Copies to a GPU from pinned memory run beside the host's
// work; one to the host is there when this returns.
func (s *Scope) ToDevice(a Tensor, d DType, dev Device) Tensor {
	return s.made("to", csrc.To(s.slot(), a.p, int(d), dev.index(), dev.IsCUDA()), a)
}
