package dist

import (
	"context"
	"errors"
	"time"
)

// Leave ends this process's part of a run, when all ranks have finished theirs. It is an error where one has not.
func (g *Group) Leave(ctx context.Context) error {
	if g == nil {
		return nil
	}
	err := g.allDone(ctx)
	g.stopBeating()
	if err != nil {
		return err
	}
	if group := g.group.Load(); group != nil {
		err = group.Leave()
	}
	g.parting(ctx)
	g.keys.close()
	g.beats.close()
	return err
}

// allDone waits for the others to finish. A process that has finished and is gone is no fault.
func (g *Group) allDone(ctx context.Context) error {
	if err := g.keys.set(rankKey("done", g.Rank()), nil); err != nil {
		return g.storeError(err)
	}
	for rank := range g.peers {
		_, err := g.read(ctx, rankKey("done", rank))
		if e := (*PeerError)(nil); rank > 0 && errors.As(err, &e) && e.Rank == 0 {
			return nil // rank 0 had finished, and has gone because it has seen that all have
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) stopBeating() {
	g.stop()
	g.beating.Wait()
}

// parting lets the rank that keeps the store be the last to go.
func (g *Group) parting(ctx context.Context) {
	if err := g.keys.set(rankKey("left", g.Rank()), nil); err != nil || !g.First() {
		return
	}
	limit := time.Now().Add(5 * time.Second)
	for rank := range g.peers {
		err := g.await(ctx, limit, func() (bool, error) {
			_, ok, err := g.keys.get(rankKey("left", rank))
			return ok, err
		})
		if err != nil {
			return
		}
	}
}
