package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// killed is a command that is ended at a random moment and then made to end well.
type killed struct {
	needs  string
	first  string // the command
	again  string // what is run after it was ended
	out    string // what it writes
	run    string // the folders in out that runs leave; "": out is compared whole
	took   time.Duration
	result map[string]string // what it leaves where nothing disturbs it
}

// patience is how long a command may take to end once it is told to: a second, and what a loaded machine adds.
const patience = 4 * time.Second

func killTargets() []killed {
	train := "train --model encoder --data rows.csv --batch-size 8 --amp none --checkpoint-every 1 --out out" + quick
	compare := "compare --model encoder --data rows.csv --batch-size 8 --amp none --methods bitfit,logreg,ia3 --epochs 2 --checkpoint-every 1 --out out" + quick
	same := func(needs, command, out string) killed {
		return killed{needs: needs, first: command, again: command, out: out}
	}
	over := func(needs, command string) killed {
		return killed{needs: needs, first: command, again: command + " --overwrite", out: "out"}
	}
	return []killed{
		{needs: "encoder rows.csv", first: train + " --method lora --epochs 8", again: train + " --method lora --epochs 8 --resume=auto", out: "out", run: "."},
		{needs: "encoder rows.csv", first: train + " --method full --epochs 4", again: train + " --method full --epochs 4 --resume=auto", out: "out", run: "."},
		{needs: "encoder many.csv", first: "train --model encoder --data many.csv --method bitfit --amp none --cache-dir tokens --out out --max-steps 60 --checkpoint-every 20" + quick,
			again: "train --model encoder --data many.csv --method bitfit --amp none --cache-dir tokens --out out --max-steps 60 --checkpoint-every 20 --resume=auto" + quick, out: "out", run: "."},
		{needs: "encoder many.csv", first: "train --model encoder --data many.csv --method features --out out" + quick, again: "train --model encoder --data many.csv --method features --out out --overwrite" + quick, out: "out", run: "."},
		{needs: "decoder alpaca.jsonl", first: "train --task causal --model decoder --data alpaca.jsonl --template {instruction}->{output} --method prefix --epochs 6 --amp none --checkpoint-every 1 --out out" + quick,
			again: "train --task causal --model decoder --data alpaca.jsonl --template {instruction}->{output} --method prefix --epochs 6 --amp none --checkpoint-every 1 --resume=auto --out out" + quick, out: "out", run: "."},
		{needs: "encoder rows.csv", first: compare, again: compare + " --resume=auto", out: "out", run: "bitfit ia3"},
		same("encoder many.csv", "predict --model encoder --data many.csv --out out.jsonl"+quick, "out.jsonl"),
		same("encoder many.csv", "eval --model encoder --data many.csv --per-row out.jsonl"+quick, "out.jsonl"),
		same("encoder many.csv", "embed --model encoder --data many.csv --out out.npy"+quick, "out.npy"),
		same("decoder prompts.jsonl", "generate --model decoder --prompts prompts.jsonl --temperature 0 --max-new-tokens 40 --out out.jsonl"+quick, "out.jsonl"),
		over("encoder adapter", "merge --model encoder --adapter adapter --out out"+quick),
		over("encoder adapter", "convert --model encoder --adapter adapter --to peft --out out"+quick),
		over("decoder", "quantize --model decoder --to int8 --out out"+quick),
		over("many.csv", "prepare --data many.csv --out out --quiet"),
	}
}

// prepareKills runs every command undisturbed.
func prepareKills(h *harness) error {
	for _, k := range killTargets() {
		c := &attempt{harness: h, kind: "build", dir: filepath.Join(h.root, "case"), tally: &tally{codes: map[string]int{}}}
		if err := c.clean(); err != nil {
			return err
		}
		if err := c.bring(strings.Fields(k.needs)...); err != nil {
			return err
		}
		r := c.start(usual, nil, strings.Fields(k.first)...)
		if r.code != 0 {
			return fmt.Errorf("gopeft %s: exit %d: %s", k.first, r.code, r.stderr)
		}
		var err error
		if k.result, err = c.left(k); err != nil {
			return err
		}
		k.took = r.took
		h.kills = append(h.kills, k)
	}
	return nil
}

// clean makes the case's folder anew.
func (c *attempt) clean() error {
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(c.in("home"), 0o777), os.MkdirAll(c.in("tmp"), 0o777))
}

func killCase(c *attempt) error {
	k := c.kills[c.n%len(c.kills)]
	if err := c.bring(strings.Fields(k.needs)...); err != nil {
		return err
	}
	signals := []syscall.Signal{syscall.SIGKILL, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}
	command := k.first
	var about []string
	for range 1 + c.IntN(3) { // sometimes while it goes on from an earlier end
		signal, after := signals[c.IntN(len(signals))], time.Duration(c.Int64N(int64(k.took*11/10)))
		about = append(about, fmt.Sprintf("%v after %v", signal, after.Round(time.Millisecond)))
		c.about = first(strings.Fields(k.first)) + ": " + strings.Join(about, ", ")
		var told time.Time
		r := c.start(usual, func(p *os.Process, ended <-chan struct{}) {
			select {
			case <-ended:
			case <-time.After(after):
				told = time.Now()
				_ = p.Signal(signal) // it may have ended
			}
		}, strings.Fields(command)...)
		switch {
		case r.late:
			c.find("it had not ended %v after it began", usual.time)
		case told.IsZero() || r.code == 0: // it was done
			c.judge(r, usual)
		case r.signal == "" && !slices.Contains([]int{0, 130}, r.code):
			c.find("%v: exit %d", signal, r.code)
			c.judge(r, usual)
		case r.signal != "" && r.signal != signal.String():
			c.find("%v: it was ended by %s", signal, r.signal)
		case r.signal == "": // the line that says so
			for _, text := range saidWrong(r) {
				c.find("%v: %s", signal, text)
			}
		}
		if !told.IsZero() && time.Since(told) > patience {
			c.find("%v: it took %v to end", signal, time.Since(told).Round(time.Millisecond))
		}
		command = k.again
	}
	if r := c.gopeft(strings.Fields(k.again)...); r.code != 0 {
		c.find("run again it fails: exit %d %s", r.code, cut(r.stderr))
		return nil
	}
	got, err := c.left(k)
	if err != nil {
		c.find("%v", err)
		return nil
	}
	for name, want := range k.result {
		if got[name] != want {
			c.find("%s is not what an undisturbed run leaves", name)
		}
	}
	for name := range got {
		if _, ok := k.result[name]; !ok {
			c.find("%s is left, which an undisturbed run does not leave", name)
		}
	}
	names, err := hidden(c.dir)
	if len(names) > 0 {
		c.find("left: %v", names)
	}
	return err
}

// left is what a command has left, without what depends on the time.
func (c *attempt) left(k killed) (map[string]string, error) {
	out := c.in(k.out)
	if k.run == "" {
		all, err := snapshot(filepath.Dir(out))
		for name := range all {
			if name != k.out && !strings.HasPrefix(name, k.out+"/") && !strings.HasPrefix(name, "."+k.out) {
				delete(all, name)
			}
		}
		return all, err
	}
	all := map[string]string{}
	for _, run := range strings.Fields(k.run) {
		dir := filepath.Join(out, run)
		files, err := snapshot(dir)
		if err != nil {
			return nil, err
		}
		for name, sum := range files {
			switch filepath.Base(name) {
			case "state.json", "inputs.json", "provenance.json", "summary.json", "curves.png", "config.yaml", "compare.csv", "compare.md", "compare.png", "compare.yaml":
				sum = "" // seconds, times and places
			case "metrics.csv":
				if sum, err = figures(filepath.Join(dir, name)); err != nil {
					return nil, err
				}
			case "checksums.json":
			}
			all[run+"/"+name] = sum
		}
	}
	return all, nil
}

// figures are the columns of a metrics.csv that do not depend on the time.
func figures(path string) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) == 0 {
		return "", err
	}
	var lines []string
	for _, row := range rows {
		var kept []string
		for i, name := range rows[0] {
			if !strings.Contains(name, "second") && !strings.Contains(name, "per_s") && !strings.Contains(name, "mb") && !strings.Contains(name, "time") {
				kept = append(kept, row[i])
			}
		}
		lines = append(lines, strings.Join(kept, ","))
	}
	return strings.Join(lines, "\n"), nil
}
