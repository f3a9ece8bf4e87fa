package generate

import (
	"fmt"
	"math"
)

// Options say how to continue prompts. The zero value is greedy decoding up to the model's context.
type Options struct {
	MaxNew int // new tokens at most; 0: as many as the context holds

	Temperature       float64 // logits are divided by it; 0: take the most probable token
	TopK              int     // draw from the k most probable tokens; 0: from all
	TopP              float64 // draw from the fewest tokens that hold this much probability; 0 or 1: from all
	MinP              float64 // drop tokens less probable than this share of the most probable one's; 0: none
	RepetitionPenalty float64 // divides positive logits, multiplies negative ones, of tokens already there; 0 or 1: none
	Seed              uint64  // of the draws; a prompt's draws also depend on its place in the list
	Places            []int   // the prompts' places, where the list is part of a longer one; nil: 0, 1, …

	EOS  []int64  // tokens that end a text
	Stop []string // strings that end a text; they are cut off. They need Decode

	Batch   int                          // prompts continued at once; 0: 16
	Context int                          // positions at most; 0: the model's
	Decode  func(prompt []int64) Decoder // makes a decoder for a prompt's continuation; nil: ids only
	NoCache bool                         // compute all tokens anew at every step
	// Share computes the tokens that all prompts begin with once, for all of them. Results differ in the last digits.
	Share bool
	// SkipLong ends a prompt that leaves no room for an answer at once, with reason Context, instead of failing the run.
	SkipLong bool
}

// Decoder turns a continuation's ids into text bit by bit, holding back what is not certain yet.
type Decoder interface {
	Push(id int64) string
	Flush() string // the rest
}

// Reason is why a continuation ended.
type Reason string

// The reasons.
const (
	EOS     Reason = "eos"     // one of Options.EOS
	Stop    Reason = "stop"    // one of Options.Stop
	Length  Reason = "length"  // Options.MaxNew tokens
	Context Reason = "context" // the model holds no more positions
)

// Result is the continuation of one prompt.
type Result struct {
	IDs    []int64 // new tokens, the one that ended it included
	Text   string  // without end tokens and stop strings; "" without a Decoder
	Reason Reason
}

// Event is one new token of one prompt.
type Event struct {
	Prompt int // place in the list of prompts
	ID     int64
	Text   string // new text, "" while a character or a possible stop string is incomplete
	Reason Reason // set with the last token
}

// Check reports the first option that is out of its range.
func (o Options) Check() error {
	for _, f := range []struct {
		name       string
		v, lo, hi  float64
		describing string
	}{
		{"temperature", o.Temperature, 0, math.MaxFloat64, "0 (greedy) or more"},
		{"top-k", float64(o.TopK), 0, math.MaxInt32, "0 (all) or more"},
		{"top-p", o.TopP, 0, 1, "0 to 1"},
		{"min-p", o.MinP, 0, 1, "0 to 1"},
		{"repetition penalty", o.RepetitionPenalty, 0, math.MaxFloat64, "1 (none) or more"},
		{"number of new tokens", float64(o.MaxNew), 0, math.MaxInt32, "0 (all the context holds) or more"},
		{"batch size", float64(o.Batch), 0, math.MaxInt32, "1 or more"},
		{"context", float64(o.Context), 0, math.MaxInt32, "0 (the model's) or more"},
	} {
		if !(f.v >= f.lo && f.v <= f.hi) {
			return fmt.Errorf("generate: %s is %v, want %s", f.name, f.v, f.describing)
		}
	}
	if len(o.Stop) > 0 && o.Decode == nil {
		return fmt.Errorf("generate: stop strings need a decoder")
	}
	for _, stop := range o.Stop {
		if stop == "" {
			return fmt.Errorf("generate: a stop string is empty")
		}
	}
	return nil
}

// penalty is the repetition penalty, 1 for none.
func (o Options) penalty() float64 {
	if o.RepetitionPenalty == 0 {
		return 1
	}
	return o.RepetitionPenalty
}
