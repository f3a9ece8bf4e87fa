package train

import (
	"context"
	"errors"
	"io"

	"gopeft/train/data"
)

// StreamRows is Predictor.Stream for any encoder.
func StreamRows(ctx context.Context, r *data.ExampleReader, size int, enc data.Encoder, maxLength, workers int) <-chan Rows {
	out := make(chan Rows, 1)
	send := func(rows Rows) bool {
		select {
		case out <- rows:
			return true
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		defer close(out)
		for {
			rows, end := readRows(r, size)
			if len(rows.Examples) > 0 {
				ids, err := data.EncodeAll(ctx, enc, rows.Examples, maxLength, workers)
				if err != nil {
					send(Rows{Err: err})
					return
				}
				rows.IDs = ids
				failed := rows.Err
				rows.Err = nil
				if !send(rows) {
					return
				}
				rows.Err = failed
			}
			if rows.Err != nil {
				send(Rows{Err: rows.Err})
			}
			if end || rows.Err != nil {
				return
			}
		}
	}()
	return out
}

// readRows reads up to size examples; end is true after the last.
func readRows(r *data.ExampleReader, size int) (rows Rows, end bool) {
	for len(rows.Examples) < size {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return rows, true
		}
		if err != nil {
			rows.Err = err
			return rows, true
		}
		rows.Examples = append(rows.Examples, e)
	}
	return rows, false
}
