package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// misuse is a wrong use of a command: it is refused soon, and nothing of what was there is lost.
type misuse struct {
	about   string
	needs   string
	arrange func(c *attempt) error
	args    string
	allowed bool // it may also succeed, and replace what it says that it replaces
	lasting []string
	waits   bool // for the other end of a pipe, until it is told to end
	beside  string
}

func misuses(h *harness) int { return len(h.misuse) }

// refusal is how soon a wrong use is refused: a second, and what a loaded machine adds.
const refusal = 3 * time.Second

func prepareMisuse(h *harness) error {
	err := h.build([]string{"encoder", "rows.csv"}, map[string]string{"old": "old"},
		"train --model encoder --data rows.csv --batch-size 8 --amp none --method lora --max-steps 2 --out old"+quick)
	if err != nil {
		return err
	}
	h.misuse = slices.Concat(fileMisuses(), folderMisuses(), inputMisuses(), runMisuses())
	return nil
}

// A command that writes a file, without its output, and an input of its own.
type writer struct{ name, needs, args, flag, input string }

func fileWriters() []writer {
	return []writer{
		{"predict", "encoder rows.csv", "predict --model encoder --data rows.csv" + quick, "--out", "rows.csv"},
		{"eval", "encoder rows.csv", "eval --model encoder --data rows.csv" + quick, "--per-row", "rows.csv"},
		{"embed", "encoder rows.csv", "embed --model encoder --data rows.csv" + quick, "--out", "encoder/model.safetensors"},
		{"generate", "decoder prompts.jsonl", "generate --model decoder --prompts prompts.jsonl --max-new-tokens 2" + quick, "--out", "prompts.jsonl"},
	}
}

func folderWriters() []writer {
	return []writer{
		{"train", "encoder rows.csv", "train --model encoder --data rows.csv --method bitfit --max-steps 1" + quick, "--out", "encoder"},
		{"compare", "encoder rows.csv", "compare --model encoder --data rows.csv --methods bitfit --max-steps 1" + quick, "--out", "encoder"},
		{"merge", "encoder adapter", "merge --model encoder --adapter adapter" + quick, "--out", "encoder"},
		{"convert", "encoder adapter", "convert --model encoder --adapter adapter --to peft" + quick, "--out", "adapter"},
		{"quantize", "decoder", "quantize --model decoder --to int8" + quick, "--out", "decoder"},
		{"prepare", "rows.csv", "prepare --data rows.csv --quiet", "--out", "."},
	}
}

func fileMisuses() (all []misuse) {
	for _, w := range fileWriters() {
		end := ""
		if w.name == "embed" {
			end = ".npy"
		}
		add := func(what, out string, arrange func(c *attempt) error, m misuse) {
			m.about, m.needs, m.arrange, m.args = w.name+": "+what, w.needs, arrange, w.args+" "+w.flag+" "+out
			all = append(all, m)
		}
		add("over its input", w.input, nil, misuse{})
		add("over its input, by a link", "link"+end, func(c *attempt) error { return os.Symlink(c.in(w.input), c.in("link"+end)) }, misuse{})
		add("over its input, by a hard link", "hard"+end, func(c *attempt) error { return os.Link(c.in(w.input), c.in("hard"+end)) }, misuse{})
		add("to a folder", "folder"+end, func(c *attempt) error {
			return errors.Join(os.Mkdir(c.in("folder"+end), 0o777), os.WriteFile(c.in("folder"+end)+"/thesis.txt", []byte("mine"), 0o666))
		}, misuse{})
		add("to a folder that is not there", "gone/x"+end, nil, misuse{})
		if end == "" {
			add("to a full device", "/dev/full", nil, misuse{})
			add("to a device", "/dev/null", nil, misuse{allowed: true})
			add("to a FIFO that nobody reads", "fifo", func(c *attempt) error { return syscall.Mkfifo(c.in("fifo"), 0o666) }, misuse{waits: true})
		}
		add("through a link to another file", "link"+end, func(c *attempt) error {
			return errors.Join(os.WriteFile(c.in("other"+end), []byte("old"), 0o666), os.Symlink("other"+end, c.in("link"+end)))
		}, misuse{allowed: true, lasting: []string{"other" + end}})
		add("with a late usage error", "old"+end+" --max-length 9999999 --amp nonsense", func(c *attempt) error { return os.WriteFile(c.in("old"+end), []byte("old"), 0o666) }, misuse{})
	}
	return all
}

func folderMisuses() (all []misuse) {
	for _, w := range folderWriters() {
		add := func(what, rest string, arrange func(c *attempt) error, m misuse) {
			m.about, m.needs, m.arrange, m.args = w.name+": "+what, w.needs, arrange, w.args+" "+w.flag+" "+rest
			all = append(all, m)
		}
		foreign := func(c *attempt) error {
			return errors.Join(os.MkdirAll(c.in("foreign/chapters"), 0o777), os.WriteFile(c.in("foreign/thesis.txt"), []byte("mine"), 0o666), os.WriteFile(c.in("foreign/chapters/1.txt"), []byte("mine"), 0o666))
		}
		onInput := misuse{}
		if w.name == "prepare" || w.name == "compare" {
			onInput.allowed = true // beside its input there is room
		}
		add("over its input", w.input+" --overwrite", nil, onInput)
		kept := misuse{allowed: w.name == "prepare" || w.name == "compare"} // which add their own files
		add("a foreign folder", "foreign", foreign, kept)
		add("a foreign folder, with --overwrite", "foreign --overwrite", foreign, kept)
		add("a foreign folder, by a link", "link --overwrite", func(c *attempt) error { return errors.Join(foreign(c), os.Symlink("foreign", c.in("link"))) }, kept)
		add("a file", "file --overwrite", func(c *attempt) error { return os.WriteFile(c.in("file"), []byte("mine"), 0o666) }, misuse{})
		add("a device", "/dev/null --overwrite", nil, misuse{})
		add("a FIFO", "fifo --overwrite", func(c *attempt) error { return syscall.Mkfifo(c.in("fifo"), 0o666) }, misuse{})
		add("with a late usage error", "foreign --overwrite --no-such-flag", foreign, misuse{})
	}
	prepare := "prepare --data parts/train.csv --out parts --overwrite --quiet"
	return append(all, misuse{about: "prepare: over its own input", needs: "rows.csv", args: prepare, arrange: func(c *attempt) error {
		return copyTo(c.in("parts/train.csv"), c.in("rows.csv"))
	}})
}

// inputMisuses put what is no file in the place of an input.
func inputMisuses() (all []misuse) {
	odd := map[string]func(path string) error{
		"a FIFO that nobody writes": func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"a device":                  func(path string) error { return os.Symlink("/dev/zero", path) },
		"a folder":                  func(path string) error { return os.Mkdir(path, 0o777) },
		"a link to itself":          func(path string) error { return os.Symlink(filepath.Base(path), path) },
	}
	for _, t := range []struct{ file, needs, args string }{
		{"encoder/config.json", "encoder rows.csv", "predict --model encoder --data rows.csv" + quick},
		{"encoder/tokenizer.json", "encoder rows.csv", "tokenize --model encoder --data rows.csv --quiet"},
		{"encoder/tokenizer_config.json", "encoder rows.csv", "eval --model encoder --data rows.csv" + quick},
		{"encoder/model.safetensors", "encoder rows.csv", "inspect --model encoder --quiet"},
		{"adapter/adapter_config.json", "encoder adapter rows.csv", "predict --model encoder --adapter adapter --data rows.csv" + quick},
		{"adapter/adapter_model.safetensors", "encoder adapter rows.csv", "merge --model encoder --adapter adapter --out m" + quick},
		{"decoder/chat_template.jinja", "decoder", "generate --model decoder --chat --prompt q --max-new-tokens 2" + quick},
		{"settings.yaml", "encoder rows.csv", "predict --config settings.yaml --model encoder --data rows.csv" + quick},
		{"old/config.yaml", "encoder rows.csv old", "train --resume --out old" + quick},
		{"old/last/state/state.json", "encoder rows.csv old", "train --resume --out old" + quick},
		{"old/provenance.json", "encoder rows.csv old", "verify old --quiet"},
		{"old/inputs.json", "encoder rows.csv old", "train --resume --out old" + quick},
	} {
		for _, what := range []string{"a FIFO that nobody writes", "a device", "a folder", "a link to itself"} {
			all = append(all, misuse{about: first(strings.Fields(t.args)) + ": " + t.file + " is " + what, needs: t.needs, args: t.args, waits: t.file == "settings.yaml" && strings.HasPrefix(what, "a FIFO"),
				allowed: t.file == "decoder/chat_template.jinja", lasting: []string{"old/inputs.json"}, arrange: func(c *attempt) error {
					return errors.Join(os.RemoveAll(c.in(t.file)), odd[what](c.in(t.file)))
				}})
		}
	}
	return all
}

// runMisuses are of a run that has finished, and of one that is at work.
func runMisuses() (all []misuse) {
	for _, wrong := range []string{"--rank -3", "--rank 0", "--targets nope", "--device cuda:99", "--method prompt --virtual-tokens 600", "--lr 0", "--epochs -1", "--amp int4", "--split 2,3", "--text-column nope",
		"--rank 1000000000", "--dropout -7", "--warmup 1e18", "--threads 100000", "--adapter-init nowhere", "--model nowhere"} {
		all = append(all, misuse{about: "train --overwrite of a finished run, " + wrong, needs: "encoder rows.csv old",
			args: "train --model encoder --data rows.csv --method lora --out old --overwrite --quiet " + wrong})
	}
	live := "train --model encoder --data rows.csv --method bitfit --epochs 100000 --checkpoint-every 1 --amp none --out live" + quick
	for _, other := range []string{
		"train --model encoder --data rows.csv --method lora --out live" + quick, "train --model encoder --data rows.csv --method lora --out live --overwrite" + quick, "train --resume --out live" + quick,
		"merge --model encoder --adapter adapter --out live --overwrite" + quick, "convert --model encoder --adapter adapter --to peft --out live --overwrite" + quick,
	} {
		all = append(all, misuse{about: "in the folder of a run at work: " + other, needs: "encoder adapter rows.csv", args: other, beside: live})
	}
	return all
}

func misuseCase(c *attempt) error {
	m := c.misuse[c.n]
	c.about = m.about
	if err := c.bring(strings.Fields(m.needs)...); err != nil {
		return err
	}
	if m.arrange != nil {
		if err := m.arrange(c); err != nil {
			return err
		}
	}
	if m.beside != "" {
		return c.besideRun(m)
	}
	before, err := snapshot(c.dir, "home", "tmp")
	if err != nil {
		return err
	}
	c.wrongUse(m)
	after, err := snapshot(c.dir, "home", "tmp")
	if err != nil {
		return err
	}
	for _, name := range lost(before, after) {
		if !slices.Contains(m.lasting, name) {
			c.find("%s is changed or gone", name)
		}
	}
	return nil
}

// wrongUse runs the command and judges how it is refused.
func (c *attempt) wrongUse(m misuse) {
	told := time.Time{}
	r := c.start(usual, func(p *os.Process, ended <-chan struct{}) {
		if m.waits {
			settled(p, ended)
			select {
			case <-ended:
			default:
				told = time.Now()
				_ = p.Signal(syscall.SIGINT)
			}
		}
	}, strings.Fields(m.args)...)
	c.judge(r, usual)
	switch {
	case !told.IsZero():
		if took := time.Since(told); took > patience {
			c.find("it took %v to end", took)
		}
	case r.code == 0 && !m.allowed:
		c.find("it is not refused")
	case r.code != 0 && r.took > refusal:
		c.find("it is refused after %v", r.took.Round(time.Millisecond))
	}
}

// besideRun makes the wrong use while a run is at work, which has to go on.
func (c *attempt) besideRun(m misuse) error {
	r := c.start(usual, func(p *os.Process, ended <-chan struct{}) {
		for c.step("live") < 3 {
			select {
			case <-ended:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
		c.wrongUse(m)
		step := c.step("live")
		for begun := time.Now(); c.step("live") <= step; time.Sleep(2 * time.Millisecond) {
			if time.Since(begun) > 5*time.Second {
				c.find("the run at work does not go on")
				break
			}
		}
		_ = p.Signal(syscall.SIGTERM)
	}, strings.Fields(m.beside)...)
	if r.code != 130 {
		return fmt.Errorf("the run at work: exit %d %s: %s", r.code, r.signal, r.stderr)
	}
	return nil
}
