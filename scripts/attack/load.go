package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// load is the program at work on much: many rows, many steps, one huge row, several runs at once. What is asked is that it
// comes to its end in the memory it is allowed.
type load struct {
	about   string
	needs   string // inputs from the fixtures, and of makers
	command string // "%d" stands for the number of the process
	atOnce  int    // processes; 0: one
	amount  int    // of what the rate counts, at full size
	unit    string
	memory  int64 // kB
	flat    bool  // nothing of what it holds may grow once it has warmed up
	refused bool  // with a line
	check   func(c *attempt) error
}

const (
	loadRows  = 1_000_000
	loadSteps = 1_000_000
	loadIDs   = 100_000_000
	wideRow   = 60_000_000 // bytes
)

// wideMemory is what a row of so many bytes may take.
func wideMemory(row int) int64 { return 250_000_000/1024 + 2*int64(row)/1024 }

func loads(h *harness) (all []load) {
	train := func(data string) string {
		return "train --model encoder --data " + data + " --method bitfit --amp none --epochs 1 --batch-size 256 --max-length 16 --out run%d" + quick
	}
	rows, steps, ids, wide := h.scaled(loadRows), h.scaled(loadSteps), h.scaled(loadIDs), h.scaled(wideRow)
	all = []load{
		{about: "training on a CSV", needs: "encoder million.csv", command: train("million.csv"), amount: rows, unit: "rows", memory: usual.memory},
		{about: "training on Parquet", needs: "encoder million.parquet", command: train("million.parquet"), amount: rows, unit: "rows", memory: usual.memory},
		{about: "tokenizing for a causal run", needs: "decoder tokens.jsonl", amount: ids, unit: "tokens", memory: usual.memory, check: func(c *attempt) error { return c.enoughTokens(int64(ids)) },
			command: "train --task causal --model decoder --data tokens.jsonl --text-column text --method bitfit --amp none --cache-dir tokens --max-steps 10 --batch-size 4 --no-train-eval --split 0.998,0.001,0.001 --out run%d" + quick},
		{about: "vectors of all rows", needs: "encoder million.csv", command: "embed --model encoder --data million.csv --out e%d.npy" + quick, amount: rows, unit: "rows", memory: 300_000_000 / 1024},
		{about: "labels of all rows", needs: "encoder million.csv", command: "predict --model encoder --data million.csv --out p%d.jsonl" + quick, amount: rows, unit: "rows", memory: 300_000_000 / 1024},
		{about: "two runs at once", needs: "encoder many.csv", command: train("many.csv") + " --epochs 20 --cache-dir tokens", atOnce: 2, memory: usual.memory, check: sameRuns(2)},
		{about: "four runs at once", needs: "encoder many.csv", command: train("many.csv") + " --epochs 20 --cache-dir tokens", atOnce: 4, memory: usual.memory, check: sameRuns(4)},
	}
	for _, file := range wideFiles() {
		for _, command := range []string{"tokenize --model encoder", "tokenize --model encoder --max-length 30", "predict --model encoder", "embed --model encoder --out e%d.npy", "eval --model encoder"} {
			if strings.HasPrefix(command, "eval") && !strings.HasSuffix(file, ".csv") {
				continue // the others are read in the same way
			}
			l := load{about: "a row of " + fmt.Sprint(wide) + " bytes in " + file, needs: "encoder " + file, command: command + " --data " + file + " --quiet", memory: wideMemory(wide)}
			l.refused = file == "wide.parquet" && wide > 1<<20 // its page's header holds the longest text too
			if !strings.HasPrefix(command, "tokenize") {
				l.command += " --threads 1"
			}
			all = append(all, l)
		}
	}
	soak := "train --model encoder --train many.csv --val rows.csv --amp none --batch-size 1 --max-length 8 --no-train-eval --max-steps " + fmt.Sprint(steps) + " --out run%d" + quick
	return append(all,
		load{about: "a prompt of " + fmt.Sprint(wide) + " bytes", needs: "decoder wide-prompt.jsonl", memory: wideMemory(wide),
			command: "generate --model decoder --prompts wide-prompt.jsonl --max-new-tokens 3" + quick, refused: true},
		load{about: "a soak of the head alone", needs: "encoder many.csv rows.csv", amount: steps, unit: "steps", memory: usual.memory, flat: true,
			command: soak + " --method last --cache-features --epochs 1000000"},
		load{about: "a soak of the whole model", needs: "encoder many.csv rows.csv", amount: steps, unit: "steps", memory: usual.memory, flat: true,
			command: soak + " --method bitfit --epochs 1000000"},
	)
}

// scaled is a size as --scale has it.
func (h *harness) scaled(n int) int { return max(1, int(math.Round(float64(n)*h.scale))) }

func prepareLoad(h *harness) error {
	h.loads = loads(h)
	return os.MkdirAll(h.at("."), 0o777)
}

func loadCases(h *harness) int { return len(h.loads) }

func loadCase(c *attempt) error {
	l := c.loads[c.n]
	c.about = l.about
	if err := errors.Join(c.makeLarge(l.needs), c.bring(strings.Fields(l.needs)...)); err != nil {
		return err
	}
	n := max(1, l.atOnce)
	lim := limits{time: 24 * time.Hour, memory: l.memory}
	watched := make([]watched, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			command := l.command
			if strings.Contains(command, "%d") {
				command = fmt.Sprintf(command, i)
			}
			w := &watched[i]
			w.result = c.start(lim, w.watch, strings.Fields(command)...)
		})
	}
	group.Wait()
	for i := range watched {
		w := &watched[i]
		w.memory = most(w.samples).peak // what wait(2) says counts the harness too, which has made 60 MB of text
		c.judge(w.result, lim)
		if refused := w.code == 1; w.code > 1 || refused != l.refused {
			c.find("exit %d: %s", w.code, cut(w.stderr))
		}
		if l.flat {
			for _, text := range w.grown() {
				c.find("%s", text)
			}
		}
		rate := ""
		if l.amount > 0 {
			rate = fmt.Sprintf(", %.0f %s/s", float64(l.amount)/w.took.Seconds(), l.unit)
		}
		fmt.Printf("load %d, %s (%s): exit %d, %.1f s%s, peak %d MB, %s\n", c.n, l.about, first(w.args), w.code, w.took.Seconds(), rate, w.memory>>10, w.summary())
	}
	if l.check == nil || len(c.findings) > 0 {
		return nil
	}
	return l.check(c)
}

// enoughTokens looks at what a run has kept of its tokens, of two bytes each.
func (c *attempt) enoughTokens(want int64) error {
	names, err := filepath.Glob(c.in("tokens/*.tokens"))
	if err != nil {
		return err
	}
	bytes := int64(0)
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		bytes += info.Size()
	}
	if bytes < 2*want {
		c.find("%d bytes of tokens were kept, for %d tokens", bytes, want)
	}
	return nil
}

// sameRuns compares what n runs of the same settings have left.
func sameRuns(n int) func(c *attempt) error {
	return func(c *attempt) error {
		var one map[string]string
		for i := range n {
			files, err := c.left(killed{out: fmt.Sprint("run", i), run: "."})
			if err != nil {
				return err
			}
			if one == nil {
				one = files
			}
			for name, sum := range one {
				if files[name] != sum {
					c.find("%s is another in run %d", name, i)
				}
			}
		}
		if one["./best/adapter_model.safetensors"] == "" && one["./best/adapter.safetensors"] == "" {
			c.find("no adapter was compared: %v", one)
		}
		return nil
	}
}
