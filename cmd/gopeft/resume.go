package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/launch"
	"gopeft/train/run"
)

// resumeValue is what --resume says: alone, or true, that there is a checkpoint to go on from, and auto to go on where
// there is one.
type resumeValue struct{ text string }

// Set implements flag.Value.
func (r *resumeValue) Set(text string) error {
	switch text {
	case "true", "auto":
		r.text = text
	case "false":
		r.text = ""
	default:
		return errors.New("want nothing, or auto")
	}
	return nil
}

// String implements flag.Value.
func (r *resumeValue) String() string {
	if r == nil {
		return ""
	}
	return r.text
}

// IsBoolFlag lets --resume stand alone.
func (*resumeValue) IsBoolFlag() bool { return true }

// standsAlone reports whether a flag with a value of its own kind may be given without one.
func standsAlone(f cli.Flag) bool {
	g, ok := f.(*cli.GenericFlag)
	if !ok {
		return false
	}
	alone, ok := g.Value.(interface{ IsBoolFlag() bool })
	return ok && alone.IsBoolFlag()
}

// outMode says what becomes of the folder out, whose file settings tells when the run in it was begun. auto chooses by
// what it holds. Processes that were started again go on from what they have trained.
func outMode(c *cli.Context, w launch.World, settings string, auto func() run.OutMode) (run.OutMode, error) {
	resume, overwrite := "", c.Bool("overwrite")
	if v, ok := c.Generic("resume").(*resumeValue); ok {
		resume = v.text
	}
	switch {
	case overwrite && resume != "":
		return 0, train.Usage("--overwrite and --resume exclude each other")
	case resume == "true":
		return run.Resume, nil
	case resume == "auto":
		return auto(), nil
	case w.Restarts > 0 && overwrite && w.Begun.IsZero():
		return 0, train.Usage("%s has started this run again, and --overwrite would remove what it has trained: start it with --resume=auto", w.Source)
	case w.Restarts > 0 && begunIn(w, settings):
		return auto(), nil
	case overwrite:
		return run.Overwrite, nil
	}
	return run.Refuse, nil
}

// begunIn reports whether there are settings of the run that this process belongs to. Those that were written before it was
// started are another run's. Where that is not known they count as this one's.
func begunIn(w launch.World, settings string) bool {
	info, err := os.Stat(settings)
	return err == nil && (w.Begun.IsZero() || !info.ModTime().Before(w.Begun))
}

// autoMode goes on from a checkpoint, begins again what has none, and leaves alone what has finished without a checkpoint
// or is no run's.
func autoMode(out string) run.OutMode {
	has := func(name string) bool { return fsutil.Exists(filepath.Join(out, name)) }
	switch {
	case has("last"):
		return run.Resume
	case has("config.yaml") && !has("summary.json"):
		return run.Overwrite
	}
	return run.Refuse
}
