package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"gopeft/train"
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
			if path := c.String("error-file"); path != "" && err != nil {
				err = errors.Join(err, os.WriteFile(path, []byte(oneLine(err)), 0o600))
			}
			return err
		},
	}
}

func trainOne(c *cli.Context) error {
	if d := c.Duration("dist-timeout"); d <= 0 {
		return train.Usage("--dist-timeout is %s, want more than 0s", d)
	}
	if c.IsSet("nproc") {
		if launched, err := trainInProcesses(c); launched || err != nil {
			return err
		}
	}
	world, err := worldOf(c)
	if err != nil {
		return err
	}
	return together(c, world, func(ctx context.Context, group *dist.Group, ui train.UI) error {
		return trainAs(ctx, c, world, group, ui)
	})
}

// trainAs trains as one of the processes of a group, or alone.
func trainAs(ctx context.Context, c *cli.Context, world launch.World, group *dist.Group, ui train.UI) error {
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
	cfg.Machine.Group = group
	sum, err := run.Run(ctx, cfg, mode, ui)
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

// trainInProcesses makes this process the launcher of copies of itself, the same but for --nproc, and reports whether it
// was: for one process there is nothing to launch.
func trainInProcesses(c *cli.Context) (launched bool, err error) {
	nodes, err := nodesOf(c)
	if err != nil {
		return false, err
	}
	device, threads := c.String("device"), c.Int("threads")
	if config := c.String("config"); config != "" && config != "/dev/stdin" { // that one can be read once
		cfg, err := readConfig(c)
		if err != nil {
			return false, err
		}
		device, threads = cfg.Machine.Device, cfg.Machine.Threads
	}
	procs, err := processes(c.String("nproc"), device, strconv.Itoa(threads), newUI(c))
	if err != nil || procs == 1 && nodes.Count <= 1 {
		return false, err
	}
	args, ok := c.App.Metadata[argsKey].([]string)
	if !ok {
		return false, errors.New("the program's arguments are not known")
	}
	args = withoutFlag(withoutFlag(args[1:], c.Command.Flags, "nproc"), c.Command.Flags, "error-file")
	return true, startProcesses(c, launch.Launcher{Procs: procs, Nodes: nodes}, args)
}

// resumedConfig returns the settings that the run in --out was started with, changed by the flags given.
func resumedConfig(c *cli.Context) (run.Config, error) {
	cfg, err := run.ReadConfig(filepath.Join(c.String("out"), "config.yaml"), run.Defaults())
	if errors.Is(err, fs.ErrNotExist) {
		return readConfig(c) // run.Run then says that there is nothing to resume
	}
	if err != nil {
		return cfg, err
	}
	return flagsOver(c, cfg)
}
