package bindings

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"

	"gopeft/bindings/csrc"
	"gopeft/bindings/fault"
)

// worker is the one thread that talks to libtorch. There is one per process since libtorch's own state is.
type worker struct {
	jobs chan job
	tid  int
	err  error // of the environment, which every Do returns
}

type job struct {
	fn   func(*Scope) error
	ctx  context.Context
	done chan outcome
}

type outcome struct {
	err   error
	panic any
	stack []byte
}

var startWorker = sync.OnceValue(func() *worker {
	w := &worker{jobs: make(chan job)}
	ready := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		debug.SetPanicOnFault(true) // of mapped files
		w.tid = syscall.Gettid()
		buf := newBuffers()
		csrc.KeepLargeBlocks(true)
		// It is C that reads the variable; read here too, it is among those that `go test` keeps results by.
		asked := os.Getenv("GOPEFT_CPU")
		if msg := csrc.CPUPathCheck(); msg != "" {
			w.err = fmt.Errorf("GOPEFT_CPU=%s: %s", asked, msg)
		}
		close(ready)
		for j := range w.jobs {
			j.done <- run(j, buf)
		}
	}()
	<-ready
	return w
})

// ErrNested is returned by Do when it is called from inside another Do.
var ErrNested = errors.New("bindings.Do called inside bindings.Do: pass the *Scope on instead")

// Do runs fn on libtorch's thread and waits for it. The scope it passes closes when fn returns; what has to
// outlive fn belongs in a scope from NewScope. A failing tensor operation inside fn ends it and is returned
// as *OpError; any other panic continues in the caller. If ctx is done before fn starts, Do returns its error.
// fn itself is never interrupted: loops inside ask s.Context().
func Do(ctx context.Context, fn func(*Scope) error) error {
	w := startWorker()
	if w.err != nil {
		return w.err
	}
	if syscall.Gettid() == w.tid {
		return ErrNested
	}
	j := job{fn: fn, ctx: ctx, done: make(chan outcome, 1)}
	select {
	case w.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	}
	o := <-j.done
	if o.panic != nil {
		panic(fmt.Sprintf("%v\n\nlibtorch thread:\n%s", o.panic, o.stack))
	}
	return o.err
}

func run(j job, buf *buffers) (o outcome) {
	if err := j.ctx.Err(); err != nil {
		return outcome{err: err}
	}
	s := &Scope{buf: buf, ctx: j.ctx}
	defer s.Close()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case *OpError:
			o = outcome{err: r}
		case interface{ Addr() uintptr }:
			o = outcome{err: fault.ErrMapping}
		default:
			o = outcome{panic: r, stack: debug.Stack()}
		}
	}()
	return outcome{err: j.fn(s)}
}
