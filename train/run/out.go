package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"gopeft/model/fsutil"
	"gopeft/model/hub"
	"gopeft/train"
)

// OutMode says what becomes of a run folder that is not empty.
type OutMode int

// The modes: refuse it, replace it, or go on from its last checkpoint.
const (
	Refuse OutMode = iota
	Overwrite
	Resume
)

// runFiles is what a run leaves in its folder.
var runFiles = [...]string{"config.yaml", "metrics.csv", "summary.json", "curves.png", "best", "last", "classifier.safetensors", "events"}

// prepareOut makes the run folder, readies it to go on, or refuses it. Nothing is removed from a folder that is
// not a run's, and from a run's only what runs write. A run that goes on gets the settings that its first session chose.
func prepareOut(cfg Config, mode OutMode, ui train.UI) (Config, error) {
	if mode == Resume {
		return resumeOut(cfg, ui)
	}
	settings := filepath.Join(cfg.Output.Out, "config.yaml")
	if mode == Overwrite {
		if err := recoverOut(cfg.Output.Out); err != nil {
			return cfg, err
		}
	}
	entries, err := os.ReadDir(cfg.Output.Out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cfg, err
	}
	used := func(e fs.DirEntry) bool { return e.Name() != "config.yaml" && !fsutil.Unfinished(settings, e.Name()) }
	if slices.ContainsFunc(entries, used) { // not by a run that failed before its first step
		if mode == Refuse {
			return cfg, fmt.Errorf("%s is not empty: give another --out, --overwrite it, or --resume it", cfg.Output.Out)
		}
		if !isRun(settings) {
			return cfg, fmt.Errorf("%s holds other things than a run, which --overwrite leaves alone: give another --out", cfg.Output.Out)
		}
		// The settings go last: until then the folder is a run's, and can be overwritten again.
		for _, name := range slices.Backward(runFiles[:]) {
			if err := os.RemoveAll(filepath.Join(cfg.Output.Out, name)); err != nil {
				return cfg, err
			}
		}
	}
	if err := os.MkdirAll(cfg.Output.Out, 0o777); err != nil {
		return cfg, err
	}
	if err := fsutil.Recover(settings); err != nil {
		return cfg, err
	}
	cfg.Automatic = nil // what another run chose is asked for here
	return cfg, WriteConfig(settings, cfg)
}

// prepare readies the run folder. The first process does, and tells the others how: they need not see the folder.
func prepare(ctx context.Context, cfg Config, mode OutMode, ui train.UI) (Config, error) {
	group := cfg.Machine.Group
	if err := cfg.sameEverywhere(ctx, mode); err != nil {
		return cfg, err
	}
	if group.First() {
		if mode == Overwrite {
			if err := cfg.checkInputs(ctx, ui); err != nil {
				return cfg, err
			}
		}
		var err error
		if cfg, err = prepareOut(cfg, mode, ui); err != nil {
			return cfg, err
		}
	}
	if group == nil {
		return cfg, nil
	}
	if kind, _, ok := strings.Cut(cfg.Machine.Device, ":"); ok && slices.Contains(cfg.Automatic, "device") {
		cfg.Machine.Device = kind // what the first process chose for itself
	}
	raw, err := yaml.Marshal(cfg)
	if err != nil {
		return cfg, err
	}
	if raw, err = group.Share(ctx, "settings", raw); err != nil || group.First() {
		return cfg, err
	}
	all := cfg
	all.Automatic = nil
	return all, yaml.Unmarshal(raw, &all)
}

// sameEverywhere refuses processes that were started with other settings. A run that goes on has those of its folder,
// which only the first process needs to see.
func (c Config) sameEverywhere(ctx context.Context, mode OutMode) error {
	switch {
	case c.Machine.Group == nil:
		return nil
	case strings.Contains(c.Machine.Device, ":"):
		return train.Usage("--device %s: each process takes a GPU of its own; give --device cuda", c.Machine.Device)
	case mode == Resume:
		return nil
	}
	mine, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	raw, err := c.Machine.Group.Share(ctx, "asked", mine)
	if err != nil {
		return err
	}
	first := Defaults()
	if err := yaml.Unmarshal(raw, &first); err != nil {
		return err
	}
	text := "those of rank 0"
	if names := c.differences(first); len(names) > 0 {
		text = "another --" + strings.Join(names, ", --")
	}
	return c.Machine.Group.Agree(ctx, "settings", text)
}

// checkInputs looks at what a run reads before --overwrite removes what an earlier one left.
func (c Config) checkInputs(ctx context.Context, ui train.UI) error {
	for _, in := range []struct{ flag, path string }{
		{"model", c.Model.Path}, {"adapter-init", c.Model.AdapterInit}, {"data", c.Data.Data}, {"train", c.Data.Train}, {"val", c.Data.Val}, {"test", c.Data.Test},
	} {
		for _, name := range runFiles {
			if in.path != "" && holds(filepath.Join(c.Output.Out, name), in.path) {
				return train.Usage("--%s %s is part of the run that --overwrite would remove: give another --out", in.flag, in.path)
			}
		}
	}
	var err error
	if c.Model.found, err = hub.Find(ctx, c.Model.Path, ui); err != nil {
		return err
	}
	_, err = c.dataHash(ctx)
	return err
}

// holds reports whether path is dir or lies in it.
func holds(dir, path string) bool {
	var real [2]string
	for i, p := range []string{dir, path} {
		var err error
		if p, err = filepath.EvalSymlinks(p); err == nil {
			real[i], err = filepath.Abs(p)
		}
		if err != nil { // what is not there holds nothing
			return false
		}
	}
	rel, err := filepath.Rel(real[0], real[1])
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// resumeOut readies the folder of a run to go on with cfg.
func resumeOut(cfg Config, ui train.UI) (Config, error) {
	settings := filepath.Join(cfg.Output.Out, "config.yaml")
	was, err := ReadConfig(settings, Defaults())
	if errors.Is(err, fs.ErrNotExist) {
		return cfg, fmt.Errorf("nothing to resume from: %s is not the folder of a run", cfg.Output.Out)
	}
	if err != nil {
		return cfg, err
	}
	if names := cfg.differences(was); len(names) > 0 {
		return cfg, fmt.Errorf("%s: the run was started with other settings (--%s); resume it with its own, or start anew with --overwrite", settings, strings.Join(names, ", --"))
	}
	shared := cfg.Machine.Threads == 0 && cfg.Machine.Group.Local() > 1 // the cores, by now
	cfg = cfg.adopt(was)
	if shared {
		cfg.Machine.Threads = 0
	}
	if cfg.Model.Quantize == "" && fsutil.Exists(filepath.Join(cfg.Output.Out, "last")) {
		cfg.Model.Quantize = "none" // a run from before there was the setting
	}
	if now := cfg.Machine.Cores(); was.Machine.Threads != 0 && now != was.Machine.Threads {
		ui.Note("%d threads, the run was begun with %d: its results may differ in the last digits", now, was.Machine.Threads)
	}
	return cfg, recoverOut(cfg.Output.Out)
}

// recoverOut tidies what a killed run left beside its files.
func recoverOut(dir string) error {
	var errs []error
	for _, name := range runFiles {
		errs = append(errs, fsutil.Recover(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}

// isRun tells a run's settings, of whatever version, from another program's.
func isRun(settings string) bool {
	raw, err := os.ReadFile(settings)
	if err != nil {
		return false
	}
	var keys map[string]yaml.Node
	if err := yaml.Unmarshal(raw, &keys); err != nil {
		return false
	}
	_, model := keys["model"]
	_, method := keys["method"]
	return model && method
}
