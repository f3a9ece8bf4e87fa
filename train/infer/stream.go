package infer

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"

	"gopeft/bindings/fault"
	"gopeft/train/data"
	"gopeft/train/data/rows"
)

// StreamRows is Predictor.Stream for any encoder. Leaving the loop stops what reads ahead, and the loop ends only
// when that has returned; but a cancelled context ends the loop at once, even where a read of a pipe never returns.
func StreamRows(ctx context.Context, r *data.ExampleReader, size int, enc data.Encoder, maxLength, vocab, workers int) iter.Seq[Rows] {
	return func(yield func(Rows) bool) {
		ahead, cancel := context.WithCancel(ctx)
		out := make(chan Rows, 1)
		go func() {
			defer close(out)
			err := fault.Guard(func() error {
				readAhead(ahead, out, r, size, enc, maxLength, vocab, workers)
				return nil
			})
			if err != nil {
				select {
				case out <- Rows{Err: err}:
				case <-ahead.Done():
				}
			}
		}()
		defer func() {
			cancel()
			for {
				select {
				case _, open := <-out:
					if !open {
						return
					}
				case <-ctx.Done():
					return
				}
			}
		}()
		for {
			select {
			case part, open := <-out:
				if !open || !yield(part) {
					return
				}
			case <-ctx.Done():
				yield(Rows{Err: ctx.Err()})
				return
			}
		}
	}
}

// readAhead sends the tokenized rows of r until its end, an error, which is sent last, or the end of ctx.
func readAhead(ctx context.Context, out chan<- Rows, r *data.ExampleReader, size int, enc data.Encoder, maxLength, vocab, workers int) {
	send := func(part Rows) bool {
		select {
		case out <- part:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for end := false; !end && ctx.Err() == nil; {
		var part Rows
		var failed error
		part.Examples, end, failed = readRows(r, size)
		if len(part.Examples) > 0 {
			var err error
			part.Examples, part.IDs, err = encodeRows(ctx, r, part.Examples, enc, maxLength, vocab, workers)
			if err != nil {
				failed = err
			}
			if len(part.Examples) > 0 && !send(part) {
				return
			}
		}
		if failed != nil {
			send(Rows{Err: failed})
			return
		}
	}
}

// encodeRows tokenizes examples. Bad ones are left out where the reader skips such; else the error is of the first, and
// what comes before it is given.
func encodeRows(ctx context.Context, r *data.ExampleReader, examples []data.Example, enc data.Encoder, maxLength, vocab, workers int) ([]data.Example, [][]int64, error) {
	for {
		ids, err := data.EncodeAll(ctx, enc, examples, maxLength, vocab, workers)
		var bad *rows.Error
		if !errors.As(err, &bad) {
			return examples, ids, err
		}
		at := slices.IndexFunc(examples, func(x data.Example) bool { return x.Row == bad.Row })
		switch {
		case at < 0:
			return nil, nil, err
		case r.Skip(bad):
			examples = slices.Delete(examples, at, at+1)
		default:
			ids, again := data.EncodeAll(ctx, enc, examples[:at], maxLength, vocab, workers)
			return examples[:at], ids, errors.Join(again, err)
		}
	}
}

// stretchBytes is how much text a stretch holds before it ends, however few rows that is.
const stretchBytes = 8 << 20

// readRows reads up to size examples, fewer of long texts; end is true after the last.
func readRows(r *data.ExampleReader, size int) (examples []data.Example, end bool, err error) {
	for bytes := 0; len(examples) < size && bytes < stretchBytes; {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return examples, true, nil
		}
		if err != nil {
			return examples, true, err
		}
		examples = append(examples, e)
		bytes += len(e.Text) + 8*len(e.IDs)
	}
	return examples, false, nil
}
