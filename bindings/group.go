package bindings

import (
	"context"
	"sync"
	"time"
	"unsafe"

	"gopeft/bindings/csrc/c10d"
)

// GroupOptions say what a group is of.
type GroupOptions struct {
	Rank, Size int
	Address    string        // what this process listens on for the others; "": GLOO_SOCKET_IFNAME, else the host's name
	Timeout    time.Duration // of each operation
}

// Group is processes that compute together (libtorch's c10d: Gloo on CPUs, NCCL on GPUs). Every rank makes the same calls
// in the same order with tensors of the same sizes: where sizes differ Gloo ends the process, so ranks agree on them
// first. Its methods are called inside Do. After one has failed the group is of no more use: a peer is gone or hangs.
type Group struct {
	p      unsafe.Pointer
	failed bool

	mu   sync.Mutex // of what is called from any goroutine
	left bool
}

// JoinGroup meets the other ranks, whose processes must all call it within the timeout. It is called from any goroutine.
func JoinGroup(store *Store, o GroupOptions) (*Group, error) {
	store.mu.Lock()
	defer store.mu.Unlock()
	if store.p == nil {
		return nil, ErrStoreClosed
	}
	p, msg := c10d.Gloo(store.p, o.Address, o.Rank, o.Size, o.Timeout.Milliseconds())
	if msg != "" {
		return nil, c10dError(msg)
	}
	return &Group{p: p}, nil
}

// JoinNCCL lets what is on GPUs be computed by NCCL. LoadCUDA comes before it.
func (s *Scope) JoinNCCL(g *Group, store *Store, o GroupOptions) error {
	store.mu.Lock()
	defer store.mu.Unlock()
	if store.p == nil {
		return ErrStoreClosed
	}
	return c10dError(c10d.AddNCCL(g.p, store.p, o.Rank, o.Size, o.Timeout.Milliseconds()))
}

// Leave ends this process's part. A group that has failed is left to the end of the process: leaving it would wait for
// the operation that does not end.
func (g *Group) Leave() error {
	if g.Broken() {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left = true
	return c10dError(c10d.Leave(g.p))
}

// Sum adds up the ranks' t, in place.
func (g *Group) Sum(ctx context.Context, t Tensor) error {
	w, msg := c10d.Sum(g.p, t.p)
	return g.wait(ctx, w, msg)
}

// Broadcast gives every rank root's t, in place.
func (g *Group) Broadcast(ctx context.Context, t Tensor, root int) error {
	w, msg := c10d.Broadcast(g.p, t.p, root)
	return g.wait(ctx, w, msg)
}

// Gather puts the ranks' parts into whole, [size, …] of part, in the order of the ranks. Both are contiguous.
func (g *Group) Gather(ctx context.Context, whole, part Tensor) error {
	w, msg := c10d.Gather(g.p, whole.p, part.p)
	return g.wait(ctx, w, msg)
}

// waitMS is how long one wait for the other ranks lasts before the context is looked at again.
const waitMS = 100

func (g *Group) wait(ctx context.Context, w c10d.Work, msg string) error {
	if msg != "" {
		g.failed = true
		return c10dError(msg)
	}
	defer c10d.FreeWork(w)
	return g.poll(ctx, func() (bool, string) { return c10d.Wait(w, waitMS) })
}

// poll calls wait until it is done, fails, or the context ends. What is under way then goes on without anybody waiting.
func (g *Group) poll(ctx context.Context, wait func() (bool, string)) error {
	for {
		done, msg := wait()
		if msg == "" && done {
			return nil
		}
		if msg != "" {
			g.failed = true
			return c10dError(msg)
		}
		if ctx.Err() != nil {
			g.failed = true
			return context.Cause(ctx)
		}
	}
}

// Gradients are those of some parameters, summed over a group while the backward pass still makes others. A step calls
// Begin, runs its backward passes, the last one after Last, and then Sum.
type Gradients struct {
	p     c10d.Gradients
	group *Group
}

// BucketBytes is how much of the gradients travels at a time: as PyTorch's DistributedDataParallel has it.
const BucketBytes = 25 << 20

// SumGradients lets params have gradients that are summed over g. From Begin on they are views of memory of its own,
// until Close.
func (s *Scope) SumGradients(g *Group, params []Tensor) (*Gradients, error) {
	return s.sumGradients(g, params, BucketBytes)
}

func (s *Scope) sumGradients(g *Group, params []Tensor, bucket int64) (*Gradients, error) {
	p, msg := c10d.NewGradients(g.p, s.pointers(params), bucket)
	if msg != "" {
		return nil, c10dError(msg)
	}
	return &Gradients{p, g}, nil
}

// Begin makes all gradients zero.
func (a *Gradients) Begin() error { return c10dError(c10d.BeginGradients(a.p)) }

// Last says that the coming backward pass is the step's last, so that gradients may leave as soon as they are there.
func (a *Gradients) Last() error { return c10dError(c10d.LastGradients(a.p)) }

// Sum returns when every gradient is the sum of the ranks'. A parameter that has none on any rank has none then.
func (a *Gradients) Sum(ctx context.Context) error {
	if msg := c10d.EndGradients(a.p); msg != "" {
		a.group.failed = true
		return c10dError(msg)
	}
	return a.group.poll(ctx, func() (bool, string) { return c10d.WaitGradients(a.p, waitMS) })
}

// Close gives the parameters gradients of their own again.
func (a *Gradients) Close() {
	if a != nil && !a.group.failed {
		c10d.FreeGradients(a.p)
	}
}

// Hash is a number that two lists of tensors share only where they hold the same bits.
func (s *Scope) Hash(ts []Tensor) uint64 {
	h, msg := c10d.Hash(s.pointers(ts))
	s.check("hash", msg)
	return h
}
