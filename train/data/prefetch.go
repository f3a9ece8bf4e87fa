package data

import (
	"context"
	"iter"
	"sync"

	"gopeft/bindings/fault"
)

// Prefetch computes values 0..n-1 on worker goroutines, at most depth of them
// ahead of the reader, and yields them in order:
//
//	for batch, err := range data.Prefetch(ctx, len(batches), 4, 2, collate) { … }
//
// The loop's body runs on the caller's goroutine. An error is yielded once, last;
// a cancelled context is such an error. Leaving the loop stops the workers, and
// the loop ends only when they have returned.
func Prefetch[T any](ctx context.Context, n, depth, workers int, compute func(ctx context.Context, i int) (T, error)) iter.Seq2[T, error] {
	depth, workers = max(1, depth), max(1, workers)
	type result struct {
		value T
		err   error
	}
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()

		// Value i waits in slot i mod depth; a permit per slot keeps i+depth from
		// being started before i was taken out.
		slots := make([]chan result, depth)
		for i := range slots {
			slots[i] = make(chan result, 1)
		}
		permits := make(chan struct{}, depth)
		work := make(chan int)
		wg.Go(func() {
			defer close(work)
			for i := range n {
				select {
				case permits <- struct{}{}:
				case <-ctx.Done():
					return
				}
				select {
				case work <- i:
				case <-ctx.Done():
					return
				}
			}
		})
		for range workers {
			wg.Go(func() {
				for i := range work {
					var r result
					r.err = fault.Guard(func() (err error) {
						r.value, err = compute(ctx, i)
						return err
					})
					slots[i%depth] <- r
				}
			})
		}

		var zero T
		for i := range n {
			if err := ctx.Err(); err != nil { // also where the next value is ready
				yield(zero, err)
				return
			}
			select {
			case r := <-slots[i%depth]:
				<-permits
				if r.err != nil {
					yield(zero, r.err)
					return
				}
				if !yield(r.value, nil) {
					return
				}
			case <-ctx.Done():
				yield(zero, ctx.Err())
				return
			}
		}
	}
}
