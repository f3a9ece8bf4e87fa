package dist

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	faultKey = "fault"     // the newest fault of any rank
	every    = time.Second // between two beats
	silent   = 4 * every   // a process that writes no beat for so long is gone, or stopped
)

// fault is why a rank failed.
type fault struct {
	Rank int    `json:"rank"`
	Text string `json:"text"`
}

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
		err := g.beats.setJSON(rankKey("beat", g.Rank()), pulse{n, *g.at.Load(), g.seq.Load()})
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
			_ = g.beats.set(rankKey("left", g.Rank()), nil) // rank 0 need not wait longer for this one
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
	var f fault
	if ok, err := g.beats.getJSON(g.timeout, faultKey, &f); err != nil {
		return err
	} else if ok && f.Rank != g.Rank() && f.Rank >= 0 && f.Rank < g.Size() {
		g.fail(&PeerError{f.Rank, g.peers[f.Rank].Host, f.Text})
		return nil
	}
	for rank := range g.peers {
		if rank == g.Rank() {
			continue
		}
		if g.First() {
			if err := w.read(rank, g.timeout); err != nil {
				return err
			}
			if since := time.Since(w.seen[rank].when); since > g.patience() {
				g.report(&PeerError{rank, g.peers[rank].Host, fmt.Sprintf("has not been heard of for %s; it was at %s", since.Round(time.Second), w.seen[rank].At)})
				return nil
			}
		}
		if g.dead(rank) {
			if err := w.read(rank, g.timeout); err != nil {
				return err
			}
			g.report(g.died(rank, w.seen[rank].At))
			return nil
		}
	}
	return nil
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

// died is the error of a rank whose process has ended without leaving a fault.
func (g *Group) died(rank int, at string) *PeerError {
	return &PeerError{rank, g.peers[rank].Host, fmt.Sprintf("(process %d) ended without a word; it was at %s", g.peers[rank].PID, at)}
}

// report ends the run here and on the other ranks.
func (g *Group) report(e *PeerError) {
	g.fail(e)
	_ = g.beats.setJSON(faultKey, fault{e.Rank, e.Text})
}

// dead reports whether a rank's process, on this machine, has ended.
func (g *Group) dead(rank int) bool {
	p, me := g.peers[rank], g.peers[g.Rank()]
	return p.Machine == me.Machine && p.Machine != "" && startOf(p.PID) != p.Started
}

// lost is the error of an operation of the group that failed: whose fault that is, as soon as it is known.
func (g *Group) lost(err error) error {
	if g.ctx.Err() != nil {
		return context.Cause(g.ctx)
	}
	w := watch{group: g, seen: make([]sighting, g.Size())}
	for begun := time.Now(); time.Since(begun) < silent+2*every; time.Sleep(every / 10) {
		if g.ctx.Err() != nil { // the beats have found it
			return context.Cause(g.ctx)
		}
		for rank := range g.peers {
			if failed := w.read(rank, 2*every); failed != nil {
				g.fail(g.storeError(failed))
				return context.Cause(g.ctx)
			}
			if rank != g.Rank() && time.Since(w.seen[rank].when) > silent {
				return &PeerError{rank, g.peers[rank].Host, "does not answer; it was at " + w.seen[rank].At}
			}
		}
	}
	if behind := w.behind(); behind >= 0 {
		return &PeerError{behind, g.peers[behind].Host, fmt.Sprintf("has not come to where the others are within %s; it is at %s", g.timeout, w.seen[behind].At)}
	}
	return fmt.Errorf("another process of the run does not answer: %w", err)
}

// behind is the rank that has begun fewer operations than this one; -1: none.
func (w *watch) behind() int {
	least, mine := -1, w.group.seq.Load()
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
	if host := g.peers[0].Host; host != "" {
		what := "is gone, with the store"
		if errors.Is(err, errSilent) {
			what = "does not answer, nor does the store"
		}
		return &PeerError{0, host, fmt.Sprintf("%s at %s:%d", what, g.world.Host, g.world.Port)}
	}
	return fmt.Errorf("rank 0, with the store at %s:%d, is gone: %w", g.world.Host, g.world.Port, err)
}

// Fail tells the other ranks why this one cannot go on, and gives them a moment to read it.
func (g *Group) Fail(err error) {
	if g == nil {
		return
	}
	g.stopBeating()
	if peer := (*PeerError)(nil); !errors.As(err, &peer) {
		_ = g.beats.setJSON(faultKey, fault{g.Rank(), "failed: " + short(err.Error())})
	}
	if g.First() {
		g.fail(err)
		ctx, cancel := context.WithTimeout(context.Background(), 2*silent)
		defer cancel()
		g.awaitOthers(ctx)
	}
}

// awaitOthers waits until every other rank has read the fault or is gone.
func (g *Group) awaitOthers(ctx context.Context) {
	for rank := 1; rank < g.Size(); {
		_, left, err := g.beats.get(rankKey("left", rank))
		if err != nil || ctx.Err() != nil {
			return
		}
		if left || g.dead(rank) {
			rank++
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(every / 20):
		}
	}
}
