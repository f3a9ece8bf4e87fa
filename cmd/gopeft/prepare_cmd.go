package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/urfave/cli/v2"

	"gopeft/train"
	"gopeft/train/data"
	"gopeft/train/data/rows"
)

func prepareCommand() *cli.Command {
	return &cli.Command{
		Name: "prepare", Usage: "split and sample labelled texts into train.csv, val.csv and test.csv",
		Flags: slices.Concat(dataFlags(), inGroup(groupData,
			&cli.StringFlag{Name: "split", Value: "0.8,0.1,0.1", Usage: "shares of the parts, one to three"},
			&cli.BoolFlag{Name: "stratify", Usage: "keep every class's share in the parts"},
			&cli.IntFlag{Name: "sample", Usage: "take a random sample of N rows"},
			&cli.BoolFlag{Name: "balanced", Usage: "sample the same number of every class"},
			&cli.Uint64Flag{Name: "seed", Value: 42, Usage: "seed of the split and the sample"},
		), inGroup(groupOutput,
			&cli.StringFlag{Name: "out", Usage: "folder to write"},
			&cli.BoolFlag{Name: "overwrite", Usage: "replace files of an earlier run"},
		), uiFlags()),
		Action: prepare,
	}
}

func prepare(c *cli.Context) error {
	if c.String("data") == "" || c.String("out") == "" {
		return &train.UsageError{Err: errors.New("prepare needs --data FILE and --out FOLDER")}
	}
	if c.Bool("balanced") && c.Int("sample") == 0 {
		return &train.UsageError{Err: errors.New("--balanced goes with --sample N")}
	}
	var ratios []float64
	if err := setSlice(reflect.ValueOf(&ratios).Elem(), c.String("split"), "split"); err != nil {
		return err
	}
	if err := data.CheckRatios(ratios); err != nil {
		return &train.UsageError{Err: fmt.Errorf("--%w", err)}
	}
	p, err := data.Prepare(c.Context, data.PrepareOptions{
		Input: c.String("data"), Out: c.String("out"), Ratios: ratios, Stratify: c.Bool("stratify"), Replace: c.Bool("overwrite"),
		Load: data.LoadOptions{Read: rows.Options{Format: rows.Format(c.String("format"))}, TextColumn: c.String("text-column"),
			LabelColumn: c.String("label-column"), SkipBadRows: c.Bool("skip-bad-rows"), Limit: c.Int("limit"),
			Sample: c.Int("sample"), Balanced: c.Bool("balanced"), Seed: c.Uint64("seed")},
	})
	if err != nil {
		return err
	}
	u := newUI(c)
	for _, note := range p.Notes {
		u.Note("%s", note)
	}
	type part struct {
		File   string         `json:"file"`
		Rows   int            `json:"rows"`
		Labels map[string]int `json:"labels"`
	}
	var parts []part
	for i, set := range p.Sets {
		labels := map[string]int{}
		for k, n := range set.Counts() {
			labels[set.Labels[k]] = n
		}
		parts = append(parts, part{p.Files[i], len(set.Examples), labels})
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, struct {
			Parts   []part `json:"parts"`
			Skipped int    `json:"skipped"` // bad rows
		}{parts, p.Skipped})
	}
	for _, part := range parts {
		fmt.Fprintf(c.App.Writer, "%s: %d rows, %v\n", part.File, part.Rows, part.Labels)
	}
	return nil
}
