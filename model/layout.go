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
	starts []int64         // [B × length], where each token's segment begins; nil: there are none, or they are in pieces
	counts []int64         // per row, real tokens up to the end of this pass
	front  int64           // virtual tokens, which every segment sees
	kind   bindings.SightKind

	at      []int64         // positions of one row's new tokens, or of every row's
	given   bindings.Tensor // positions in their place, [B, length]; or none
	longest int             // tokens of the longest row, memories and virtual ones included

	made []windowSight
}

// sight is which keys a block's tokens see: by a bias that is added to the scores; or, with causal, those up to a token's
// own place that by leaves.
type sight struct {
	bias   bindings.Tensor
	causal bool
	by     bindings.Sight
}

type windowSight struct {
	extra  int64
	window int
	byBias bool
	sight  sight
}

// newLayout reads a batch with so many virtual tokens in front of it, and memory positions before those. What depends on
// the mask's content is worked out on the host, from one copy of it. readPadding says that the states of padding will be
// read, as a classifier's may be that reads the last position.
func newLayout(s *bindings.Scope, in Input, virtual, memory int, d bindings.DType, readPadding bool) *layout {
	rows, width := in.IDs.Size(0), in.IDs.Size(1)
	l := &layout{scope: s, device: in.IDs.Device(), dtype: d, length: int64(virtual) + width, front: int64(virtual)}
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
		b.mask = known(in.Mask, in.Host.Mask)
	}
	if in.Segments.Defined() {
		b.segments = known(in.Segments, in.Host.Segments)
		l.starts = b.segmentStarts()
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
	l.at, l.longest = b.positions(shape == padAny)
	l.longest = max(l.longest, in.FullLength)
	l.counts = b.counts()
	if p := in.Positions; p.Defined() {
		l.longest = int(slices.Max(known(p, in.Host.Positions))) + virtual + memory + 1
		l.given = explicitPositions(s, p, virtual, memory)
	}
	return l
}

// positions are where the new tokens stand, [1 or B, length].
func (l *layout) positions(s *bindings.Scope) bindings.Tensor {
	if l.given.Defined() {
		return l.given
	}
	return s.Int64sOn(l.device, l.at, int64(len(l.at))/l.length, l.length)
}

// turn makes the tables of a rotation of so many dimensions.
func (l *layout) turn(rope Rope, dims int) (t turn) {
	t.cos, t.sin = l.scope.In2(func(s *bindings.Scope) (bindings.Tensor, bindings.Tensor) {
		cos, sin := rotation(s, l.positions(s), rope.frequencies(dims, l.longest), bindings.Float)
		if rope.Amplitude != 0 {
			cos, sin = s.MulScalar(cos, rope.Amplitude), s.MulScalar(sin, rope.Amplitude)
		}
		return s.To(cos, l.dtype), s.To(sin, l.dtype)
	})
	return t
}

// explicitPositions puts the virtual tokens' positions before given ones and shifts those.
func explicitPositions(s *bindings.Scope, p bindings.Tensor, virtual, memory int) bindings.Tensor {
	shift := int64(memory + virtual)
	p = s.AddScalar(p, float64(shift))
	if virtual == 0 {
		return p
	}
	v := s.Arange(int64(memory), shift, bindings.Int64, p.Device())
	return s.Cat(1, s.Expand(s.Unsqueeze(v, 0), p.Size(0), -1), p)
}

// sees is which keys a block's tokens see: the extra keys in front, and of the past+length others those up to their own
// place, within their segment and window, that are not padding. A mask is made where nothing less will do, or byBias says so.
func (l *layout) sees(extra int64, window int, byBias bool) sight {
	total := l.past + l.length
	if int64(window) >= total {
		window = 0
	}
	if !l.mask.Defined() && !l.groups.Defined() && window == 0 {
		if l.length == 1 {
			return sight{}
		}
		if l.past == 0 && extra == 0 && !byBias {
			return sight{causal: true}
		}
	}
	for _, m := range l.made {
		if m.extra == extra && m.window == window && m.byBias == byBias {
			return m.sight
		}
	}
	see, ok := sight{}, false
	if !byBias {
		see, ok = l.withoutMask(extra, window)
	}
	if !ok {
		see = sight{bias: l.bias(extra, window)}
	}
	l.made = append(l.made, windowSight{extra, window, byBias, see})
	return see
}

// withoutMask is sees where a kernel serves that takes no mask.
func (l *layout) withoutMask(extra int64, window int) (sight, bool) {
	packed := l.groups.Defined()
	switch {
	case l.mask.Defined(), packed && l.starts == nil:
		return sight{}, false
	case l.kind == bindings.ByStarts && (window == 0 || !packed || l.front == 0):
		return sight{causal: true, by: l.startsOf(extra, window)}, true
	case l.kind == bindings.ByLengths && packed && window == 0 && extra == 0 && l.front == 0:
		return sight{causal: true, by: l.lengths()}, true
	}
	return sight{}, false
}

// startsOf is where what each token sees begins, counted with the extra keys.
func (l *layout) startsOf(extra int64, window int) bindings.Sight {
	by := bindings.Sight{Lead: extra}
	if window == 0 && l.starts == nil {
		return by
	}
	first := make([]int64, l.length)
	if l.starts != nil {
		by.Lead += l.front
		first = slices.Clone(l.starts)
	}
	for i := range first {
		first[i] += extra
		if window > 0 {
			own := l.past + int64(i)%l.length
			first[i] = max(first[i], extra+own-int64(window)+1)
		}
	}
	by.Starts = l.scope.Int64sOn(l.device, first, int64(len(first))/l.length, l.length)
	return by
}

// lengths is where the segments of all rows end.
func (l *layout) lengths() bindings.Sight {
	ends, longest := segmentEnds(l.starts, int(l.length))
	return bindings.Sight{Longest: longest, Ends: l.scope.In(func(s *bindings.Scope) bindings.Tensor {
		return s.To(s.Int64sOn(l.device, ends, int64(len(ends))), bindings.Int)
	})}
}

// bias is what to add to a block's scores, [1 or B, 1, length, extra+past+length]: 0 where a key may be seen and masked
// where not.
func (l *layout) bias(extra int64, window int) bindings.Tensor {
	return l.scope.In(func(s *bindings.Scope) bindings.Tensor {
		f := l.forbidden(s, window)
		b := s.MaskedFill(s.Zeros(f.Shape(), l.dtype, l.device), f, bindings.Masked(l.dtype))
		if extra == 0 {
			return b
		}
		return s.Cat(3, s.Zeros([]int64{b.Size(0), 1, l.length, extra}, l.dtype, l.device), b)
	})
}

// forbidden is true where a new token must not see a key, bool [1 or B, 1, length, past+length].
func (l *layout) forbidden(s *bindings.Scope, window int) bindings.Tensor {
	total := l.past + l.length
	queries := s.Reshape(s.Arange(l.past, total, bindings.Int64, l.device), 1, 1, l.length, 1)
	keys := s.Reshape(s.Arange(0, total, bindings.Int64, l.device), 1, 1, 1, total)
	f := s.Compare(keys, bindings.Greater, queries)
	if window > 0 {
		if l.groups.Defined() && l.front > 0 { // the virtual tokens are as far from any segment's first token as from a row's
			at := l.positions(s)
			queries, keys = s.Reshape(at, -1, 1, l.length, 1), s.Reshape(at, -1, 1, 1, l.length)
		}
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
