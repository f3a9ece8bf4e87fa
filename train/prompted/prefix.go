package prompted

import (
	"gopeft/bindings"
	"gopeft/model"
)

// prefix is what all texts begin with, in a cache of one row.
type prefix struct {
	len   int          // tokens
	full  int          // of the longest text
	cache *model.Cache // nil: there is none
}

// pieceTokens is how many tokens of a prefix are computed at once.
const pieceTokens = 512

// prefix computes the tokens that all texts begin with, up to their ends at most, which are computed with each.
func (sc Scorer) prefix(s *bindings.Scope, texts [][]int64, ends []int, full int) (p prefix, err error) {
	p = prefix{len: ends[0], full: full}
	for i, text := range texts {
		n := 0
		for n < min(p.len, ends[i]) && text[n] == texts[0][n] {
			n++
		}
		p.len = n
	}
	if p.len == 0 {
		return p, nil
	}
	p.cache = model.NewCache(s, p.len)
	for from := 0; from < p.len; from += pieceTokens {
		if err := s.Context().Err(); err != nil {
			p.close()
			return p, err
		}
		_ = s.Run(func(s *bindings.Scope) error {
			piece := texts[0][from:min(from+pieceTokens, p.len)]
			sc.compute(s, func() {
				sc.LM.Forward(s, model.Input{IDs: s.Int64sOn(sc.On.Device, piece, 1, int64(len(piece))), Cache: p.cache, FullLength: full, HiddenOnly: true})
			})
			return nil
		})
	}
	return p, nil
}

// places are those of the prefix in caches, virtual tokens included.
func (p prefix) places() int {
	if p.cache == nil {
		return 0
	}
	return p.cache.Len()
}

// fork is a cache of some rows that begin with the prefix, with room for more tokens.
func (p prefix) fork(s *bindings.Scope, rows, more int) *model.Cache {
	if p.cache == nil {
		return model.NewCache(s, more)
	}
	return p.cache.Fork(s, make([]int, rows), p.places(), more)
}

func (p prefix) close() {
	if p.cache != nil {
		p.cache.Close()
	}
}
