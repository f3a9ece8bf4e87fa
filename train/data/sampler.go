package data

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// megaBatches is how many batches' worth of examples are sorted by length
// together: enough that a batch is of similar lengths, few enough that batches stay random.
const megaBatches = 50

// Sampler orders examples into batches. The batches of an epoch are a pure
// function of the sampler and the epoch's number, so a position in training is
// just (epoch, batch): to resume, ask for the epoch again and go on from there.
type Sampler struct {
	Lengths   []int  // tokens of each example
	BatchSize int    // most examples in a batch; 0: bounded by MaxTokens alone
	MaxTokens int    // most tokens in a batch, padding included; 0: no bound
	Shuffle   bool   // another random order every epoch
	Bucket    bool   // batch examples of similar length
	Seed      uint64 // of Shuffle
	Mix       *Mix   // how often the examples of several sources are used; nil: each once an epoch
}

// Mix makes epochs of examples of several sources. An epoch has as many examples as there are in all; each source has its
// weight's share of them, rounded by largest remainder. A source goes through its examples in one order after the other,
// over the borders of epochs: those of a small one come several times in an epoch, those of a large one in turn, and none
// comes a second time more often than another. With Shuffle each of these orders is random.
type Mix struct {
	Source  []uint16  // of each example
	Weights []float64 // of each source, above 0
}

func (m *Mix) check(n int) error {
	if len(m.Source) != n {
		return fmt.Errorf("sampler: %d sources of %d examples", len(m.Source), n)
	}
	has := make([]bool, len(m.Weights))
	for i, s := range m.Source {
		if int(s) >= len(has) {
			return fmt.Errorf("sampler: example %d is of source %d, there are %d", i, s, len(has))
		}
		has[s] = true
	}
	for s, w := range m.Weights {
		switch {
		case !(w > 0) || math.IsInf(w, 0):
			return fmt.Errorf("sampler: source %d has the weight %v", s, w)
		case !has[s]:
			return fmt.Errorf("sampler: source %d has a weight and no examples", s)
		}
	}
	return nil
}

// shares are how many examples of an epoch each source gives.
func (m *Mix) shares() []int {
	sum := 0.0
	for _, w := range m.Weights {
		sum += w
	}
	ratios := make([]float64, len(m.Weights))
	for s, w := range m.Weights {
		ratios[s] = w / sum
	}
	return apportion(len(m.Source), ratios)
}

// draw gives an epoch's examples of each source.
func (m *Mix) draw(seed uint64, epoch int, random bool) [][]int {
	examples := make([][]int, len(m.Weights))
	for i, s := range m.Source {
		examples[s] = append(examples[s], i)
	}
	drawn := make([][]int, len(m.Weights))
	for s, share := range m.shares() {
		own := examples[s]
		var order []int
		pass := -1
		for at := epoch * share; at < (epoch+1)*share; at++ {
			if now := at / len(own); now != pass {
				if pass = now; random {
					order = permutation(newRNG(seed, forMix+uint64(s)<<32, uint64(pass)), len(own))
				}
			}
			k := at % len(own)
			if random {
				k = order[k]
			}
			drawn[s] = append(drawn[s], own[k])
		}
	}
	return drawn
}

// interleave spreads each list evenly over the whole.
func interleave(lists [][]int) []int {
	n := 0
	for _, l := range lists {
		n += len(l)
	}
	out, taken := make([]int, 0, n), make([]int, len(lists))
	for len(out) < n {
		most, behind := -1, 0
		for s, l := range lists {
			if lag := len(l)*(len(out)+1) - taken[s]*n; taken[s] < len(l) && (most < 0 || lag > behind) {
				most, behind = s, lag
			}
		}
		out = append(out, lists[most][taken[most]])
		taken[most]++
	}
	return out
}

// Check reports settings that make no batches.
func (s Sampler) Check() error {
	if s.BatchSize < 0 || s.MaxTokens < 0 || s.BatchSize == 0 && s.MaxTokens == 0 {
		return fmt.Errorf("sampler: batch size %d and %d tokens: one of them must be above 0", s.BatchSize, s.MaxTokens)
	}
	if len(s.Lengths) == 0 {
		return errors.New("sampler: no examples")
	}
	for i, n := range s.Lengths {
		if n < 0 {
			return fmt.Errorf("sampler: example %d has length %d", i, n)
		}
	}
	if s.Mix != nil {
		return s.Mix.check(len(s.Lengths))
	}
	return nil
}

// Steady reports whether every epoch has as many batches.
func (s Sampler) Steady() bool { return s.MaxTokens == 0 || !s.Shuffle && s.Mix == nil }

// Epoch gives the batches of an epoch (from 0) as lists of example indices; every
// example is in exactly one, or as often as Mix says. An example longer than MaxTokens is a batch of its
// own.
//
// Without Shuffle and Bucket, batches follow the examples' order. Bucket alone
// sorts all examples, longest first. Shuffle draws a new order; with Bucket,
// stretches of it are sorted by length and cut, and then the batches are
// shuffled, the one with the longest example going first so that a lack of memory
// shows at once.
func (s Sampler) Epoch(epoch int) ([][]int, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if epoch < 0 {
		return nil, fmt.Errorf("sampler: epoch %d", epoch)
	}
	n := len(s.Lengths)
	rng := newRNG(s.Seed, forShuffle, uint64(epoch))
	var order []int
	switch {
	case s.Mix != nil && s.Shuffle:
		order = slices.Concat(s.Mix.draw(s.Seed, epoch, true)...)
		shuffle(rng, order)
	case s.Mix != nil:
		order = interleave(s.Mix.draw(s.Seed, epoch, false))
	case s.Shuffle:
		order = permutation(rng, n)
	default:
		order = make([]int, n)
		for i := range order {
			order[i] = i
		}
	}
	if !s.Bucket {
		return s.cut(nil, order), nil
	}
	if !s.Shuffle {
		s.sortByLength(order)
		return s.cut(nil, order), nil
	}
	var batches [][]int
	mega := s.megaBatch()
	for len(order) > 0 {
		part := order[:min(mega, len(order))]
		order = order[len(part):]
		s.sortByLength(part)
		batches = s.cut(batches, part)
	}
	shuffle(rng, batches)
	longest := 0
	for i, b := range batches {
		if s.Lengths[b[0]] > s.Lengths[batches[longest][0]] {
			longest = i
		}
	}
	batches[0], batches[longest] = batches[longest], batches[0]
	return batches, nil
}

// megaBatch is how many examples are sorted together.
func (s Sampler) megaBatch() int {
	size := s.BatchSize
	if s.MaxTokens > 0 {
		total := 0
		for _, n := range s.Lengths {
			total += n
		}
		fit := max(1, s.MaxTokens*len(s.Lengths)/max(1, total))
		if size == 0 || fit < size {
			size = fit
		}
	}
	return size * megaBatches
}

// sortByLength sorts longest first; equal lengths keep their order.
func (s Sampler) sortByLength(order []int) {
	slices.SortStableFunc(order, func(a, b int) int { return s.Lengths[b] - s.Lengths[a] })
}

// cut appends batches of consecutive examples.
func (s Sampler) cut(batches [][]int, order []int) [][]int {
	start, width := 0, 0
	for i, example := range order {
		count := i - start
		wider := max(width, s.Lengths[example])
		full := s.BatchSize > 0 && count == s.BatchSize
		over := s.MaxTokens > 0 && count > 0 && (count+1)*wider > s.MaxTokens
		if full || over {
			batches = append(batches, order[start:i:i])
			start, wider = i, s.Lengths[example]
		}
		width = wider
	}
	if start < len(order) {
		batches = append(batches, order[start:len(order):len(order)])
	}
	return batches
}
