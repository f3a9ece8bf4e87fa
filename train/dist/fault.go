package dist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gopeft/bindings"
)

const (
	faultKey = "fault"     // the first fault of any rank
	every    = time.Second // between two beats
	silent   = 4 * every   // a process that writes no beat for so long is gone, or stopped
)

// pulse is a beat's content.
type pulse struct {
	N   int64  `json:"n"`   // counts the beats
	At  string `json:"at"`  // where the rank is
	Seq int64  `json:"seq"` // operations of the group that it has begun
}

// beat tells the others that this process lives, and looks after them, until ctx ends.
func (g *Group) beat(ctx context.Context) {
	w := watch{group: g, seen: make([]sighting, g.Size())}
	misses := 0
	for n := int64(1); ; n++ {
		err := g.beats.setJSON(rankKey("beat", g.Rank()), pulse{n, *g.at.Load(), g.begun()})
		if err == nil {
			err = w.look()
		}
		switch {
		case err == nil:
			misses = 0
		case ctx.Err() != nil:
			return
		default:
			if misses++; misses > 1 {
				g.fail(g.storeError(err))
				return
			}
		}
		if g.ctx.Err() != nil {
			_ = g.beats.set(rankKey("left", g.Rank()), nil) // whoever keeps the store need not wait longer for this one
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-g.ctx.Done():
		case <-time.After(every):
		}
	}
}

// watch is what a process remembers of the others.
type watch struct {
	group *Group
	seen  []sighting
	last  time.Time // when this process had last looked
}

// sighting is a rank's newest beat, and when it was new here.
type sighting struct {
	pulse
	when time.Time
}

// look ends the run where a rank has left a fault, has died, or is silent for too long. Every rank sees those of its own
// machine die; the first one reads the beats of all.
func (w *watch) look() error {
	g := w.group
	w.forgive()
	defer func() { w.last = time.Now() }()
	if failed, err := g.heed(g.beats); failed || err != nil {
		return err
	}
	for rank := range g.peers {
		if rank == g.Rank() {
			continue
		}
		lost, err := w.missing(rank)
		if err != nil {
			return err
		}
		if lost == nil {
			continue
		}
		if failed, err := g.heed(g.beats); failed || err != nil { // it has said why since
			return err
		}
		switch _, done, err := g.beats.get(rankKey("done", rank)); {
		case err != nil:
			return err
		case !done:
			g.fail(lost)
			g.tell(lost)
			return nil
		}
	}
	return nil
}

// forgive lets the others' silence count from now on where this process has been stopped itself, as all of them may have
// been.
func (w *watch) forgive() {
	now := time.Now()
	if now.Sub(w.last) > silent {
		for i := range w.seen {
			if s := &w.seen[i]; !s.when.IsZero() {
				s.when = now
			}
		}
	}
}

// missing is the error of a rank that is silent for too long or has died; nil: neither.
func (w *watch) missing(rank int) (*PeerError, error) {
	g := w.group
	dead := g.dead(rank)
	if dead || g.First() {
		if err := w.read(rank, g.timeout); err != nil {
			return nil, err
		}
	}
	at := w.seen[rank].At
	if dead {
		return g.gone(rank, "(process %d) ended without a word; it was at %s", g.peers[rank].PID, at), nil
	}
	if since := time.Since(w.seen[rank].when); g.First() && since > g.patience() {
		return g.gone(rank, "has not been heard of for %s; it was at %s", since.Round(time.Second), at), nil
	}
	return nil, nil
}

// heed ends the run where there is a fault in the store, and reports whether there is.
func (g *Group) heed(from *words) (failed bool, err error) {
	var e PeerError
	if ok, err := from.getJSON(from.limit, faultKey, &e); !ok || err != nil {
		return false, err
	}
	g.fail(&e)
	return true, nil
}

// tell leaves a fault for the other ranks. Later ones come of the first.
func (g *Group) tell(e *PeerError) {
	if _, taken, err := g.beats.get(faultKey); err == nil && !taken {
		_ = g.beats.setJSON(faultKey, e)
	}
}

func (g *Group) peerError(rank int, format string, args ...any) *PeerError {
	return &PeerError{Rank: rank, Host: g.peers[rank].Host, Text: fmt.Sprintf(format, args...)}
}

// gone is the error of a rank that does not read it.
func (g *Group) gone(rank int, format string, args ...any) *PeerError {
	e := g.peerError(rank, format, args...)
	e.Gone = true
	return e
}

// patience is how long a rank may be silent: a little less than an operation that waits for it takes to fail, so that it
// can be named.
func (g *Group) patience() time.Duration { return max(g.timeout-silent-2*every, g.timeout/2) }

func (w *watch) read(rank int, limit time.Duration) error {
	var p pulse
	ok, err := w.group.beats.getJSON(limit, rankKey("beat", rank), &p)
	if err != nil {
		return err
	}
	if seen := &w.seen[rank]; ok && p.N != seen.N || seen.when.IsZero() {
		seen.pulse, seen.when = p, time.Now()
		if seen.At == "" {
			seen.At = "the start"
		}
	}
	return nil
}

// dead reports whether a rank's process, on this machine, has ended.
func (g *Group) dead(rank int) bool {
	p, me := g.peers[rank], g.peers[g.Rank()]
	return p.Machine == me.Machine && p.Machine != "" && startOf(p.PID) != p.Started
}

// lost is the error of an operation of the group that failed: whose fault that is, as soon as it is known.
func (g *Group) lost(err error) error {
	w := watch{group: g, seen: make([]sighting, g.Size())}
	first := make([]int64, g.Size())
	for all := false; !all; time.Sleep(every / 10) {
		all = true // the others live: each has written beats since
		for rank := range g.peers {
			if g.ctx.Err() != nil { // the beats have found it
				return context.Cause(g.ctx)
			}
			if failed := w.read(rank, silent); failed != nil {
				g.fail(g.storeError(failed))
				return context.Cause(g.ctx)
			}
			seen := &w.seen[rank]
			if first[rank] == 0 {
				first[rank] = seen.N
			}
			if rank != g.Rank() && time.Since(seen.when) > silent {
				return g.gone(rank, "does not answer; it was at %s", seen.At)
			}
			all = all && (rank == g.Rank() || seen.N > first[rank]+1)
		}
	}
	if behind := w.behind(); behind >= 0 {
		return g.peerError(behind, "has not come to where the others are within %s; it is at %s", g.timeout, w.seen[behind].At)
	}
	return fmt.Errorf("another process of the run does not answer: %w", err)
}

// begun is how many operations of the group this rank has begun.
func (g *Group) begun() int64 {
	n := g.seq.Load()
	if group := g.group.Load(); group != nil {
		gathers, _ := group.Gathered()
		n += gathers
	}
	return n
}

// Rescue is the error of a panic with which the gathering of weights that ranks share has ended: whose fault that is. Any
// other panic goes on.
func (g *Group) Rescue(panicked any) error {
	e, ok := panicked.(*bindings.OpError)
	if g == nil || !ok {
		panic(panicked)
	}
	if group := g.group.Load(); group == nil || !group.Broken() {
		panic(panicked)
	}
	return g.lost(e)
}

// behind is the rank that has begun fewer operations than this one; -1: none.
func (w *watch) behind() int {
	least, mine := -1, w.group.begun()
	for rank, s := range w.seen {
		if rank != w.group.Rank() && s.Seq < mine {
			least, mine = rank, s.Seq
		}
	}
	return least
}

// storeError is the error of a call on the store: who kept it is gone. It is another's fault where that is known.
func (g *Group) storeError(err error) error {
	if g.ctx.Err() != nil {
		return context.Cause(g.ctx)
	}
	if g.world.Served {
		return fmt.Errorf("the store of %s at %s:%d is gone: %w", g.world.Source, g.world.Host, g.world.Port, err)
	}
	if g.peers[0].Host != "" {
		what := "is gone, with the store"
		if errors.Is(err, errSilent) {
			what = "does not answer, nor does the store"
		}
		return g.gone(0, "%s at %s:%d", what, g.world.Host, g.world.Port)
	}
	return fmt.Errorf("rank 0, with the store at %s:%d, is gone: %w", g.world.Host, g.world.Port, err)
}

// Fail tells the other ranks why this one cannot go on, and gives them a moment to read it.
func (g *Group) Fail(err error) {
	if g == nil {
		return
	}
	g.stopBeating()
	e := (*PeerError)(nil)
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.Canceled):
		e = g.peerError(g.Rank(), "was told to stop")
		e.Stopped = true
	default:
		e = g.peerError(g.Rank(), "failed: %s", short(err.Error()))
	}
	g.tell(e)
	_ = g.beats.set(rankKey("left", g.Rank()), nil)
	_, _, _ = g.beats.get(faultKey) // which is answered once what was set before has arrived
	if g.First() {
		ctx, cancel := context.WithTimeout(context.Background(), silent)
		defer cancel()
		g.awaitOthers(ctx, e)
	}
}

// awaitOthers waits until every other rank that has come has read the fault or is gone.
func (g *Group) awaitOthers(ctx context.Context, e *PeerError) {
	for rank := 1; rank < g.Size(); {
		_, came, err := g.beats.get(rankKey("here", rank))
		if err != nil || ctx.Err() != nil {
			return
		}
		_, left, err := g.beats.get(rankKey("left", rank))
		if err != nil {
			return
		}
		if !came || left || rank == e.Rank && e.Gone || g.dead(rank) {
			rank++
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(every / 20):
		}
	}
}
