package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// flipBase is a run that was stopped, and one that has finished.
type flipBase struct {
	finished map[string]string // what the stopped run comes to
	resume   []string          // files whose every changed bit a resumed run has to find
	caches   []string          // files whose changed bits may be found or be without effect
	verify   []string          // files whose every changed bit verify has to find
}

const flipTrain = "train --model encoder --data rows.csv --batch-size 8 --amp none --method lora --adapter-init init --max-steps 8 --checkpoint-every 1 --epochs 4 --cache-dir tokens --out "

// prepareFlips trains an adapter, goes on from it in a run that is stopped half-way, and in another to its end.
func prepareFlips(h *harness) error {
	err := h.build([]string{"encoder", "rows.csv"}, map[string]string{".": "flips"},
		"train --model encoder --data rows.csv --batch-size 8 --amp none --method lora --max-steps 2 --out first"+quick)
	if err != nil {
		return err
	}
	c := &attempt{harness: h, kind: "build", dir: filepath.Join(h.root, "case"), tally: &tally{codes: map[string]int{}}}
	if err := c.clean(); err != nil {
		return err
	}
	if err := errors.Join(c.bring("encoder", "rows.csv"), copyTo(c.in("init"), h.at("flips/first/best"))); err != nil {
		return err
	}
	if r := c.start(usual, nil, strings.Fields(flipTrain+"done"+quick)...); r.code != 0 {
		return fmt.Errorf("exit %d: %s", r.code, r.stderr)
	}
	stopped := c.stopAtStep(3, strings.Fields(flipTrain+"half"+quick)...)
	if stopped.code != 130 {
		return fmt.Errorf("stopping a run: exit %d: %s", stopped.code, stopped.stderr)
	}
	b := &flipBase{}
	if b.finished, err = c.left(killed{out: "done", run: "."}); err != nil {
		return err
	}
	if b.resume, err = c.listed("half/last/state/*", "encoder/*", "init/adapter_model.safetensors", "init/adapter_config.json", "init/gopeft.yaml"); err != nil {
		return err
	}
	if b.caches, err = c.listed("tokens/*"); err != nil {
		return err
	}
	if b.verify, err = c.listed("done/*", "encoder/*", "rows.csv", "init/adapter_model.safetensors"); err != nil {
		return err
	}
	b.verify = slices.DeleteFunc(b.verify, func(name string) bool { return name == "done/provenance.json" || name == "done/inputs.json" }) // the record itself, and what is in it
	for _, list := range []*[]string{&b.resume, &b.caches, &b.verify} {                                                                    // of what holds a bit
		*list = slices.DeleteFunc(*list, func(name string) bool {
			info, err := os.Stat(c.in(name))
			return err != nil || info.Size() == 0
		})
	}
	if err := os.RemoveAll(h.at("flips")); err != nil {
		return err
	}
	h.flips = b
	return copyTo(h.at("flips"), c.dir)
}

func flipCase(c *attempt) error {
	if err := copyTo(c.dir, c.at("flips")); err != nil {
		return err
	}
	b := c.flips
	what := c.IntN(10)
	list := b.verify
	switch {
	case what < 5:
		list = b.resume
	case what < 7:
		list = b.caches
	}
	name := list[c.IntN(len(list))]
	path := c.in(name)
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	bit := c.IntN(8 * len(raw))
	raw[bit/8] ^= 1 << (bit % 8)
	control := c.IntN(20) == 0
	c.about = fmt.Sprintf("bit %d of %s", bit, name)
	if control {
		raw[bit/8] ^= 1 << (bit % 8)
		c.about = "nothing"
	}
	if err := os.WriteFile(path, raw, 0o666); err != nil {
		return err
	}
	c.script = append(c.script, "# "+c.about+" was changed")
	if what >= 7 {
		if control {
			if r := c.gopeft("verify", "done", "--quiet"); r.code != 0 {
				c.find("verify finds what is not: %s", cut(r.stdout))
			}
			return nil
		}
		if r := c.gopeft("verify", "done", "--quiet"); r.code != 1 {
			c.find("verify does not find it: exit %d", r.code)
		}
		return nil
	}
	r := c.gopeft(strings.Fields(flipTrain + "half --resume" + quick)...)
	top, _, _ := strings.Cut(name, "/")
	said := r.code != 0 && (strings.Contains(r.stderr, filepath.Base(name)) || strings.Contains(r.stderr, top+":"))
	switch {
	case control && r.code != 0:
		c.find("a run that nothing has happened to is not resumed")
		return nil
	case !control && r.code != 0 && !said:
		c.find("the error is of something else")
		return nil
	case !control && what < 5 && r.code == 0:
		c.find("the resumed run does not find it")
		return nil
	case !control && r.code != 0:
		return nil // found
	}
	got, err := c.left(killed{out: "half", run: "."})
	if err != nil {
		return err
	}
	for name, want := range b.finished {
		if got[name] != want {
			c.find("%s is another, and nothing was said", name)
		}
	}
	return nil
}
