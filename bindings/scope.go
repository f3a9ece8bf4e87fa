package bindings

import (
	"context"
	"log/slog"
	"runtime"
	"sync/atomic"
	"unsafe"

	lib "github.com/sugarme/gotch/libtch"

	"gopeft/bindings/csrc"
)

// live counts the tensors that scopes own. It is process-wide as libtorch's memory is.
var live atomic.Int64

// Live is the number of tensors that open scopes own. It returns to its baseline when they close; tests
// compare it before and after.
func Live() int64 { return live.Load() }

// buffers is C memory through which arguments and results cross into libtorch, so that calls allocate
// nothing in Go. Only libtorch's thread uses it.
type buffers struct {
	out  *[8]unsafe.Pointer
	dims []int64
	list []lib.Ctensor
	free []*Scope // closed child scopes, used again with their capacity

	composed bool // no fused kernels: see SetFused
	kernels  compiledKernels
}

func newBuffers() *buffers {
	const maxDims, maxList = 16, 64
	return &buffers{
		out:  (*[8]unsafe.Pointer)(csrc.Malloc(8 * 8)),
		dims: unsafe.Slice((*int64)(csrc.Malloc(maxDims*8)), maxDims),
		list: unsafe.Slice((*lib.Ctensor)(csrc.Malloc(maxList*8)), maxList),
	}
}

// Scope owns the tensors made by the operations called on it. When it closes it frees them and closes its child
// scopes. Autograd keeps its own references: closing a scope never breaks a backward pass. A Scope is used only
// inside Do.
type Scope struct {
	buf    *buffers
	ctx    context.Context
	parent *Scope
	kids   *Scope // open child scopes, the newest first, linked through next
	next   *Scope
	owned  []unsafe.Pointer
	closed bool
	lost   runtime.Cleanup // of a scope from NewScope: reports that it was not closed
}

// Context is the context given to Do.
func (s *Scope) Context() context.Context { return s.ctx }

// Child opens a scope inside s. It closes with s at the latest.
func (s *Scope) Child() *Scope {
	var c *Scope
	if n := len(s.buf.free); n > 0 {
		c = s.buf.free[n-1]
		s.buf.free = s.buf.free[:n-1]
		c.closed = false
	} else {
		c = &Scope{}
	}
	c.buf, c.ctx, c.parent = s.buf, s.ctx, s
	c.next, s.kids = s.kids, c
	return c
}

// NewScope opens a scope that no other scope closes: for weights and optimizer state that outlive a call
// of Do. Its owner calls Close inside a later Do. A scope that is lost unclosed is reported to the default
// slog logger at debug level when Go's collector finds it; its tensors stay allocated.
func (s *Scope) NewScope() *Scope {
	n := &Scope{buf: s.buf, ctx: context.WithoutCancel(s.ctx)}
	n.lost = runtime.AddCleanup(n, func(_ int) { slog.Debug("bindings: a scope was dropped without Close") }, 0)
	return n
}

// Close frees the scope's tensors. A scope from Child is not to be touched any more then: the next Child may be
// the same one. One from NewScope may be closed twice.
func (s *Scope) Close() {
	if s.closed {
		return
	}
	for s.kids != nil {
		s.kids.Close()
	}
	s.closed = true
	s.freeAll()
	if s.parent == nil {
		s.lost.Stop()
		return
	}
	for link := &s.parent.kids; *link != nil; link = &(*link).next {
		if *link == s {
			*link = s.next
			break
		}
	}
	s.parent, s.next = nil, nil
	s.buf.free = append(s.buf.free, s)
}

func (s *Scope) freeAll() {
	for i := len(s.owned) - 1; i >= 0; i-- {
		lib.AtFree(lib.Ctensor(s.owned[i]))
		s.owned[i] = nil
	}
	live.Add(-int64(len(s.owned)))
	s.owned = s.owned[:0]
}

// In runs fn in a child scope, frees everything it made, and keeps its result in s.
func (s *Scope) In(fn func(*Scope) Tensor) Tensor {
	c := s.Child()
	defer c.Close()
	return c.Return(fn(c))
}

// In2 is In for two results.
func (s *Scope) In2(fn func(*Scope) (Tensor, Tensor)) (Tensor, Tensor) {
	c := s.Child()
	defer c.Close()
	a, b := fn(c)
	return c.Return(a), c.Return(b)
}

// Run runs fn in a child scope and keeps nothing.
func (s *Scope) Run(fn func(*Scope) error) error {
	c := s.Child()
	defer c.Close()
	return fn(c)
}

// Return moves t, owned by s, to the scope around s. A tensor that s does not own is left where it is.
func (s *Scope) Return(t Tensor) Tensor {
	if s.parent == nil {
		return t
	}
	return s.MoveTo(s.parent, t)
}

// MoveTo moves t, owned by s, to dst. A tensor that s does not own is left where it is.
func (s *Scope) MoveTo(dst *Scope, t Tensor) Tensor {
	if i := s.find(t); i >= 0 {
		s.remove(i)
		dst.owned = append(dst.owned, t.p)
	}
	return t
}

// Free frees t now if s owns it: for large intermediates whose consumer has run.
func (s *Scope) Free(t Tensor) {
	if i := s.find(t); i >= 0 {
		s.remove(i)
		lib.AtFree(lib.Ctensor(t.p))
		live.Add(-1)
	}
}

// find is the place of t in owned, -1 if s does not own it. What is moved or freed is nearly always recent, so it looks
// from the end.
func (s *Scope) find(t Tensor) int {
	for i := len(s.owned) - 1; i >= 0; i-- {
		if s.owned[i] == t.p {
			return i
		}
	}
	return -1
}

func (s *Scope) remove(i int) {
	copy(s.owned[i:], s.owned[i+1:])
	s.owned = s.owned[:len(s.owned)-1]
}

// adopt makes s the owner of the tensor libtorch just returned.
func (s *Scope) adopt(p unsafe.Pointer) Tensor {
	if s.closed {
		panic("bindings: operation on a closed scope")
	}
	s.owned = append(s.owned, p)
	live.Add(1)
	return Tensor{p}
}

// prep clears and returns the first output slot.
func (s *Scope) prep() *lib.Ctensor {
	s.buf.out[0] = nil
	return (*lib.Ctensor)(unsafe.Pointer(&s.buf.out[0]))
}

// take adopts what a gotch call left in the first output slot; a slot still empty means the call failed.
func (s *Scope) take(op string, args ...Tensor) Tensor {
	p := s.buf.out[0]
	if p == nil {
		fail(op, lastError(), args...)
	}
	return s.adopt(p)
}

// made adopts what a csrc call left in the first output slot, or fails with its message.
func (s *Scope) made(op, message string, args ...Tensor) Tensor {
	s.check(op, message, args...)
	return s.adopt(s.buf.out[0])
}

// slot is the first output slot for a csrc call.
func (s *Scope) slot() *unsafe.Pointer {
	s.buf.out[0] = nil
	return &s.buf.out[0]
}

// dims copies a shape into C memory. It is valid until the next call.
func (s *Scope) dims(d []int64) []int64 {
	n := copy(s.buf.dims, d)
	if n < len(d) {
		panic(&OpError{Op: "shape", Message: "more than 16 dimensions"})
	}
	return s.buf.dims[:n:n]
}

// list copies tensors into C memory. It is valid until the next call.
func (s *Scope) list(ts []Tensor) []lib.Ctensor {
	if len(ts) > len(s.buf.list) {
		n := 2 * len(ts)
		csrc.Free(unsafe.Pointer(unsafe.SliceData(s.buf.list)))
		s.buf.list = unsafe.Slice((*lib.Ctensor)(csrc.Malloc(uintptr(n)*8)), n)
	}
	for i, t := range ts {
		s.buf.list[i] = lib.Ctensor(t.p)
	}
	return s.buf.list[:len(ts):len(ts)]
}

// pointers is list for csrc calls that run Go code, and may so move Go's stack, before they return. Others take raw.
func (s *Scope) pointers(ts []Tensor) []unsafe.Pointer {
	l := s.list(ts)
	return unsafe.Slice((*unsafe.Pointer)(unsafe.Pointer(unsafe.SliceData(l))), len(l))
}
