package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"gopeft/train/dist"
	"gopeft/train/launch"
	"gopeft/train/report"
	"gopeft/train/run"
)

func trainCommand() *cli.Command {
	return &cli.Command{
		Name: "train", Usage: "fine-tune a model with one method",
		Flags: slices.Concat(configFlags(), processFlags(), outFlags(), uiFlags(),
			[]cli.Flag{&cli.StringFlag{Name: "error-file", Hidden: true, Usage: "of a comparison: where to write the reason of a failure"}}),
		Action: func(c *cli.Context) error {
			err := trainOne(c)
			path := c.String("error-file")
			if path == "" || err == nil {
				return err
			}
			if failed := os.WriteFile(path, []byte(oneLine(err)), 0o600); failed != nil {
				return errors.Join(err, failed)
			}
			return &toldError{err}
		},
	}
}

// toldError is of a failure whose reason the comparison has, which says it.
type toldError struct{ error }

func (e *toldError) Unwrap() error { return e.error }

func trainOne(c *cli.Context) error {
	if launched, err := trainInProcesses(c); launched || err != nil {
		return err
	}
	world, err := worldOf(c)
	if err != nil {
		return err
	}
	return together(c, world, func(ctx context.Context, group *dist.Group) error {
		return trainAs(ctx, c, world, group)
	})
}

// trainAs trains as one of the processes of a group, or alone.
func trainAs(ctx context.Context, c *cli.Context, world launch.World, group *dist.Group) error {
	cfg, err := readConfig(c)
	if err != nil {
		return err
	}
	out := cfg.OutFolder()
	mode, err := outMode(c, world, filepath.Join(out, "config.yaml"), func() run.OutMode { return autoMode(out) })
	if err != nil {
		return err
	}
	if mode, err = sharedMode(ctx, group, mode); err != nil {
		return err
	}
	if mode == run.Resume && !c.IsSet("config") && c.IsSet("out") { // the run's own settings
		cfg, err = resumedConfig(c)
	}
	if err != nil {
		return err
	}
	cfg.Machine.Group, cfg.Version, cfg.Build = group, version(), buildID()
	sum, err := run.Run(ctx, cfg, mode, newUI(c))
	if err != nil || !group.First() {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, sum)
	}
	if err := report.WriteTable(c.App.Writer, []report.Result{sum.Result()}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "\nresults in %s\n", cfg.OutFolder())
	return err
}

// trainInProcesses is inProcesses with the settings of --config.
func trainInProcesses(c *cli.Context) (launched bool, err error) {
	if !c.IsSet("nproc") {
		return false, nil
	}
	device, threads, config := c.String("device"), c.Int("threads"), c.String("config")
	if err := readAgain(config, true); err != nil {
		return false, err
	}
	if config != "" && config != stdinFile { // that one is passed on
		cfg, err := readConfig(c)
		if err != nil {
			return false, err
		}
		device, threads = cfg.Machine.Device, cfg.Machine.Threads
	}
	return inProcesses(c, device, threads)
}

// resumedConfig returns the settings that the run in --out was started with, changed by the flags given.
func resumedConfig(c *cli.Context) (run.Config, error) {
	cfg, err := run.ReadWritten(filepath.Join(c.String("out"), "config.yaml"), run.Defaults())
	if errors.Is(err, fs.ErrNotExist) {
		return readConfig(c) // run.Run then says that there is nothing to resume
	}
	if err != nil {
		return cfg, err
	}
	cfg.Automatic = slices.DeleteFunc(cfg.Automatic, c.IsSet) // is asked for now
	return flagsOver(c, cfg)
}
