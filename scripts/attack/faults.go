package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// smallCommands are one of each kind of work.
func smallCommands() []target {
	return []target{
		{needs: "encoder rows.csv", commands: []string{"train --model encoder --data rows.csv --method lora --epochs 2 --checkpoint-every 2 --amp none --out out/run" + quick}},
		{needs: "encoder rows.csv", commands: []string{"train --model encoder --data rows.csv --method features --amp none --out out/run" + quick}},
		{needs: "encoder many.csv", commands: []string{"predict --model encoder --data many.csv --out out/p.jsonl" + quick}},
		{needs: "encoder many.csv", commands: []string{"embed --model encoder --data many.csv --out out/e.npy" + quick}},
		{needs: "encoder many.csv", commands: []string{"eval --model encoder --data many.csv --per-row out/e.jsonl" + quick}},
		{needs: "decoder prompts.jsonl", commands: []string{"generate --model decoder --prompts prompts.jsonl --max-new-tokens 20 --temperature 0 --out out/g.jsonl" + quick}},
		{needs: "encoder adapter", commands: []string{"merge --model encoder --adapter adapter --out out/m" + quick}},
		{needs: "encoder adapter", commands: []string{"convert --model encoder --adapter adapter --to peft --out out/c" + quick}},
		{needs: "decoder", commands: []string{"quantize --model decoder --to int8 --out out/q" + quick}},
		{needs: "many.csv", commands: []string{"prepare --data many.csv --out out/parts --quiet"}},
		{needs: "encoder many.csv", commands: []string{"tokenize --model encoder --data many.csv --quiet"}},
		{needs: "encoder rows.csv", commands: []string{"compare --model encoder --data rows.csv --methods logreg,bitfit --epochs 1 --amp none --out out/cmp" + quick}},
	}
}

// prepareMemory finds the least address space in which the program says its version: below it is not gopeft that ends, but
// the loader of its libraries.
func prepareMemory(h *harness) error {
	starts := func(kB int) bool {
		cmd := exec.CommandContext(h.ctx, "sh", "-c", `ulimit -v "$0" && exec "$@"`, fmt.Sprint(kB), h.binary, "--version")
		return cmd.Run() == nil
	}
	low, high := 64<<10, 16<<20
	if !starts(high) {
		return &skip{"the program does not start under ulimit -v"}
	}
	for high-low > 8<<10 {
		if middle := (low + high) / 2; starts(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	h.least = high
	return nil
}

// memoryCase runs a command in too little address space, or just enough.
func memoryCase(c *attempt) error {
	all := smallCommands()
	t := all[c.n%len(all)]
	if err := errors.Join(c.bring(strings.Fields(t.needs)...), os.MkdirAll(c.in("out"), 0o777)); err != nil {
		return err
	}
	l := usual
	l.space = c.least + c.IntN(c.IntN(3<<20)+1)
	args := strings.Fields(t.commands[0])
	c.about = fmt.Sprintf("%s in %d MB of address space", args[0], l.space>>10)
	r := c.start(l, nil, args...)
	c.judge(r, l)
	if r.code == 0 || r.late {
		return nil
	}
	// With memory again it works, in the same place.
	if args[0] == "train" || args[0] == "compare" {
		args = append(args, "--resume=auto")
		if slices.Contains(args, "features") {
			args[len(args)-1] = "--overwrite"
		}
	} else if slices.Contains([]string{"merge", "convert", "quantize", "prepare"}, args[0]) {
		args = append(args, "--overwrite")
	}
	if r := c.gopeft(args...); r.code != 0 {
		c.find("with memory again it fails: %s", cut(r.stderr))
	}
	names, err := hidden(c.dir)
	if len(names) > 0 {
		c.find("left: %v", names)
	}
	return err
}

func prepareDisk(h *harness) error {
	dir := filepath.Join(h.root, "disk")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "attack", dir).CombinedOutput(); err != nil {
		return &skip{"no small disk can be mounted, which takes root: " + strings.TrimSpace(string(out))}
	}
	return exec.Command("umount", dir).Run()
}

// diskCase runs a command on a disk that is full after some kilobytes, then again once there is room.
func diskCase(c *attempt) error {
	all := smallCommands()
	t := all[c.n%len(all)]
	args := strings.Fields(t.commands[0])
	if args[0] == "tokenize" {
		return nil // it writes no files
	}
	out := c.in("out")
	if err := errors.Join(c.bring(strings.Fields(t.needs)...), os.MkdirAll(out, 0o777)); err != nil {
		return err
	}
	size := 4 << c.IntN(8)
	size += c.IntN(size)
	c.about = fmt.Sprintf("%s on a disk of %d kB", args[0], size)
	mount := []string{"mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dk", size), "attack", out}
	c.script = append(c.script, quoted(mount))
	if text, err := exec.Command(mount[0], mount[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", mount, err, text)
	}
	defer func() { _ = exec.Command("umount", out).Run() }()
	r := c.gopeft(args...)
	if r.code == 0 {
		return nil
	}
	before, err := snapshot(out)
	if err != nil {
		return err
	}
	for name := range before {
		if strings.Contains(name, ".tmp-") {
			c.find("%s is left on the full disk", name)
		}
	}
	if text, err := exec.Command("mount", "-o", "remount,size=64m", out).CombinedOutput(); err != nil {
		return fmt.Errorf("remount: %w: %s", err, text)
	}
	c.script = append(c.script, quoted([]string{"mount", "-o", "remount,size=64m", out}))
	switch args[0] {
	case "train", "compare":
		args = append(args, "--resume=auto")
		if slices.Contains(args, "features") {
			args[len(args)-1] = "--overwrite"
		}
	case "merge", "convert", "quantize", "prepare":
		args = append(args, "--overwrite")
	}
	if r := c.gopeft(args...); r.code != 0 {
		c.find("with room again it fails: %s", cut(r.stderr))
	}
	names, err := hidden(out)
	if len(names) > 0 {
		c.find("left: %v", names)
	}
	return err
}

func prepareTruncated(*harness) error { return nil }

// truncatedCase cuts off a file of weights while a command has it mapped. What is expected is one line that names the file
// and exit code 1, or that the command had what it needed: never a signal, a dump, or results of other weights with 0.
func truncatedCase(c *attempt) error {
	if err := c.bring("encoder", "decoder", "many.csv", "prompts.jsonl"); err != nil {
		return err
	}
	all := []struct{ file, command string }{
		{"encoder/model.safetensors", "predict --model encoder --data many.csv --out p.jsonl --batch-size 1" + quick},
		{"encoder/model.safetensors", "train --model encoder --data many.csv --method lora --epochs 3 --amp none --out run" + quick},
		{"decoder/model.safetensors", "generate --model decoder --prompts prompts.jsonl --max-new-tokens 60 --temperature 0 --out g.jsonl" + quick},
		{"encoder/model.safetensors", "embed --model encoder --data many.csv --batch-size 1 --out e.npy" + quick},
	}
	t := all[c.n%len(all)]
	after, size := time.Duration(c.Int64N(int64(900*time.Millisecond))), c.Int64N(40000)
	args := strings.Fields(t.command)
	c.about = fmt.Sprintf("%s, whose weights are cut to %d bytes after %v", args[0], size, after.Round(time.Millisecond))
	r := c.start(usual, func(_ *os.Process, ended <-chan struct{}) {
		select {
		case <-ended:
		case <-time.After(after):
			_ = os.Truncate(c.in(t.file), size)
		}
	}, args...)
	c.script = append(c.script, fmt.Sprintf("# %v later: truncate -s %d %s", after, size, t.file))
	c.judge(r, usual)
	return nil
}
