package run

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"gopeft/model/fsutil"
	"gopeft/model/hub"
	"gopeft/train"
	"gopeft/train/classic"
	"gopeft/train/classic/xgboost"
	"gopeft/train/prompted"
	"gopeft/train/report"
	"gopeft/train/run/folder"
)

// Comparison is several runs on one data set: the same settings but for the method and what Settings override.
type Comparison struct {
	Base     Config
	Methods  []string             // names of Methods, or of classic.Kinds for features with that classifier
	Settings map[string]yaml.Node // per method: settings over Base
}

// CompareMethods lists what can be compared: the methods, features by their classifiers.
func CompareMethods() []string {
	return append(classic.Kinds(), Methods()[1:]...)
}

// AllMethods are those of CompareMethods that can do the task here, with a model that writes texts or one that only reads
// them; note says which cannot for want of a library, "" if nothing is to be said.
func AllMethods(task string, writes bool) (methods []string, note string) {
	methods = CompareMethods()
	switch {
	case task == train.TaskCausal:
		return slices.DeleteFunc(methods, func(m string) bool { return isClassifier(m) || m == prompted.HardPrompt }), ""
	case task != train.TaskClassify:
		return slices.DeleteFunc(methods, func(m string) bool { return isClassifier(m) || prompted.Is(m) }), ""
	case !writes:
		methods = slices.DeleteFunc(methods, prompted.Is)
	}
	if _, err := xgboost.Find(); err != nil {
		methods = slices.DeleteFunc(methods, func(m string) bool { return m == classic.KindBoosted })
		note = fmt.Sprintf("%s is left out: %v", classic.KindBoosted, err)
	}
	return methods, note
}

func isClassifier(method string) bool { return slices.Contains(classic.Kinds(), method) }

// ReadComparison reads a YAML file: a run's settings, with methods (a list) and settings (per method).
func ReadComparison(path string, base Config) (Comparison, error) {
	c := Comparison{Base: base}
	raw, err := fsutil.ReadSettings(path, fsutil.MaxSettings)
	if err != nil {
		return c, err
	}
	var extra struct {
		Methods  []string             `yaml:"methods"`
		Settings map[string]yaml.Node `yaml:"settings"`
	}
	if err := yaml.Unmarshal(raw, &extra); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	c.Methods, c.Settings = extra.Methods, extra.Settings
	if c.Base, err = parseConfig(raw, base, "methods", "settings"); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Config is the configuration of one method's run.
func (c Comparison) Config(method string) (Config, error) {
	cfg := c.Base
	cfg.Model.Method = method
	if isClassifier(method) {
		cfg.Model.Method, cfg.Model.Classifier = train.Features, method
	}
	if c.asksByTemplate() && method != prompted.InContext {
		cfg.Data.Template = ""
	}
	if n, ok := c.Settings[method]; ok {
		var err error
		if cfg, err = overlay(cfg, &n); err != nil {
			return cfg, fmt.Errorf("settings of %s: %w", method, err)
		}
	}
	cfg.Output.Out = filepath.Join(c.Base.Output.Out, method)
	return cfg, cfg.Check()
}

// asksByTemplate reports whether the template is how labels are asked for, which is in-context's alone.
func (c Comparison) asksByTemplate() bool {
	return c.Base.Model.Task == "classify" && slices.Contains(c.Methods, prompted.InContext)
}

// dataHashes reads the data of every run, which tells a bad row before the first of them, and identifies it. It also
// fetches the models.
func dataHashes(ctx context.Context, configs []Config, ui train.UI) ([]string, error) {
	hashes := make([]string, len(configs))
	known := map[string]string{} // most runs read the same
	for i, cfg := range configs {
		var err error
		if cfg.Model.found, err = hub.Find(ctx, cfg.Model.Path, ui); err != nil {
			return nil, err
		}
		if err := cfg.readNewTokens(); err != nil {
			return nil, err
		}
		configs[i] = cfg
		key := fmt.Sprint(cfg.Data, cfg.Peft.AddTokens, cfg.Machine.Seed, cfg.Model.Task, cfg.trains(), cfg.Model.Method == prompted.HardPrompt, cfg.Prompt.Templates, cfg.Model.found, cfg.Model.AdapterInit)
		hash, ok := known[key]
		if !ok {
			if hash, err = cfg.dataHash(ctx, ui); err != nil {
				return nil, err
			}
			known[key] = hash
		}
		hashes[i] = hash
	}
	return hashes, nil
}

// Compare runs every method and writes compare.csv, compare.md and compare.png into Base.Out, and its settings to compare.yaml. each runs one
// configuration; in a program of its own, so that peak memory is the method's alone. With Resume, runs that
// have finished are kept. A method that fails does not keep the others from running; the error names it.
func Compare(ctx context.Context, c Comparison, mode OutMode, ui train.UI, each func(context.Context, Config, OutMode) (report.Summary, error)) (results []report.Result, err error) {
	if c.Base.Output.Out == "" {
		c.Base.Output.Out = filepath.Join("runs", "compare")
	}
	configs := make([]Config, len(c.Methods))
	for m := range c.Settings {
		if !slices.Contains(CompareMethods(), m) {
			return nil, train.Usage("settings: %q is not known: some of %s", m, strings.Join(CompareMethods(), ", "))
		}
	}
	for i, m := range c.Methods {
		if slices.Contains(c.Methods[:i], m) {
			return nil, train.Usage("--methods: %q stands there twice", m)
		}
		if !slices.Contains(CompareMethods(), m) {
			return nil, train.Usage("--methods: %q is not known: all, or some of %s", m, strings.Join(CompareMethods(), ", "))
		}
		var err error
		if configs[i], err = c.Config(m); err != nil {
			return nil, err
		}
		if err := configs[i].Model.findLibrary(); err != nil {
			return nil, err
		}
	}
	hashes, err := dataHashes(ctx, configs, ui)
	if err != nil {
		return nil, err
	}
	release, err := fsutil.LockFolder(c.Base.Output.Out, ui.Note)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	old := folder.Aside{Dir: c.Base.Output.Out, Names: compareFiles[:]}
	defer func() { err = errors.Join(err, recoverCompare(old)) }()
	if err := prepareCompare(c, mode, old); err != nil {
		return nil, err
	}
	var failed []error
	for i, m := range c.Methods {
		sum, done := finished(ctx, configs[i], hashes[i], mode)
		if !done {
			ui.Note("\n[%d/%d] %s", i+1, len(c.Methods), m)
			var err error
			if sum, err = each(ctx, configs[i], runMode(configs[i].Output.Out, mode)); err != nil {
				if ctx.Err() != nil {
					return results, ErrInterrupted
				}
				ui.Note("%s failed: %v", m, err)
				failed = append(failed, fmt.Errorf("%s: %w", m, err))
				continue
			}
		}
		r := sum.Result()
		r.Method = m
		results = append(results, r)
		if err := writeCompare(c.Base, results); err != nil { // after each: an interrupted comparison leaves its table
			return results, err
		}
	}
	return results, errors.Join(failed...)
}

// compareFiles is what a comparison leaves in its folder beside its runs.
var compareFiles = [...]string{"compare.yaml", "compare.csv", "compare.md", "compare.png"}

// recoverCompare brings back the tables that were put aside, unless there are new ones: a method has finished.
func recoverCompare(old folder.Aside) error { return old.Recover(fsutil.Exists(old.At("compare.csv"))) }

func prepareCompare(c Comparison, mode OutMode, old folder.Aside) error {
	if err := recoverCompare(old); err != nil {
		return err
	}
	names, err := folder.Visible(old.Dir)
	if err != nil {
		return err
	}
	if len(names) > 0 && mode == Refuse {
		return fmt.Errorf("%s is not empty: give another --out, --overwrite it, or --resume it", old.Dir)
	}
	for _, name := range old.Names {
		if err := fsutil.Recover(old.At(name)); err != nil {
			return err
		}
	}
	if mode == Overwrite { // an old table is none of the new runs'
		if err := c.Base.keepInputs(old); err != nil {
			return err
		}
		if err := old.Move(); err != nil {
			return err
		}
	}
	return writeYAML(filepath.Join(c.Base.Output.Out, "compare.yaml"), struct {
		Methods  []string             `yaml:"methods"`
		Settings map[string]yaml.Node `yaml:"settings,omitempty"`
		Config   `yaml:",inline"`
	}{c.Methods, c.Settings, c.Base})
}

// finished reads the summary of a run with the same settings and data that an earlier, interrupted comparison
// completed.
func finished(ctx context.Context, cfg Config, hash string, mode OutMode) (sum report.Summary, ok bool) {
	if mode != Resume {
		return sum, false
	}
	defer fsutil.SweepLock(cfg.Output.Out) // a run that was killed at its very end leaves one
	was, err := ReadWritten(filepath.Join(cfg.Output.Out, "config.yaml"), Defaults())
	if err != nil || len(cfg.differences(was)) > 0 {
		return sum, false
	}
	sum, err = report.ReadSummary(filepath.Join(cfg.Output.Out, "summary.json"))
	return sum, err == nil && was.matches(sum.Fingerprint, hash) && cfg.sameInputs(ctx)
}

// runMode is how one method's run starts: from its checkpoint if it has one, else anew.
func runMode(dir string, mode OutMode) OutMode {
	if mode != Resume {
		return mode
	}
	if fsutil.Exists(filepath.Join(dir, "last")) {
		return Resume
	}
	if fsutil.Exists(filepath.Join(dir, "config.yaml")) {
		return Overwrite
	}
	return Refuse // a folder that is no run's is left alone
}

func writeCompare(cfg Config, results []report.Result) error {
	intro := fmt.Sprintf("%s on %s", filepath.Base(cfg.Model.Path), cfg.Data.Name())
	return errors.Join(
		report.WriteCompareCSV(filepath.Join(cfg.Output.Out, "compare.csv"), results),
		report.WriteCompareMarkdown(filepath.Join(cfg.Output.Out, "compare.md"), intro, results),
		report.PlotCompare(filepath.Join(cfg.Output.Out, "compare.png"), intro, results),
	)
}
