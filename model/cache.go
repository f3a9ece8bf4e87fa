package model

import (
	"maps"
	"slices"

	"gopeft/bindings"
)

// Cache holds the keys and values of the tokens that a decoder has seen, for generation: each call of Forward
// computes the new tokens only. Memories enter it with the first call, so every call of Forward must run with
// the same hooks; nothing of it is recorded for gradients. Buffers grow by doubling.
type Cache struct {
	scope    *bindings.Scope
	capacity int64
	layers   map[int]*cacheLayer
	branches map[[2]int][2]bindings.Tensor // a branch's own keys and values, by block and place
	tokens   int64                         // filled places, padding included, memories excluded
	counts   []int64                       // real tokens of each row
	mask     bindings.Tensor               // [B, tokens], none while nothing is padded
}

type cacheLayer struct {
	k, v  bindings.Tensor // [B, Hkv, capacity, D]
	used  int64
	front int64 // positions of memories
}

// NewCache makes an empty cache with room for capacity tokens at first. It lives until Close.
func NewCache(s *bindings.Scope, capacity int) *Cache {
	return &Cache{scope: s.NewScope(), capacity: int64(max(capacity, 1)), layers: map[int]*cacheLayer{}, branches: map[[2]int][2]bindings.Tensor{}}
}

// Close frees the cache.
func (c *Cache) Close() { c.scope.Close() }

// Len is the number of places filled so far, padding included.
func (c *Cache) Len() int { return int(c.tokens) }

// Keep drops all rows but those listed, in the order listed.
func (c *Cache) Keep(s *bindings.Scope, rows []int) {
	index := make([]int64, len(rows))
	counts := make([]int64, len(rows))
	for i, r := range rows {
		index[i], counts[i] = int64(r), c.counts[r]
	}
	c.counts = counts
	_ = s.Run(func(s *bindings.Scope) error {
		for _, l := range c.layers {
			at := s.Int64sOn(l.k.Device(), index, int64(len(index)))
			c.replace(&l.k, s.IndexSelect(l.k, 0, at), s)
			c.replace(&l.v, s.IndexSelect(l.v, 0, at), s)
		}
		if c.mask.Defined() {
			at := s.Int64sOn(c.mask.Device(), index, int64(len(index)))
			c.replace(&c.mask, s.IndexSelect(c.mask, 0, at), s)
		}
		return nil
	})
}

// Fork is a new cache that begins with the first places of the rows listed, in the order listed, and has room for so many
// more behind them. A row may be listed several times; none may hold padding in those places. c stays as it is, and has to
// outlive the new one.
func (c *Cache) Fork(s *bindings.Scope, rows []int, places, more int) *Cache {
	f := NewCache(s, places+more)
	f.tokens = int64(places)
	f.counts = slices.Repeat([]int64{f.tokens}, len(rows))
	maps.Copy(f.branches, c.branches) // which are of no row
	_ = s.Run(func(s *bindings.Scope) error {
		for block, l := range c.layers {
			n := l.front + f.tokens
			of := &cacheLayer{used: n, front: l.front}
			f.layers[block] = of
			f.copyRows(s, &of.k, l.k, rows, n, int64(more))
			f.copyRows(s, &of.v, l.v, rows, n, int64(more))
		}
		return nil
	})
	return f
}

// copyRows makes a buffer with the first n places of some rows of from, and room for more.
func (c *Cache) copyRows(s *bindings.Scope, to *bindings.Tensor, from bindings.Tensor, rows []int, n, more int64) {
	*to = c.scope.Empty([]int64{int64(len(rows)), from.Size(1), n + max(more, 1), from.Size(3)}, from.DType(), from.Device())
	place, kept := s.Narrow(*to, 2, 0, n), s.Narrow(from, 2, 0, n)
	if from.Size(0) > 1 {
		index := make([]int64, len(rows))
		for i, r := range rows {
			index[i] = int64(r)
		}
		kept = s.IndexSelect(kept, 0, s.Int64sOn(from.Device(), index, int64(len(index))))
	}
	s.Copy(place, kept) // of one row: to all
}

// replace frees *old and puts t, owned by s, in its place.
func (c *Cache) replace(old *bindings.Tensor, t bindings.Tensor, s *bindings.Scope) {
	c.scope.Free(*old)
	*old = s.MoveTo(c.scope, t)
}

// extra is the number of memory positions in front of a block's keys; memory is what a pass without a cache,
// or the first pass with one, has there.
func (c *Cache) extra(block int, memory []bindings.Tensor) int64 {
	if c == nil || c.tokens == 0 {
		return memoryLen(memory)
	}
	return c.layers[block].front
}

// add appends new keys and values [B, Hkv, n, D] to a block's and gives all of them. memory goes before the
// first ones.
func (c *Cache) add(s *bindings.Scope, block int, memory []bindings.Tensor, k, v bindings.Tensor) (allK, allV bindings.Tensor) {
	l := c.layers[block]
	if l == nil {
		l = &cacheLayer{front: memoryLen(memory)}
		c.layers[block] = l
		for i := 0; i < len(memory); i += 2 {
			c.append(s, l, batchOf(s, memory[i], k), batchOf(s, memory[i+1], v))
		}
	}
	c.append(s, l, k, v)
	return s.Narrow(l.k, 2, 0, l.used), s.Narrow(l.v, 2, 0, l.used)
}

func (c *Cache) append(s *bindings.Scope, l *cacheLayer, k, v bindings.Tensor) {
	n := k.Size(2)
	c.grow(s, &l.k, l.used, n, k)
	c.grow(s, &l.v, l.used, n, v)
	s.Copy(s.Narrow(l.k, 2, l.used, n), k)
	s.Copy(s.Narrow(l.v, 2, l.used, n), v)
	l.used += n
}

// grow makes room for n places after the used ones in a buffer of tensors like t.
func (c *Cache) grow(s *bindings.Scope, buffer *bindings.Tensor, used, n int64, t bindings.Tensor) {
	capacity := c.capacity
	if buffer.Defined() {
		capacity = buffer.Size(2)
	}
	for capacity < used+n {
		capacity *= 2
	}
	if buffer.Defined() && capacity == buffer.Size(2) {
		return
	}
	wider := c.scope.Empty([]int64{t.Size(0), t.Size(1), capacity, t.Size(3)}, t.DType(), t.Device())
	if used > 0 {
		s.Copy(s.Narrow(wider, 2, 0, used), s.Narrow(*buffer, 2, 0, used))
	}
	if buffer.Defined() {
		c.scope.Free(*buffer)
	}
	*buffer = wider
}

// projected makes a branch compute its own keys and values once.
func (c *Cache) projected(s *bindings.Scope, block, branch int, project func(bindings.Tensor) (k, v bindings.Tensor)) func(bindings.Tensor) (k, v bindings.Tensor) {
	return func(x bindings.Tensor) (bindings.Tensor, bindings.Tensor) {
		at := [2]int{block, branch}
		kv, ok := c.branches[at]
		if !ok {
			k, v := project(x)
			kv = [2]bindings.Tensor{s.MoveTo(c.scope, k), s.MoveTo(c.scope, v)}
			c.branches[at] = kv
		}
		return kv[0], kv[1]
	}
}

// maskWith is the mask over the cached tokens and those of in, none while nothing is padded.
func (c *Cache) maskWith(s *bindings.Scope, in Input, shape padShape, virtual int) bindings.Tensor {
	if shape == unpadded && !c.mask.Defined() {
		return bindings.Tensor{}
	}
	rows, dev := in.IDs.Size(0), in.IDs.Device()
	ones := func(n int64) bindings.Tensor { return s.Full([]int64{rows, n}, 1, bindings.Int64, dev) }
	fresh := in.Mask
	if !fresh.Defined() {
		fresh = ones(in.IDs.Size(1))
	}
	fresh = extendMask(s, fresh, virtual)
	old := c.mask
	if !old.Defined() {
		old = ones(c.tokens)
	}
	return s.Cat(1, old, fresh)
}

// advance counts the tokens of a finished pass.
func (c *Cache) advance(l *layout) {
	c.tokens += l.length
	c.counts = l.counts
	if l.mask.Defined() {
		if c.mask.Defined() {
			c.scope.Free(c.mask)
		}
		c.mask = c.scope.Alias(l.mask)
	}
}
