package tokenizer

import (
	"bytes"
	"hash/maphash"
)

// subword is a token within a word: its id and how many bytes of the word it takes.
type subword struct{ id, n int32 }

const (
	cacheSlots   = 1 << 14
	cacheKeyMax  = 64 // longer words are rarely seen twice
	cacheKeySize = 1 << 19
)

// wordCache remembers how words were cut. A word has one slot, taken over by whatever hashes
// there next; everything is forgotten when the store is full. It holds no pointers, so the
// garbage collector passes over it.
type wordCache struct {
	seed  maphash.Seed
	slots []cacheSlot
	keys  []byte
	subs  []subword
}

type cacheSlot struct {
	hash       uint32
	key, sub   uint32 // offsets in keys and subs
	keyN, subN uint16 // keyN 0: the slot is free
}

// lookup returns how word was cut, and the slot to store it in if it is not there.
func (c *wordCache) lookup(word []byte) (subs []subword, slot int, hash uint32) {
	if c.slots == nil {
		c.seed = maphash.MakeSeed()
		c.slots = make([]cacheSlot, cacheSlots)
	}
	h := maphash.Bytes(c.seed, word)
	slot, hash = int(h>>32)%cacheSlots, uint32(h)
	s := &c.slots[slot]
	if s.keyN != 0 && s.hash == hash && bytes.Equal(c.keys[s.key:s.key+uint32(s.keyN)], word) {
		return c.subs[s.sub : s.sub+uint32(s.subN)], slot, hash
	}
	return nil, slot, hash
}

func (c *wordCache) store(slot int, hash uint32, word []byte, subs []subword) {
	if len(c.keys)+len(word) > cacheKeySize || len(subs) == 0 {
		if len(subs) == 0 {
			return // nothing to remember it by
		}
		clear(c.slots)
		c.keys, c.subs = c.keys[:0], c.subs[:0]
	}
	c.slots[slot] = cacheSlot{hash, uint32(len(c.keys)), uint32(len(c.subs)), uint16(len(word)), uint16(len(subs))}
	c.keys = append(c.keys, word...)
	c.subs = append(c.subs, subs...)
}
