package run

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"gopeft/model/fsutil"
	"gopeft/model/hub"
	"gopeft/train"
	"gopeft/train/run/folder"
	"gopeft/train/run/inputs"
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
var runFiles = [...]string{"config.yaml", "metrics.csv", "summary.json", "curves.png", "best", "last", "classifier.safetensors", "events", inputs.FileName}

// asideOf is what a run in dir replaces.
func asideOf(dir string) folder.Aside { return folder.Aside{Dir: dir, Names: runFiles[:]} }

// stands reports whether the run in dir has a checkpoint, or is a classic classifier's and has ended.
func stands(dir string) bool {
	return fsutil.Exists(filepath.Join(dir, "last")) || fsutil.Exists(filepath.Join(dir, "classifier.safetensors"))
}

// prepareOut readies the run folder, which is there and locked, to begin or to go on, or refuses it. Nothing is touched
// in a folder that is not a run's, and of a run's only what runs write, which moves aside. A run that goes on gets the
// settings that its first session chose.
func prepareOut(cfg Config, mode OutMode, ui train.UI) (Config, error) {
	dir := cfg.Output.Out
	if err := asideOf(dir).Recover(stands(dir)); err != nil {
		return cfg, err
	}
	if mode == Resume {
		return resumeOut(cfg, ui)
	}
	settings := filepath.Join(dir, "config.yaml")
	if mode == Overwrite {
		if err := recoverOut(dir); err != nil {
			return cfg, err
		}
	}
	names, err := folder.Visible(dir)
	if err != nil {
		return cfg, err
	}
	begun := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == inputs.FileName })
	switch unused := slices.Equal(begun, []string{"config.yaml"}); {
	case len(names) == 0:
	case unused && wroteConfig(settings): // by a run that failed before its first step
	case mode == Refuse:
		return cfg, fmt.Errorf("%s is not empty: give another --out, --overwrite it, or --resume it", dir)
	case !isRun(settings):
		return cfg, fmt.Errorf("%s holds other things than a run, which --overwrite leaves alone: give another --out", dir)
	}
	if len(names) > 0 {
		if err := asideOf(dir).Move(); err != nil {
			return cfg, err
		}
	}
	cfg.Automatic = nil // what another run chose is asked for here
	return cfg, WriteConfig(settings, cfg)
}

// checkInputs looks at what a run reads before --overwrite removes what an earlier one left.
func (c Config) checkInputs(ctx context.Context, ui train.UI) error {
	for _, name := range runFiles {
		if err := c.keepInputs(filepath.Join(c.Output.Out, name)); err != nil {
			return err
		}
	}
	var err error
	if c.Model.found, err = hub.Find(ctx, c.Model.Path, ui); err != nil {
		return err
	}
	_, err = c.dataHash(ctx)
	return err
}

// keepInputs is an error where --overwrite would remove, with path, what the run reads.
func (c Config) keepInputs(path string) error {
	for _, in := range []struct{ flag, path string }{
		{"model", c.Model.Path}, {"adapter-init", c.Model.AdapterInit}, {"data", c.Data.Data}, {"train", c.Data.Train}, {"val", c.Data.Val}, {"test", c.Data.Test},
	} {
		if in.path != "" && fsutil.Holds(path, in.path) {
			return train.Usage("--%s %s is part of the run that --overwrite would remove: give another --out", in.flag, in.path)
		}
	}
	return nil
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
	cfg = cfg.adopt(was)
	if cfg.Model.Quantize == "" && fsutil.Exists(filepath.Join(cfg.Output.Out, "last")) {
		cfg.Model.Quantize = "none" // a run from before there was the setting
	}
	if now := train.Threads(cfg.Machine.Threads); was.Machine.Threads != 0 && now != was.Machine.Threads {
		ui.Note("%d threads, the run was begun with %d: its results may differ in the last digits", now, was.Machine.Threads)
	}
	return cfg, recoverOut(cfg.Output.Out)
}

// watchInputs holds a run to the model and the adapter that it is begun with, or was.
func (c Config) watchInputs(ctx context.Context, mode OutMode) (*inputs.Watch, error) {
	now, err := inputs.Find(c.Model.folder(), c.Model.AdapterInit)
	if err != nil {
		return nil, err
	}
	var was *inputs.Record
	if mode == Resume && stands(c.Output.Out) {
		if was, err = inputs.Read(c.Output.Out); err != nil {
			return nil, err
		}
	}
	return inputs.Begin(ctx, c.Output.Out, now, was)
}

// sameInputs reports whether the model and the adapter are those that the run was begun with, as far as it has noted them.
func (c Config) sameInputs(ctx context.Context) bool {
	now, err := inputs.Find(c.Model.folder(), c.Model.AdapterInit)
	if err != nil {
		return false
	}
	was, err := inputs.Read(c.Output.Out)
	return err == nil && inputs.Check(ctx, now, was) == nil
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
func isRun(settings string) bool { return hasKeys(settings, "model", "method") }

// wroteConfig tells settings that a run has written, which are all of them, from those that a person has.
func wroteConfig(settings string) bool {
	return hasKeys(settings, append(strings.Fields(firstSettings), "out", "checkpoint-every", "threads")...)
}

func hasKeys(settings string, want ...string) bool {
	raw, err := fsutil.ReadSmall(settings, fsutil.MaxSettings)
	if err != nil {
		return false
	}
	var keys map[string]yaml.Node
	if err := yaml.Unmarshal(raw, &keys); err != nil {
		return false
	}
	for _, key := range want {
		if _, ok := keys[key]; !ok {
			return false
		}
	}
	return true
}
