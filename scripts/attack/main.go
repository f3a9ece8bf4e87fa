package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Programs that are started inherit an ignored SIGHUP, as under nohup, and ignore it too; one that is handled they have anew.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	code, err := attack(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		code = 2
	}
	stop()
	os.Exit(code)
}

// kind is a kind of attack. prepare makes what all its cases share; run makes case n.
type kind struct {
	name    string
	share   float64 // of the time
	prepare func(h *harness) error
	run     func(c *attempt) error
	cases   func(h *harness) int // how many there are, where their number is fixed
	asked   bool                 // it is made only where --kinds names it
}

func kinds() []kind {
	return []kind{
		{name: "fuzz", share: 0.4, prepare: prepareFuzz, run: fuzzCase},
		{name: "kill", share: 0.25, prepare: prepareKills, run: killCase},
		{name: "flip", share: 0.15, prepare: prepareFlips, run: flipCase},
		{name: "misuse", share: 0.1, prepare: prepareMisuse, run: misuseCase, cases: misuses},
		{name: "memory", share: 0.04, prepare: prepareMemory, run: memoryCase},
		{name: "disk", share: 0.04, prepare: prepareDisk, run: diskCase},
		{name: "truncated", share: 0.02, prepare: prepareTruncated, run: truncatedCase},
		{name: "load", share: 1, prepare: prepareLoad, run: loadCase, cases: loadCases, asked: true},
	}
}

func attack(ctx context.Context) (code int, err error) {
	seconds := flag.Float64("seconds", 180, "how long to attack")
	seed := flag.Uint64("seed", 1, "where all cases come from")
	binary := flag.String("gopeft", filepath.Join("bin", "gopeft"), "the program to attack")
	chosen := flag.String("kinds", "", "only these kinds, comma-separated")
	only := flag.Int("case", -1, "only this case of each kind")
	first := flag.Int("first", 0, "begin with this case of each kind")
	scale := flag.Float64("scale", 1, "of load, how much of its sizes")
	keep := flag.String("keep", filepath.Join("runs", "attack"), "folder for the cases that fail")
	flag.Parse()
	if flag.NArg() > 0 {
		return 2, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	all := kinds()
	if *chosen != "" {
		names := strings.Split(*chosen, ",")
		for _, name := range names {
			if !slices.ContainsFunc(all, func(k kind) bool { return k.name == name }) {
				return 2, fmt.Errorf("there is no kind %q", name)
			}
		}
		all = slices.DeleteFunc(all, func(k kind) bool { return !slices.Contains(names, k.name) })
	} else {
		all = slices.DeleteFunc(all, func(k kind) bool { return k.asked })
	}
	h, err := newHarness(ctx, *binary, *keep, *seed)
	if err != nil {
		return 2, err
	}
	defer h.close()
	h.scale = *scale
	fmt.Printf("attacking %s with seed %d for %.0f s\n", h.version, *seed, *seconds)
	tallies, err := h.spend(all, time.Duration(*seconds*float64(time.Second)), *first, *only)
	if err != nil {
		return 2, err
	}
	return report(tallies, *keep), nil
}

// tally counts what became of a kind's cases.
type tally struct {
	kind
	next, commands int
	codes          map[string]int // exit codes of commands
	findings       int
	skipped        string // why none were made
	spent          time.Duration
	done           bool
	slowest        time.Duration
	largest        int64 // kB of memory, of a command
}

// spend makes cases until the time is over, of the kind that has had the least of its share.
func (h *harness) spend(all []kind, budget time.Duration, first, only int) ([]*tally, error) {
	tallies := make([]*tally, len(all))
	for i, k := range all {
		t := &tally{kind: k, next: first, codes: map[string]int{}}
		tallies[i] = t
		begun := time.Now()
		if err := k.prepare(h); err != nil {
			if why := (*skip)(nil); asSkip(err, &why) {
				t.skipped, t.done = why.why, true
				continue
			}
			return tallies, fmt.Errorf("prepare %s: %w", k.name, err)
		}
		h.prepared += time.Since(begun)
	}
	for begun := time.Now(); time.Since(begun) < budget && h.ctx.Err() == nil; {
		var t *tally
		for _, other := range tallies {
			if !other.done && (t == nil || other.spent.Seconds()/other.share < t.spent.Seconds()/t.share) {
				t = other
			}
		}
		if t == nil {
			break
		}
		n := t.next
		if only >= 0 {
			n, t.done = only, true
		}
		if t.cases != nil && n >= t.cases(h) {
			t.done = true
			continue
		}
		if err := h.makeCase(t, n); err != nil {
			return tallies, fmt.Errorf("%s %d: %w", t.name, n, err)
		}
		t.next++
	}
	return tallies, nil
}

// report prints the table and gives the exit code.
func report(tallies []*tally, keep string) int {
	found, cases := 0, 0
	fmt.Printf("\n%-10s %7s %9s %6s %6s %6s %6s %6s %6s %8s %8s %8s\n", "kind", "cases", "commands", "0", "1", "2", "70", "130", "other", "findings", "slowest", "peak MB")
	for _, t := range tallies {
		if t.skipped != "" {
			fmt.Printf("%-10s skipped: %s\n", t.name, t.skipped)
			continue
		}
		other := 0
		for code, n := range t.codes {
			if !slices.Contains([]string{"0", "1", "2", "70", "130"}, code) {
				other += n
			}
		}
		fmt.Printf("%-10s %7d %9d %6d %6d %6d %6d %6d %6d %8d %7.1fs %8d\n", t.name, t.made(), t.commands, t.codes["0"], t.codes["1"], t.codes["2"], t.codes["70"], t.codes["130"], other,
			t.findings, t.slowest.Seconds(), t.largest>>10)
		found += t.findings
		cases += t.made()
	}
	if found > 0 {
		fmt.Printf("%d of %d cases have found something; they are in %s\n", found, cases, keep)
		return 1
	}
	fmt.Printf("%d cases, nothing found\n", cases)
	return 0
}
