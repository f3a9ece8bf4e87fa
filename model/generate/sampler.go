package generate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// sampler draws one continuation's tokens. The filters run in transformers' order: repetition penalty,
// temperature, top-k, top-p, min-p.
type sampler struct {
	o     Options
	rng   *rand.Rand
	pool  []candidate
	seen  map[int64]bool
	count int // ids whose tokens are in seen
}

type candidate struct {
	id    int32
	score float32 // logit, then probability up to a common factor
}

func newSampler(o Options, prompt int) *sampler {
	return &sampler{o: o, rng: rand.New(rand.NewPCG(o.Seed, uint64(prompt))), seen: map[int64]bool{}}
}

// next chooses a token by its logits, which it changes; ids is the text so far. It fails on logits that are
// not numbers.
func (s *sampler) next(logits []float32, ids []int64) (id int64, ok bool) {
	s.penalise(logits, ids)
	best := 0
	for i, v := range logits {
		if v != v {
			return 0, false
		}
		if v > logits[best] {
			best = i
		}
	}
	highest := logits[best]
	if math.IsInf(float64(highest), 0) {
		return 0, false
	}
	if s.o.Temperature == 0 {
		return int64(best), true
	}
	s.pool = s.pool[:0]
	total := 0.0
	for i, v := range logits {
		p := math.Exp(float64(v-highest) / s.o.Temperature)
		total += p
		s.pool = append(s.pool, candidate{int32(i), float32(p)})
	}
	return s.draw(total), true
}

// penalise makes tokens that are already there less probable (Keskar et al. 2019).
func (s *sampler) penalise(logits []float32, ids []int64) {
	penalty := float32(s.o.penalty())
	if penalty == 1 {
		return
	}
	for _, id := range ids[s.count:] {
		s.seen[id] = true
	}
	s.count = len(ids)
	for id := range s.seen {
		if v := logits[id]; v > 0 {
			logits[id] = v / penalty
		} else {
			logits[id] = v * penalty
		}
	}
}

// draw filters the pool, whose scores sum to total and are at most 1, and takes one of what is left.
func (s *sampler) draw(total float64) int64 {
	if k := s.o.TopK; k > 0 && k < len(s.pool) {
		s.pool = topK(s.pool, k)
		total = sum(s.pool)
	}
	if p := s.o.TopP; p > 0 && p < 1 {
		s.pool = topP(s.pool, p, total)
	}
	if floor := s.o.MinP; floor > 0 {
		s.pool = slices.DeleteFunc(s.pool, func(c candidate) bool { return float64(c.score) < floor })
	}
	left := s.rng.Float64() * sum(s.pool)
	for _, c := range s.pool {
		if left -= float64(c.score); left < 0 {
			return int64(c.id)
		}
	}
	return int64(s.pool[len(s.pool)-1].id)
}

func sum(pool []candidate) float64 {
	total := 0.0
	for _, c := range pool {
		total += float64(c.score)
	}
	return total
}

// byScore puts the most probable first, and of equals the lowest id.
func byScore(a, b candidate) int {
	return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.id, b.id))
}

// topK keeps the k best, unordered: a heap with the worst on top.
func topK(pool []candidate, k int) []candidate {
	heap := pool[:k]
	sift := func(i int) {
		for {
			worst := i
			for child := 2*i + 1; child <= 2*i+2 && child < k; child++ {
				if byScore(heap[child], heap[worst]) > 0 {
					worst = child
				}
			}
			if worst == i {
				return
			}
			heap[i], heap[worst] = heap[worst], heap[i]
			i = worst
		}
	}
	for i := k / 2; i >= 0; i-- {
		sift(i)
	}
	for _, c := range pool[k:] {
		if byScore(c, heap[0]) < 0 {
			heap[0] = c
			sift(0)
		}
	}
	return heap
}

// topP keeps the fewest most probable that hold p of the total, in order.
func topP(pool []candidate, p, total float64) []candidate {
	// What is below an even share of the remainder cannot be needed: all of it together holds less than 1-p.
	floor := float32((1 - p) * total / float64(len(pool)))
	best := slices.MaxFunc(pool, func(a, b candidate) int { return byScore(b, a) })
	pool = slices.DeleteFunc(pool, func(c candidate) bool { return c.score < floor && c.id != best.id })
	slices.SortFunc(pool, byScore)
	held := 0.0
	for i, c := range pool {
		if held += float64(c.score); held >= p*total {
			return pool[:i+1]
		}
	}
	return pool
}
