package train

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"gopeft/model/fsutil"
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

// OutFolder is the folder of the run.
func (c Config) OutFolder() string {
	if c.Out == "" {
		return filepath.Join("runs", c.Method)
	}
	return c.Out
}

// prepareOut makes the run folder, readies it to go on, or refuses it. Nothing is removed from a folder that is
// not a run's, and from a run's only what runs write.
func prepareOut(cfg Config, mode OutMode) error {
	settings := filepath.Join(cfg.Out, "config.yaml")
	if mode == Resume {
		was, err := ReadConfig(settings, Defaults())
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("nothing to resume from: %s is not the folder of a run", cfg.Out)
		}
		if err != nil {
			return err
		}
		if names := cfg.differences(was); len(names) > 0 {
			return fmt.Errorf("%s: the run was started with other settings (--%s); resume it with its own, or start anew with --overwrite", settings, strings.Join(names, ", --"))
		}
		return errors.Join(fsutil.Recover(filepath.Join(cfg.Out, "last")), fsutil.Recover(filepath.Join(cfg.Out, "best")))
	}
	entries, err := os.ReadDir(cfg.Out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if unused := len(entries) == 1 && entries[0].Name() == "config.yaml"; len(entries) > 0 && !unused { // not by a run that failed before its first step
		if mode == Refuse {
			return fmt.Errorf("%s is not empty: give another --out, --overwrite it, or --resume it", cfg.Out)
		}
		if !isRun(settings) {
			return fmt.Errorf("%s holds other things than a run, which --overwrite leaves alone: give another --out", cfg.Out)
		}
		// The settings go last: until then the folder is a run's, and can be overwritten again.
		for _, name := range slices.Backward(runFiles[:]) {
			if err := os.RemoveAll(filepath.Join(cfg.Out, name)); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(cfg.Out, 0o777); err != nil {
		return err
	}
	return WriteConfig(settings, cfg)
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
