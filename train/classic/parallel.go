package classic

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// workerCount turns the option into a number: 0 means all cores.
func workerCount(workers int) int {
	if workers > 0 {
		return workers
	}
	return runtime.GOMAXPROCS(0)
}

// forEach runs fn(worker, i) for every i in [0, n) on the given number of
// workers, each with its own number in [0, workers). Tasks are handed out in
// order; the error of the lowest failed task is returned, and no new task
// starts after an error or once ctx is done.
func forEach(ctx context.Context, workers, n int, fn func(worker, i int) error) error {
	workers = min(workerCount(workers), n)
	if workers <= 1 {
		for i := range n {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := fn(0, i); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	var (
		next   atomic.Int64
		failed atomic.Bool
		wg     sync.WaitGroup
		mu     sync.Mutex
		lowest = n
		first  error
	)
	for w := range workers {
		wg.Go(func() {
			for !failed.Load() && ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := fn(w, i); err != nil {
					failed.Store(true)
					mu.Lock()
					if i < lowest {
						lowest, first = i, err
					}
					mu.Unlock()
					return
				}
			}
		})
	}
	wg.Wait()
	if first != nil {
		return first
	}
	return ctx.Err()
}

// forEachBlock is forEach over blocks [from, to) of n rows.
func forEachBlock(ctx context.Context, workers, n, block int, fn func(worker, from, to int) error) error {
	return forEach(ctx, workers, (n+block-1)/block, func(w, i int) error {
		return fn(w, i*block, min(n, (i+1)*block))
	})
}
