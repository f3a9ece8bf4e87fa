// Package generate continues prompts with a causal language model: greedily or by sampling, one or many at a
// time, with a key/value cache and whatever method is attached to the model.
//
//	err := bindings.Do(ctx, func(s *bindings.Scope) error {
//		results, err := generate.Run(s, lm, [][]int64{ids}, generate.Options{MaxNew: 64, EOS: []int64{2}}, nil)
//		...
//	})
//
// A prompt's continuation depends on the prompt, the options and the seed alone, not on what else is in the
// batch. Text comes from a Decoder, such as package tokenizer's streams.
//
// The package's own words:
//
//   - Prompt: the token ids that are given; continuation: those that the model adds; row: both, while they grow.
//   - Place: a prompt's number in the whole list, which its draws depend on.
//   - Piece: part of long prompts' tokens, computed at once because all would take too much memory.
//   - Draw: to choose a token at random by its probability.
//   - Held: text that is not given out yet, because a stop string may begin in it.
package generate
