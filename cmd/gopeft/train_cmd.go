package main

import (
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"gopeft/train"
	"gopeft/train/report"
)

func trainCommand() *cli.Command {
	return &cli.Command{
		Name: "train", Usage: "fine-tune a model with one method",
		Flags: slices.Concat(configFlags(), outFlags(), uiFlags()),
		Action: func(c *cli.Context) error {
			cfg, err := readConfig(c)
			if err != nil {
				return err
			}
			mode, err := outMode(c)
			if err != nil {
				return err
			}
			sum, err := train.Run(c.Context, cfg, mode, newUI(c))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, sum)
			}
			if err := report.WriteTable(c.App.Writer, []report.Result{sum.Result()}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.App.Writer, "\nresults in %s\n", cfg.Out)
			return err
		},
	}
}
