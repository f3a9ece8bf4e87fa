package train

import (
	"context"
	"errors"
	"io"
	"iter"

	"gopeft/train/data"
)

// StreamRows is Predictor.Stream for any encoder. Leaving the loop stops what reads ahead, and the loop ends only
// when that has returned; but a cancelled context ends the loop at once, even where a read of a pipe never returns.
func StreamRows(ctx context.Context, r *data.ExampleReader, size int, enc data.Encoder, maxLength, vocab, workers int) iter.Seq[Rows] {
	return func(yield func(Rows) bool) {
		ahead, cancel := context.WithCancel(ctx)
		out := make(chan Rows, 1)
		go func() {
			defer close(out)
			readAhead(ahead, out, r, size, enc, maxLength, vocab, workers)
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
			case rows, open := <-out:
				if !open || !yield(rows) {
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
	send := func(rows Rows) bool {
		select {
		case out <- rows:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for end := false; !end && ctx.Err() == nil; {
		var rows Rows
		var failed error
		rows.Examples, end, failed = readRows(r, size)
		if len(rows.Examples) > 0 {
			ids, err := data.EncodeAll(ctx, enc, rows.Examples, maxLength, vocab, workers)
			if rows.IDs = ids; err != nil {
				failed = err
			} else if !send(rows) {
				return
			}
		}
		if failed != nil {
			send(Rows{Err: failed})
			return
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
