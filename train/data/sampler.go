package data

import (
	"errors"
	"fmt"
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
	return nil
}

// Epoch gives the batches of an epoch (from 0) as lists of example indices; every
// example is in exactly one. An example longer than MaxTokens is a batch of its
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
	if s.Shuffle {
		order = permutation(rng, n)
	} else {
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
