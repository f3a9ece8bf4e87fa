package data

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"gopeft/train/data/rows"

	"golang.org/x/sync/errgroup"

	"gopeft/bindings/fault"
)

// Encoder turns text into token ids.
type Encoder interface {
	// EncodeIDs appends the ids of text to dst, special tokens included, at most
	// maxLength of them (0: no limit). It must be safe for concurrent use.
	EncodeIDs(dst []int64, text string, maxLength int) ([]int64, error)
}

// EncodeAll tokenizes examples on the given number of goroutines; rows that carry
// ids are cut to maxLength. An example without a single token is an error, as is an id that a model with vocab tokens
// (0: not known) has not; the error is that of the first example that fails.
func EncodeAll(ctx context.Context, enc Encoder, examples []Example, maxLength, vocab, workers int) ([][]int64, error) {
	ids := make([][]int64, len(examples))
	err := ForEach(ctx, len(examples), workers, func(i int) error {
		var err error
		ids[i], err = Encode(enc, examples[i], maxLength, vocab)
		return err
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// Encode is EncodeAll of one example.
func Encode(enc Encoder, ex Example, maxLength, vocab int) (ids []int64, err error) {
	switch ids = ex.IDs; {
	case ids == nil:
		if ids, err = enc.EncodeIDs(nil, ex.Text, maxLength); err != nil {
			return nil, &rows.Error{File: ex.File, Line: ex.Line, Row: ex.Row, Err: fmt.Errorf("tokenize: %w", err)}
		}
	case maxLength > 0 && len(ids) > maxLength:
		ids = ids[:maxLength]
	}
	if len(ids) == 0 { // where the tokenizer adds no special token
		return nil, &rows.Error{File: ex.File, Line: ex.Line, Row: ex.Row, Err: errors.New("the text is empty: it gives no tokens")}
	}
	if err := CheckVocab("input_ids", ids, vocab); err != nil {
		return nil, &rows.Error{File: ex.File, Line: ex.Line, Row: ex.Row, Err: err}
	}
	return ids, nil
}

// CheckVocab refuses the first of some token ids, called what, that a model with so many (0: not known) has not.
func CheckVocab(what string, ids []int64, vocab int) error {
	for i, id := range ids {
		if vocab > 0 && (id < 0 || id >= int64(vocab)) && id != IgnoreTarget {
			return fmt.Errorf("token %d of %s is %d, the model's vocabulary has %d", i+1, what, id, vocab)
		}
	}
	return nil
}

// ForEach runs do for 0..n-1 on the given number of goroutines, a chunk at a time
// each, and returns the error of the lowest index that failed. A panic in do is
// such an error.
func ForEach(ctx context.Context, n, workers int, do func(i int) error) error {
	const chunk = 32
	errs := make([]error, (n+chunk-1)/chunk)
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(max(1, workers))
	for c := range errs {
		if running.Err() != nil {
			break
		}
		// Chunks begin in order and are not left once begun, so no lower index can fail unseen.
		group.Go(func() error {
			for i := c * chunk; i < min((c+1)*chunk, n) && errs[c] == nil; i++ {
				errs[c] = fault.Guard(func() error { return do(i) })
			}
			return errs[c]
		})
	}
	if group.Wait() != nil { // the first in time: not always the lowest
		return cmp.Or(errs...)
	}
	return ctx.Err()
}
