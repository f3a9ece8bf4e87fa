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
	"gopeft/train"
	"gopeft/train/classic"
	"gopeft/train/data"
	"gopeft/train/prompted"
	"gopeft/train/run/folder"
	"gopeft/train/run/inputs"
	"gopeft/train/run/provenance"
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
var runFiles = [...]string{"config.yaml", "metrics.csv", "summary.json", "curves.png", "best", "last", "classifier.safetensors", "classifier.json", prompted.FileName, templatesFile, "events", inputs.FileName, provenance.FileName}

// asideOf is what a run in dir replaces.
func asideOf(dir string) folder.Aside { return folder.Aside{Dir: dir, Names: runFiles[:]} }

// stands reports whether the run in dir has a checkpoint, or is one without any and has ended.
func stands(dir string) bool {
	return fsutil.Exists(filepath.Join(dir, "last")) || classic.FileIn(dir) != "" || fsutil.Exists(filepath.Join(dir, prompted.FileName))
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
	names = slices.DeleteFunc(names, func(name string) bool { return fsutil.Unfinished(settings, name) })
	begun := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == inputs.FileName || name == provenance.FileName })
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
	if err := fsutil.Recover(settings); err != nil {
		return cfg, err
	}
	cfg.Automatic = nil // what another run chose is asked for here
	return cfg, WriteConfig(settings, cfg)
}

// hold keeps others from the run's folder until release, which also brings back what was put aside and replaced by nothing.
// It is the first process's to do.
func (c Config) hold(ui train.UI) (release func() error, err error) {
	if !c.Machine.Group.First() {
		return func() error { return nil }, nil
	}
	unlock, err := fsutil.LockFolder(c.Output.Out, ui.Note)
	if err != nil {
		return nil, err
	}
	old := asideOf(c.Output.Out)
	return func() error { return errors.Join(old.Recover(stands(old.Dir)), unlock()) }, nil
}

// prepare readies the run folder. The first process does, and tells the others how: they need not see the folder.
func prepare(ctx context.Context, cfg Config, mode OutMode, ui train.UI) (Config, error) {
	group := cfg.Machine.Group
	if err := cfg.sameEverywhere(ctx, mode); err != nil {
		return cfg, err
	}
	if group.First() {
		if mode == Overwrite {
			if err := cfg.keepInputs(asideOf(cfg.Output.Out)); err != nil {
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
	case strings.Contains(c.Machine.Device, ":") && !slices.Contains(c.Automatic, "device"):
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

// keepInputs is an error where --overwrite would remove, with the old files, what the run reads.
func (c Config) keepInputs(old folder.Aside) error {
	all, err := c.dataFiles()
	if err != nil {
		return err
	}
	for _, in := range append([]provenance.Source{{Setting: "model", Path: c.Model.Path}, {Setting: "adapter-init", Path: c.Model.AdapterInit}}, all...) {
		holds := func(name string) bool { return fsutil.Holds(old.At(name), in.Path) }
		if in.Path != "" && slices.ContainsFunc(old.Names, holds) {
			return train.Usage("--%s %s is part of the run that --overwrite would remove: give another --out", in.Setting, in.Path)
		}
	}
	return nil
}

// dataFiles are the files and folders of data that the settings name.
func (c Config) dataFiles() (all []provenance.Source, err error) {
	for _, n := range c.Data.Named() {
		files, err := data.Files(n.Files)
		if err != nil {
			return nil, &train.UsageError{Err: err}
		}
		for _, f := range files {
			all = append(all, provenance.Source{Setting: n.Key, Path: f.Path})
		}
	}
	if path := c.Prompt.Templates; path != "" && c.Model.Method == prompted.HardPrompt {
		all = append(all, provenance.Source{Setting: "templates", Path: path})
	}
	return all, nil
}

// resumeOut readies the folder of a run to go on with cfg.
func resumeOut(cfg Config, ui train.UI) (Config, error) {
	settings := filepath.Join(cfg.Output.Out, "config.yaml")
	was, err := ReadWritten(settings, Defaults())
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
	if cfg.Model.ReadAs == "" {
		cfg.Model.ReadAs = was.Model.ReadAs
	}
	if now := cfg.Machine.Cores(); was.Machine.Threads != 0 && now != was.Machine.Threads {
		ui.Note("%d threads, the run was begun with %d: its results may differ in the last digits", now, was.Machine.Threads)
	}
	return cfg, recoverOut(cfg.Output.Out)
}

// watchInputs holds a run to the model and the adapter that it is begun with, or was.
func (c Config) watchInputs(ctx context.Context, mode OutMode) (*inputs.Watch, error) {
	if !c.Machine.Group.First() {
		return nil, nil
	}
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

// record begins the record of what the run is made of, before it reads its data.
func (c Config) record(ctx context.Context, watch *inputs.Watch) (*provenance.Recorder, error) {
	if !c.Machine.Group.First() {
		return nil, nil
	}
	r := provenance.Record{Program: provenance.ThisProgram(c.Version, c.Build), Model: c.Model.folder(), AdapterInit: c.Model.AdapterInit}
	sources, err := c.dataFiles()
	if err != nil {
		return nil, err
	}
	return provenance.Begin(ctx, c.Output.Out, r, sources, watch)
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
