package tokenizer

// mergeRule says that tokens left and right, side by side, become token id. Its rank is its
// place in the list.
type mergeRule struct{ left, right, id int32 }

type merged struct {
	rank uint32
	id   int32
}

// mergeTable finds the merge of a pair: open addressing, a power of two of slots.
type mergeTable struct {
	keys   []uint64 // left<<32 | right, plus 1 so that 0 is a free slot
	values []merged
	result []int32 // the token that each rank merges to
	shift  uint
}

func newMergeTable(rules []mergeRule) *mergeTable {
	bits := uint(4)
	for 1<<bits < 2*len(rules) {
		bits++
	}
	m := &mergeTable{
		keys: make([]uint64, 1<<bits), values: make([]merged, 1<<bits),
		result: make([]int32, len(rules)), shift: 64 - bits,
	}
	for rank, r := range rules {
		m.result[rank] = r.id
		k := pairKey(r.left, r.right)
		i := m.slot(k)
		for m.keys[i] != 0 && m.keys[i] != k {
			i = (i + 1) & uint64(len(m.keys)-1)
		}
		m.keys[i], m.values[i] = k, merged{uint32(rank), r.id} // of two equal pairs the later counts
	}
	return m
}

func pairKey(left, right int32) uint64 { return uint64(left)<<32 | uint64(right) + 1 }

// slot spreads keys by a multiplication with 2^64 divided by the golden ratio.
func (m *mergeTable) slot(key uint64) uint64 { return key * 0x9E3779B97F4A7C15 >> m.shift }

func (m *mergeTable) find(left, right int32) (merged, bool) {
	k := pairKey(left, right)
	for i := m.slot(k); ; i = (i + 1) & uint64(len(m.keys)-1) {
		switch m.keys[i] {
		case k:
			return m.values[i], true
		case 0:
			return merged{}, false
		}
	}
}
