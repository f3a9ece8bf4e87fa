package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// attacksKey is how many attacks the test makes, attackSeedKey where it begins to count them.
const (
	attacksKey    = "GOPEFT_TEST_ATTACKS"
	attackSeedKey = "GOPEFT_TEST_ATTACK_SEED"
)

func numberFrom(t *testing.T, key string, otherwise int) int {
	t.Helper()
	text := os.Getenv(key)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return n
}

// attack is a signal to one process of a run at a moment of it, and with how many processes it goes on.
type attack struct {
	size, victim, again int
	signal              syscall.Signal
	step                int           // once this has been saved; 0: from the beginning on
	after               time.Duration // so long after that
}

func newAttack(seed int) attack {
	r := rand.New(rand.NewPCG(uint64(seed), 14))
	a := attack{size: 2 + r.IntN(2), signal: []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTERM}[seed%3]}
	a.victim, a.again = r.IntN(a.size), a.size
	if r.IntN(2) == 0 {
		a.again = 1 + r.IntN(3)
	}
	within := time.Second // about the time until the first step
	if r.IntN(4) > 0 {
		a.step, within = 1+r.IntN(tinySteps), 30*time.Millisecond // some steps
	}
	a.after = time.Duration(r.Int64N(int64(within)))
	return a
}

func (a attack) String() string {
	return fmt.Sprintf("%v to rank %d of %d %s after step %d, then %d", a.signal, a.victim, a.size, a.after.Round(time.Millisecond), a.step, a.again)
}

// TestARunSurvivesWhatHappensToItsProcesses: whenever one process is killed, stopped or interrupted, all end in time with
// a line that says why, and the run goes on from its last checkpoint to the end that it would have come to.
func TestARunSurvivesWhatHappensToItsProcesses(t *testing.T) {
	t.Parallel()
	count := 6
	if testing.Short() {
		count = 3
	}
	count = numberFrom(t, attacksKey, count)
	data, _ := tokenRows(t, 60)
	args := append(tinyRun(data), "--model", tinyModel(t))
	wholes := map[int]string{}
	for n := 1; n <= 3; n++ {
		wholes[n] = filepath.Join(t.TempDir(), "whole")
		trainWhole(t, n, append(args, "--out", wholes[n])...)
	}
	if last := stepOf(wholes[1]); last != tinySteps {
		t.Fatalf("the run has %d steps, not %d", last, tinySteps)
	}
	sameWeights(t, wholes[2], wholes[1], 2e-5)
	sameWeights(t, wholes[3], wholes[1], 2e-5)
	var wait sync.WaitGroup
	slots := make(chan struct{}, 3)
	for seed := range count {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			a := newAttack(numberFrom(t, attackSeedKey, 0) + seed)
			t.Run(a.String(), func(t *testing.T) { a.run(t, args, wholes) })
		})
	}
	wait.Wait()
	// Weights, and the optimizer's state, that processes hold together change nothing of that.
	signals := map[string]attack{
		"killed":      {size: 3, victim: 1, again: 3, signal: syscall.SIGKILL, step: 5, after: 10 * time.Millisecond},
		"stopped":     {size: 2, victim: 1, again: 2, signal: syscall.SIGSTOP, step: 3},
		"interrupted": {size: 2, victim: 1, again: 2, signal: syscall.SIGTERM, step: 4},
	}
	for name, a := range signals {
		t.Run("sharing, "+name, func(t *testing.T) {
			a.run(t, append(args[:len(args):len(args)], "--shard-frozen", "--shard-optimizer"), wholes)
		})
	}
}

// attackTimeout is how long processes that are attacked wait for each other.
const attackTimeout = 8 * time.Second

// strike attacks, and returns how long the others take to end. Then it calls ended, and ends the victim.
func (a attack) strike(t *testing.T, ranks []*trainer, ended func()) time.Duration {
	t.Helper()
	begun, victim := time.Now(), ranks[a.victim]
	_ = victim.cmd.Process.Signal(a.signal)
	limit := time.After(attackTimeout + 5*time.Second + 10*time.Second) // the last for other load
	for rank, p := range ranks {
		if rank == a.victim && a.signal == syscall.SIGSTOP {
			continue
		}
		select {
		case <-p.ended:
		case <-limit:
			t.Fatalf("rank %d has not ended: %q", rank, p.stderr.String())
		}
	}
	slowest := time.Since(begun)
	ended()
	_ = victim.cmd.Process.Kill() // what a launcher does where one is stopped
	<-victim.ended
	return slowest
}

func (a attack) run(t *testing.T, args []string, wholes map[int]string) {
	out := filepath.Join(t.TempDir(), "run")
	args = append(args[:len(args):len(args)], "--out", out, "--resume=auto")
	ranks := startRanks(t, a.size, append(args, "--dist-timeout", attackTimeout.String())...)
	until(t, "a step", func() bool { return stepOf(out) >= a.step || closed(ranks[0].ended) })
	time.Sleep(a.after)
	step := 0
	slowest := a.strike(t, ranks, func() { step = stepOf(out) })
	lines := map[string]bool{}
	for rank, p := range ranks {
		code := p.cmd.ProcessState.ExitCode()
		text, one := oneError(p.stderr.String())
		switch {
		case code == exitDone && p.stderr.Len() == 0: // it had finished
			lines["done"] = true
			continue
		case rank == a.victim && code == -1 && p.stderr.Len() == 0: // the signal has ended it
			continue
		case !one:
			t.Errorf("rank %d: exit %d, %q", rank, code, p.stderr.String())
		case a.signal == syscall.SIGTERM && code == exitInterrupted && strings.HasPrefix(text, "interrupted"):
		case code == exitFailed && strings.HasPrefix(text, fmt.Sprintf("rank %d ", a.victim)):
		default:
			t.Errorf("rank %d: exit %d, %q", rank, code, text)
		}
		lines[text] = true
	}
	trainWhole(t, a.again, args...)
	tol := 2e-5
	if a.again == a.size {
		tol = 0
	}
	sameWeights(t, out, wholes[a.size], tol)
	t.Logf("ended after %s at step %d: %v", slowest.Round(time.Millisecond), step, lines)
}
