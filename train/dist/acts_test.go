package dist

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"gopeft/bindings"
)

// acts are what the processes of the tests do.
var acts map[string]func(p plan) error

func init() { // they are told by name, and would refer to themselves
	acts = map[string]func(p plan) error{
		"before": before, "computing": computing, "joining": joining, "summing": summing, "behind": behind, "agree": agree, "share": share,
		"finished": finished, "leave": leave, "interrupted": interrupted, "panics": panics, "together": endTogether,
	}
}

// before holds the culprit up before it meets the others.
func before(p plan) error {
	say("before")
	if p.World.Rank == p.Culprit {
		select {}
	}
	return p.run(func(ctx context.Context, g *Group) error { return nil })
}

// failing is what the culprit of a plan with a value does: it fails with that. Others wait to be killed or stopped.
func (p plan) failing(place string) error {
	say(place)
	if p.Value != "" {
		return errors.New(p.Value)
	}
	select {}
}

// computing is long work outside any operation, which looks at its context.
func computing(p plan) error {
	return p.run(func(ctx context.Context, g *Group) error {
		g.At("a long computation")
		if g.Rank() == p.Culprit {
			if _, err := g.exchange(ctx, "computing", ""); err != nil {
				return err
			}
			return p.failing("there")
		}
		if err := g.keys.set(rankKey("computing", g.Rank()), nil); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
}

// joining is Join, which the culprit never calls though it has said that it is ready.
func joining(p plan) error {
	return p.run(func(ctx context.Context, g *Group) error {
		g.At("the joining")
		if g.Rank() == p.Culprit {
			if _, err := g.exchange(ctx, "ready", ""); err != nil {
				return err
			}
			return p.failing("there")
		}
		return bindings.Do(ctx, func(s *bindings.Scope) error { return g.Join(ctx, s, bindings.CPU) })
	})
}

// joined runs fn in a group that computes.
func (p plan) joined(fn func(ctx context.Context, s *bindings.Scope, g *Group) error) error {
	return p.run(func(ctx context.Context, g *Group) error {
		return bindings.Do(ctx, func(s *bindings.Scope) error {
			if err := g.Join(ctx, s, bindings.CPU); err != nil {
				return err
			}
			return fn(ctx, s, g)
		})
	})
}

// summing is one sum after the other, until the culprit does not take part.
func summing(p plan) error {
	return p.joined(func(ctx context.Context, s *bindings.Scope, g *Group) error {
		for n := int64(0); ; n++ {
			g.At(fmt.Sprintf("sum %d", n))
			if n == 5 && g.Rank() == p.Culprit {
				return p.failing("there")
			}
			sums, err := g.SumInts(s, n, int64(g.Rank()))
			if err != nil {
				return err
			}
			if size := int64(g.Size()); sums[0] != n*size || sums[1] != size*(size-1)/2 {
				return fmt.Errorf("the sums are %v", sums)
			}
		}
	})
}

// behind is a sum that the culprit does not come to: it computes, and lives.
func behind(p plan) error {
	return p.joined(func(ctx context.Context, s *bindings.Scope, g *Group) error {
		if _, err := g.SumInts(s, 1); err != nil {
			return err
		}
		g.At("the second sum")
		if g.Rank() == p.Culprit {
			g.At("work without an end")
			<-ctx.Done()
			return ctx.Err()
		}
		_, err := g.SumInts(s, 1)
		return err
	})
}

func agree(p plan) error {
	return p.run(func(ctx context.Context, g *Group) error {
		if err := g.Agree(ctx, "shape", "round"); err != nil {
			return err
		}
		return g.Agree(ctx, "colour", p.Value)
	})
}

func share(p plan) error {
	return p.run(func(ctx context.Context, g *Group) error {
		for i := range 20 {
			got, err := g.Share(ctx, fmt.Sprint("key", i), []byte(fmt.Sprint(p.Value, i)))
			if err != nil {
				return err
			}
			if want := fmt.Sprint("rank 0's", i); string(got) != want {
				return fmt.Errorf("it is %q, want %q", got, want)
			}
		}
		return nil
	})
}

// finished holds the culprit up when the others have finished.
func finished(p plan) error {
	return p.joined(func(ctx context.Context, s *bindings.Scope, g *Group) error {
		if _, err := g.SumInts(s, 1); err != nil || g.Rank() != p.Culprit {
			return err
		}
		g.At("the writing of its results")
		for rank := range g.Size() {
			if rank != g.Rank() {
				if _, err := g.read(ctx, rankKey("done", rank)); err != nil {
					return err
				}
			}
		}
		return p.failing("there")
	})
}

// leave meets and parts many times, in any order, and leaves nothing running.
func leave(p plan) error {
	if err := bindings.Do(context.Background(), func(*bindings.Scope) error { return nil }); err != nil {
		return err
	}
	routines := runtime.NumGoroutine()
	for i, port := range p.Ports {
		p.World.Port = port
		if p.World.Rank == 0 {
			p.World.Listen = 3 + i
		}
		err := p.joined(func(_ context.Context, s *bindings.Scope, g *Group) error {
			_, err := g.SumInts(s, 1)
			if slow := i % 5; slow == g.Rank() || slow == 3 && g.Rank() > 0 {
				time.Sleep(20 * time.Millisecond)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("time %d: %w", i, err)
		}
	}
	for begun := time.Now(); runtime.NumGoroutine() > routines; time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			all := make([]byte, 1<<20)
			return fmt.Errorf("%d goroutines were left: %s", runtime.NumGoroutine()-routines, all[:runtime.Stack(all, true)])
		}
	}
	return nil
}

// interrupted is work that a signal to any one process ends, as an interruption for all.
func interrupted(p plan) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := Run(ctx, Options{World: p.World, Timeout: p.Timeout}, func(error) bool { return false }, func(ctx context.Context, g *Group) error {
		if _, err := g.exchange(ctx, "computing", ""); err != nil {
			return err
		}
		say("there")
		<-ctx.Done()
		return ctx.Err()
	})
	if errors.Is(err, context.Canceled) {
		os.Exit(130)
	}
	return err
}

func panics(p plan) error {
	defer func() { // as the program has it, in one line
		if r := recover(); r != nil {
			fmt.Fprintln(os.Stderr, r)
			os.Exit(1)
		}
	}()
	return p.joined(func(ctx context.Context, s *bindings.Scope, g *Group) error {
		if g.Rank() == p.Culprit {
			panic("oh")
		}
		_, err := g.SumInts(s, 1)
		return err
	})
}

// endTogether is an error that all have at the same place, and that is no fault of any.
func endTogether(p plan) error {
	err := p.joined(func(_ context.Context, s *bindings.Scope, g *Group) error {
		if _, err := g.SumInts(s, 1); err != nil {
			return err
		}
		time.Sleep(time.Duration(g.Rank()) * 30 * time.Millisecond)
		return errTogether
	})
	if !errors.Is(err, errTogether) {
		return fmt.Errorf("it ended with %w", err)
	}
	return nil
}
