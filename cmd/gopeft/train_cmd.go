package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"gopeft/train/report"
	"gopeft/train/run"
)

func trainCommand() *cli.Command {
	return &cli.Command{
		Name: "train", Usage: "fine-tune a model with one method",
		Flags: slices.Concat(configFlags(), outFlags(), uiFlags(),
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
	mode, err := outMode(c)
	if err != nil {
		return err
	}
	cfg, err := readConfig(c)
	if mode == run.Resume && !c.IsSet("config") && c.IsSet("out") { // the run's own settings
		cfg, err = resumedConfig(c)
	}
	if err != nil {
		return err
	}
	sum, err := run.Run(c.Context, cfg, mode, newUI(c))
	if err != nil {
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
