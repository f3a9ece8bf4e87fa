package classic

import (
	"cmp"
	"context"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"gopeft/bindings/fault"
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
	var next atomic.Int64
	errs := make([]error, n)
	group, running := errgroup.WithContext(ctx)
	for w := range min(workerCount(workers), n) {
		group.Go(func() error {
			for running.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					break
				}
				if errs[i] = fault.Guard(func() error { return fn(w, i) }); errs[i] != nil {
					return errs[i]
				}
			}
			return nil
		})
	}
	if group.Wait() != nil { // the first in time: not always the lowest
		return cmp.Or(errs...)
	}
	return ctx.Err()
}

// forEachBlock is forEach over blocks [from, to) of n rows.
func forEachBlock(ctx context.Context, workers, n, block int, fn func(worker, from, to int) error) error {
	return forEach(ctx, workers, (n+block-1)/block, func(w, i int) error {
		return fn(w, i*block, min(n, (i+1)*block))
	})
}
