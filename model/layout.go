package model

import (
	"slices"

	"gopeft/bindings"
)

// layout is what a decoder's batch looks like to attention: where its tokens stand and which keys each may
// see. Tables and biases are made once per forward pass and shared by the blocks.
type layout struct {
	scope  *bindings.Scope // of the forward pass
	device bindings.Device
	dtype  bindings.DType // of biases and rotary tables

	past   int64           // tokens in the cache
	length int64           // new tokens, virtual ones included
	mask   bindings.Tensor // [B, past+length], 0 for padding; or none
	groups bindings.Tensor // [B, length], each token's segment, -1 for what every segment sees; or none
	counts []int64         // per row, real tokens up to the end of this pass

	cos, sin bindings.Tensor
	made     []windowBias
}

type windowBias struct {
	extra  int64
	window int
	bias   bindings.Tensor
}

// newLayout reads a batch with so many virtual tokens in front of it, and memory positions before those. What depends on
// the mask's content is worked out on the host, from one copy of it. readPadding says that the states of padding will be
// read, as a classifier's may be that reads the last position.
func newLayout(s *bindings.Scope, rope Rope, headDim int, in Input, virtual, memory int, d bindings.DType, readPadding bool) *layout {
	rows, width := in.IDs.Size(0), in.IDs.Size(1)
	l := &layout{scope: s, device: in.IDs.Device(), dtype: d, length: int64(virtual) + width}
	b := hostBatch{rows: int(rows), width: int(width), virtual: virtual, memory: memory, before: make([]int64, rows)}
	if c := in.Cache; c != nil {
		if in.Segments.Defined() || in.Positions.Defined() {
			panic(&bindings.OpError{Op: "forward", Message: "a cache counts positions itself and holds one text per row"})
		}
		if c.tokens > 0 && len(c.counts) != int(rows) {
			panic(&bindings.OpError{Op: "forward", Message: "the batch has another number of rows than the cache"})
		}
		l.past = c.tokens
		copy(b.before, c.counts)
	}
	if in.Mask.Defined() {
		b.mask = in.Mask.Int64s()
	}
	if in.Segments.Defined() {
		b.segments = in.Segments.Int64s()
		l.groups = in.Segments
		if virtual > 0 {
			l.groups = s.Cat(1, s.Full([]int64{rows, int64(virtual)}, -1, bindings.Int64, l.device), in.Segments)
		}
	}
	shape := b.padding()
	switch {
	case in.Cache != nil:
		l.mask = in.Cache.maskWith(s, in, shape, virtual)
	case shape == padAny || shape == padRight && readPadding:
		l.mask = extendMask(s, in.Mask, virtual)
	} // Padding on the right needs no mask: a real token never looks at what comes after it.
	at, longest := b.positions(shape == padAny)
	longest = max(longest, in.FullLength)
	l.counts = b.counts()
	s.Run(func(t *bindings.Scope) error {
		p := in.Positions
		if p.Defined() {
			p, longest = explicitPositions(t, p, virtual, memory)
		} else {
			p = t.Int64sOn(l.device, at, int64(len(at))/l.length, l.length)
		}
		l.cos, l.sin = rotation(s, p, rope.frequencies(headDim, longest), d)
		return nil
	})
	return l
}

// explicitPositions puts the virtual tokens' positions before given ones and shifts those.
func explicitPositions(s *bindings.Scope, p bindings.Tensor, virtual, memory int) (bindings.Tensor, int) {
	shift := int64(memory + virtual)
	p = s.AddScalar(p, float64(shift))
	longest := int(s.MaxAll(p).Item()) + 1
	if virtual == 0 {
		return p, longest
	}
	v := s.Arange(int64(memory), shift, bindings.Int64, p.Device())
	return s.Cat(1, s.Expand(s.Unsqueeze(v, 0), p.Size(0), -1), p), longest
}

// bias is what to add to a block's scores, [1 or B, 1, length, extra+past+length]: 0 where a key may be seen
// and masked where not. The extra keys in front always may. It is none when every key is seen and, with
// causal true, when every key up to a token's own is.
func (l *layout) bias(extra int64, window int) (bias bindings.Tensor, causal bool) {
	total := l.past + l.length
	if int64(window) >= total {
		window = 0
	}
	if !l.mask.Defined() && !l.groups.Defined() && window == 0 {
		if l.length == 1 {
			return bindings.Tensor{}, false
		}
		if l.past == 0 && extra == 0 {
			return bindings.Tensor{}, true
		}
	}
	for _, m := range l.made {
		if m.extra == extra && m.window == window {
			return m.bias, false
		}
	}
	b := l.scope.In(func(s *bindings.Scope) bindings.Tensor {
		f := l.forbidden(s, window)
		b := s.MaskedFill(s.Zeros(f.Shape(), l.dtype, l.device), f, bindings.Masked(l.dtype))
		if extra == 0 {
			return b
		}
		return s.Cat(3, s.Zeros([]int64{b.Size(0), 1, l.length, extra}, l.dtype, l.device), b)
	})
	l.made = append(l.made, windowBias{extra, window, b})
	return b, false
}

// forbidden is true where a new token must not see a key, bool [1 or B, 1, length, past+length].
func (l *layout) forbidden(s *bindings.Scope, window int) bindings.Tensor {
	total := l.past + l.length
	queries := s.Reshape(s.Arange(l.past, total, bindings.Int64, l.device), 1, 1, l.length, 1)
	keys := s.Reshape(s.Arange(0, total, bindings.Int64, l.device), 1, 1, 1, total)
	f := s.Compare(keys, bindings.Greater, queries)
	if window > 0 {
		f = s.Maximum(f, s.Compare(keys, bindings.LessEqual, s.AddScalar(queries, float64(-window))))
	}
	if l.mask.Defined() {
		f = s.Maximum(f, s.CompareScalar(s.Reshape(l.mask, -1, 1, 1, total), bindings.Equal, 0))
	}
	if l.groups.Defined() {
		q, k := s.Reshape(l.groups, -1, 1, l.length, 1), s.Reshape(l.groups, -1, 1, 1, l.length)
		f = s.Maximum(f, s.And(s.Compare(q, bindings.NotEqual, k), s.CompareScalar(k, bindings.NotEqual, -1)))
	}
	return f
}

// padShape says where a batch has padding.
type padShape int

const (
	unpadded padShape = iota
	padRight          // only after a row's last real token
	padAny
)

// hostBatch is a batch's mask and segments as plain numbers, [rows × width] or nil.
type hostBatch struct {
	rows, width     int
	mask, segments  []int64
	virtual, memory int     // tokens put before the batch, and positions counted before those
	before          []int64 // per row, real tokens that an earlier pass cached
}

func (b hostBatch) padded(row, i int) bool { return b.mask != nil && b.mask[row*b.width+i] == 0 }

func (b hostBatch) padding() padShape {
	shape := unpadded
	for r := range b.rows {
		for i := range b.width {
			if !b.padded(r, i) {
				continue
			}
			shape = max(shape, padRight)
			if i+1 < b.width && !b.padded(r, i+1) {
				return padAny
			}
		}
	}
	return shape
}

// counts is per row the real and virtual tokens up to the end of the batch.
func (b hostBatch) counts() []int64 {
	n := slices.Clone(b.before)
	for r := range n {
		n[r] += int64(b.virtual)
		for i := range b.width {
			if !b.padded(r, i) {
				n[r]++
			}
		}
	}
	return n
}

// positions is every new token's position, row by row, or one row's when all are alike, and the length of
// the longest text. Memories and virtual tokens take the first positions; each segment counts from there.
// With skip, padding takes none, as in transformers; without, all padding is behind the text, where nothing reads it.
func (b hostBatch) positions(skip bool) (at []int64, longest int) {
	n := b.virtual + b.width
	alike := true
	for r := range b.rows {
		next := int64(b.memory) + b.before[r]
		for range b.virtual {
			at = append(at, next)
			next++
		}
		start := next
		for i := range b.width {
			if b.segments != nil && i > 0 && b.segments[r*b.width+i] != b.segments[r*b.width+i-1] {
				next = start
			}
			if skip && b.padded(r, i) {
				at = append(at, max(next-1, 0))
				continue
			}
			if !b.padded(r, i) {
				longest = max(longest, int(next)+1)
			}
			at = append(at, next)
			next++
		}
		alike = alike && slices.Equal(at[:n], at[r*n:])
	}
	if alike {
		at = at[:n]
	}
	return at, longest
}
