package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"

	"gopeft/train"
	"gopeft/train/data"
)

// work is made-up data: token ids of given lengths.
type work struct {
	lengths []int
	ids     [][]int64
	labels  []int
	width   int // of every batch; 0: its longest row's
}

// makeWork draws rows of c's lengths. Ids below 1000 are left to the special tokens of real vocabularies.
func makeWork(c Config, vocab, labels int) (*work, error) {
	lengths, err := c.lengths()
	if err != nil {
		return nil, err
	}
	low := 1
	if vocab > 2000 {
		low = 1000
	}
	if vocab <= low {
		return nil, fmt.Errorf("a vocabulary of %d is too small to draw from", vocab)
	}
	w := &work{lengths: lengths, ids: make([][]int64, len(lengths)), labels: make([]int, len(lengths))}
	if c.Pad == PadMax {
		w.width = c.Seq
	}
	r := rand.New(rand.NewPCG(c.Seed, 1))
	for i, n := range lengths {
		w.ids[i] = make([]int64, n)
		for k := range w.ids[i] {
			w.ids[i][k] = int64(low + r.IntN(vocab-low))
		}
		w.labels[i] = r.IntN(max(labels, 1))
	}
	return w, nil
}

// lengths are the rows' lengths: all Seq, or those of the file, cut at Seq.
func (c Config) lengths() ([]int, error) {
	if c.Lengths == "" {
		out := make([]int, c.Steps*c.Batch)
		for i := range out {
			out[i] = c.Seq
		}
		return out, nil
	}
	raw, err := os.ReadFile(c.Lengths)
	if err != nil {
		return nil, err
	}
	var out []int
	tokens := 0
	for i, field := range strings.Fields(string(raw)) {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%s: length %d is %q, want a positive number", c.Lengths, i+1, field)
		}
		out = append(out, min(n, c.Seq))
		if tokens += out[i]; tokens > mostTokens {
			return nil, fmt.Errorf("%s: more than %d tokens", c.Lengths, mostTokens)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no lengths in it", c.Lengths)
	}
	if c.Mode == Infer && c.Steps > 0 {
		out = out[:min(len(out), c.Steps*c.Batch)]
	}
	return out, nil
}

// order is how training goes through the rows.
func (w *work) order(c Config) data.Sampler {
	return data.Sampler{Lengths: w.lengths, BatchSize: c.Batch, Shuffle: true, Bucket: c.Pad == PadBucket, Seed: c.Seed}
}

// padding is the share of padding in batches.
func (w *work) padding(batches [][]int) float64 {
	tokens, positions := 0, 0
	for _, batch := range batches {
		width := w.width
		for _, i := range batch {
			tokens += w.lengths[i]
			width = max(width, w.lengths[i])
		}
		positions += len(batch) * width
	}
	return 1 - float64(tokens)/float64(positions)
}

// part lays the rows out for a classifier, or for a language model that learns every token.
func (w *work) part(causal, inTurn bool) *train.Part {
	p := &train.Part{Lengths: w.lengths, InTurn: inTurn}
	o := data.CollateOptions{Width: w.width}
	if causal {
		p.Collate = func(examples []int) (data.Batch, error) {
			seqs := make([]data.Sequence, len(examples))
			for k, i := range examples {
				seqs[k] = data.Sequence{IDs: w.ids[i], Targets: w.ids[i]}
			}
			return data.CollateCausal(seqs, o)
		}
		return p
	}
	p.Collate = func(examples []int) (data.Batch, error) {
		seqs, labels := make([][]int64, len(examples)), make([]int64, len(examples))
		for k, i := range examples {
			seqs[k], labels[k] = w.ids[i], int64(w.labels[i])
		}
		return data.Collate(seqs, labels, o)
	}
	return p
}
