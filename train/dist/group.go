package dist

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gopeft/bindings"
	"gopeft/bindings/fault"
	"gopeft/train/launch"
)

// Options say who a process is and how it behaves.
type Options struct {
	World   launch.World
	Timeout time.Duration // for the others to come, and to answer later
	Build   string        // what all processes must be, e.g. the versions of gopeft and libtorch
}

// Group is the processes of a run. Its methods but At and Fail are called from one goroutine at a time.
type Group struct {
	world   launch.World
	timeout time.Duration
	keys    *words // for whoever calls
	beats   *words // for the goroutine of the beats, which never waits for the other
	peers   []peer
	address string
	group   atomic.Pointer[bindings.Group] // after Join
	backend string

	ctx    context.Context // ends with the reason why the run cannot go on
	fail   context.CancelCauseFunc
	at     atomic.Pointer[string]
	seq    atomic.Int64  // operations of the group that were begun
	waited time.Duration // in operations of the group

	stop    context.CancelFunc // of the beats
	beating sync.WaitGroup
}

// peer is what a process tells of itself when it comes.
type peer struct {
	Host      string `json:"host"`
	Machine   string `json:"machine"` // where a process's number means the same
	PID       int    `json:"pid"`
	Started   string `json:"started"` // tells a process from a later one of the same number
	Build     string `json:"build"`
	Address   string `json:"address"`
	Interface string `json:"interface"`
}

// PeerError is the failure of a process of the run, as all of them tell it. It is what a rank leaves in the store.
type PeerError struct {
	Rank    int    `json:"rank"`
	Host    string `json:"host"` // "" where the process has not come
	Text    string `json:"text"`
	Stopped bool   `json:"stopped"` // it was interrupted, so this is no failure
	Gone    bool   `json:"gone"`    // it does not read this
}

func (e *PeerError) Error() string {
	if e.Host == "" {
		return fmt.Sprintf("rank %d %s", e.Rank, e.Text)
	}
	return fmt.Sprintf("rank %d on %s %s", e.Rank, e.Host, e.Text)
}

// Run calls fn as one of the processes of a run, which have met; for a process alone with a nil Group. fn's context ends
// also where another process has failed, and the error is that one's then. together tells an error with which all
// processes end at the same place, as they do without one; with any other this one tells the rest why it fails.
func Run(ctx context.Context, o Options, together func(error) bool, fn func(ctx context.Context, g *Group) error) error {
	g, err := Connect(ctx, o)
	switch {
	case err != nil:
		return err
	case g == nil:
		return fn(ctx, nil)
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(g.ctx, cancel)
	err = errors.New("a fault of its own") // what a panic in fn is to the others
	defer func() {
		if err != nil && !together(err) {
			g.Fail(err)
		}
	}()
	err = fn(inner, g)
	if errors.Is(err, context.Canceled) && g.ctx.Err() != nil {
		err = context.Cause(g.ctx)
	}
	if err == nil || together(err) {
		if left := g.Leave(context.WithoutCancel(ctx)); err == nil {
			err = left
		}
	}
	return stopped(err)
}

// stopped makes another process's interruption this one's too.
func stopped(err error) error {
	if e := (*PeerError)(nil); errors.As(err, &e) && e.Stopped && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %w", err, context.Canceled)
	}
	return err
}

// Connect meets the other processes at their store; nil for a process alone. Nothing is computed together before Join.
func Connect(ctx context.Context, o Options) (*Group, error) {
	w := o.World
	if w.Size <= 1 {
		return nil, nil
	}
	g := &Group{world: w, timeout: o.Timeout, peers: make([]peer, w.Size)}
	g.ctx, g.fail = context.WithCancelCause(context.WithoutCancel(ctx))
	g.stop = func() {}
	g.At("the start")
	var err error
	unknown := (*net.DNSError)(nil) // a name that its service may give only once rank 0 is there
	if g.address, err = ownAddress(w); err != nil && !errors.As(err, &unknown) {
		return nil, err
	}
	if err := g.open(ctx); err != nil {
		return nil, err
	}
	if g.address == "" {
		if g.address, err = ownAddress(w); err != nil {
			return nil, err
		}
	}
	if err := g.meet(ctx, o.Build); err != nil {
		g.Fail(err)
		return nil, stopped(err)
	}
	beating, stop := context.WithCancel(context.WithoutCancel(ctx))
	g.stop = stop
	g.beating.Go(func() { g.beat(beating) })
	return g, nil
}

// open connects to the store, twice: a call on a store waits for the one before.
func (g *Group) open(ctx context.Context) error {
	w := g.world
	o := bindings.StoreOptions{Host: w.Host, Port: w.Port, Prefix: "gopeft/" + w.Attempt, Timeout: g.timeout, Serve: w.Rank == 0 && !w.Served, Listen: w.Listen}
	type opened struct {
		keys, beats *words
		err         error
	}
	done := make(chan opened, 1)
	go func() { // the library's call does not know of ctx
		var r opened
		r.err = fault.Guard(func() (err error) {
			if r.keys, err = openWords(o); err == nil {
				o.Serve, o.Listen = false, 0
				r.beats, err = openWords(o)
			}
			return err
		})
		done <- r
	}()
	limit := time.NewTimer(g.timeout) // the library's ends only while nobody listens
	defer limit.Stop()
	var err error
	select {
	case r := <-done:
		g.keys, g.beats, err = r.keys, r.beats, r.err
	case <-limit.C:
		err = errSilent
	case <-ctx.Done():
		return ctx.Err()
	}
	switch {
	case err == nil:
		return nil
	case w.Rank == 0 || w.Served:
		return fmt.Errorf("rank %d of %d: the store at %s:%d (%s): %w", w.Rank, w.Size, w.Host, w.Port, w.Source, err)
	}
	return fmt.Errorf("rank 0 has not come within %s: it does not keep the store at %s:%d (%s): %w", g.timeout, w.Host, w.Port, w.Source, err)
}

func openWords(o bindings.StoreOptions) (*words, error) {
	store, err := bindings.OpenStore(o)
	return &words{store: store, limit: o.Timeout}, err
}

// meet waits for every process, and sees that all are the same program.
func (g *Group) meet(ctx context.Context, build string) error {
	host, err := os.Hostname()
	if err != nil {
		host = "an unnamed host"
	}
	me := peer{Host: host, Machine: machine(), PID: os.Getpid(), Started: startOf(os.Getpid()), Build: build}
	me.Address, me.Interface = listens(g.address)
	g.peers[g.Rank()] = me
	if err := g.keys.setJSON(rankKey("here", g.Rank()), me); err != nil {
		return g.storeError(err)
	}
	limit := time.Now().Add(g.timeout)
	for rank := range g.peers {
		err := g.await(ctx, limit, func() (bool, error) {
			if ok, err := g.keys.getJSON(g.timeout, rankKey("here", rank), &g.peers[rank]); ok || err != nil {
				return ok, err
			}
			_, err := g.heed(g.keys)
			return false, err
		})
		if errors.Is(err, errLate) {
			return g.peerError(rank, "has not come within %s; the store is at %s:%d", g.timeout, g.world.Host, g.world.Port)
		}
		if err != nil {
			return err
		}
	}
	for rank, p := range g.peers {
		if p.Build != g.peers[0].Build {
			return g.peerError(rank, "runs %s, rank 0 on %s %s: all must be the same", p.Build, g.peers[0].Host, g.peers[0].Build)
		}
	}
	return nil
}

// Rank is this process's number.
func (g *Group) Rank() int {
	if g == nil {
		return 0
	}
	return g.world.Rank
}

// Size is how many processes there are.
func (g *Group) Size() int {
	if g == nil {
		return 1
	}
	return g.world.Size
}

// First reports whether this is the process that writes and prints.
func (g *Group) First() bool { return g.Rank() == 0 }

// Local is how many of the processes are on this machine.
func (g *Group) Local() int {
	if g == nil {
		return 1
	}
	return g.world.LocalSize
}

// LocalRank is this process's number among those.
func (g *Group) LocalRank() int {
	if g == nil {
		return 0
	}
	return g.world.LocalRank
}

// At says where in the run this process is, for the others to tell should it be lost.
func (g *Group) At(place string) {
	if g != nil {
		g.at.Store(&place)
	}
}

// Agree sees that every rank has the same value of something.
func (g *Group) Agree(ctx context.Context, what, value string) error {
	if g == nil {
		return nil
	}
	values, err := g.exchange(ctx, "agree/"+what, value)
	if err != nil {
		return err
	}
	for rank, v := range values {
		if v != values[0] {
			return g.peerError(rank, "has other %s than rank 0 on %s: %s, not %s", what, g.peers[0].Host, short(v), short(values[0]))
		}
	}
	return nil
}

// exchange is every rank's value under a key. A rank may take as long as it lives.
func (g *Group) exchange(ctx context.Context, key, value string) ([]string, error) {
	if err := g.keys.set(rankKey(key, g.Rank()), []byte(value)); err != nil {
		return nil, g.storeError(err)
	}
	values := make([]string, g.Size())
	for rank := range values {
		raw, err := g.read(ctx, rankKey(key, rank))
		if err != nil {
			return nil, err
		}
		values[rank] = string(raw)
	}
	return values, nil
}

// Share is rank 0's value, on every rank.
func (g *Group) Share(ctx context.Context, key string, value []byte) ([]byte, error) {
	if g == nil {
		return value, nil
	}
	if g.First() {
		if err := g.keys.set("share/"+key, value); err != nil {
			return nil, g.storeError(err)
		}
		return value, nil
	}
	return g.read(ctx, "share/"+key)
}

// read waits for a key that another rank sets.
func (g *Group) read(ctx context.Context, key string) (value []byte, err error) {
	err = g.await(ctx, time.Time{}, func() (ok bool, err error) {
		value, ok, err = g.keys.get(key)
		return ok, err
	})
	return value, err
}

// errLate is that of await after its limit.
var errLate = errors.New("too late")

// await calls fn until it reports that it is done. It ends with ctx, at a limit that is not zero, and where the run
// cannot go on.
func (g *Group) await(ctx context.Context, limit time.Time, fn func() (bool, error)) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		done, err := fn()
		switch {
		case err != nil:
			return g.storeError(err)
		case done:
			return nil
		case !limit.IsZero() && time.Now().After(limit):
			return errLate
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-g.ctx.Done():
			return context.Cause(g.ctx)
		case <-time.After(pause):
		}
	}
}

// Join makes the group that computes together, once every rank is ready to: whatever takes long comes before it.
func (g *Group) Join(ctx context.Context, s *bindings.Scope, device bindings.Device) error {
	if g == nil {
		return nil
	}
	if _, err := g.exchange(ctx, "ready", ""); err != nil {
		return err
	}
	type joined struct {
		group *bindings.Group
		err   error
	}
	done := make(chan joined, 1)
	go func() { // it does not know of a rank that is lost meanwhile
		var r joined
		r.err = fault.Guard(func() (err error) {
			r.group, err = bindings.JoinGroup(g.keys.store, bindings.GroupOptions{Rank: g.Rank(), Size: g.Size(), Address: g.address, Timeout: g.timeout})
			return err
		})
		done <- r
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return g.lost(r.err)
		}
		g.group.Store(r.group)
		g.backend = "Gloo"
		context.AfterFunc(g.ctx, r.group.GiveUp)
	case <-g.ctx.Done():
		return context.Cause(g.ctx)
	}
	if device.IsCUDA() {
		if err := s.JoinNCCL(g.group.Load(), g.keys.store, bindings.GroupOptions{Rank: g.Rank(), Size: g.Size(), Timeout: g.timeout}); err != nil {
			return err
		}
		g.backend = "NCCL"
	}
	return nil
}
