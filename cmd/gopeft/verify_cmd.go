package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"gopeft/train"
	"gopeft/train/run/provenance"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", Usage: "compare a run, an adapter or a model with what was recorded of it", ArgsUsage: "RUN|ADAPTER|MODEL",
		Flags: slices.Concat(inGroup(groupModel, &cli.StringFlag{Name: "model", Usage: "base model of an adapter without a record", DefaultText: "what the adapter names"}),
			inGroup(groupCheck, &cli.StringFlag{Name: "only", Usage: "of a run, compare what it has read, or what it has written", DefaultText: "both"}), uiFlags()),
		Action: verify,
	}
}

// verified is what verify prints.
type verified struct {
	Path string `json:"path"`
	OK   bool   `json:"ok"`
	provenance.Report
}

// errDiffers is the error of something that is not as it was recorded; what differs has been printed.
var errDiffers = errors.New("not as it was recorded")

func verify(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return train.Usage("verify takes one folder: of a run, a comparison, an adapter or a model")
	}
	path := c.Args().First()
	if !exists(path) {
		return fmt.Errorf("%s: no such file or folder", path)
	}
	parts, err := partsOf(c.String("only"))
	if err != nil {
		return err
	}
	r, err := verifyAll(c, path, parts)
	if err != nil {
		return err
	}
	if !r.Recorded {
		if err := verifyPlain(c, path, &r); err != nil {
			return err
		}
	}
	return printVerified(c, verified{path, len(r.Findings) == 0, r})
}

func partsOf(only string) (provenance.Parts, error) {
	switch only {
	case "":
		return provenance.Parts{Read: true, Written: true}, nil
	case "read":
		return provenance.Parts{Read: true}, nil
	case "written":
		return provenance.Parts{Written: true}, nil
	}
	return provenance.Parts{}, train.Usage("--only %q is not known (read, written)", only)
}

// verifyAll compares a run, or all runs of a comparison, with their records.
func verifyAll(c *cli.Context, path string, parts provenance.Parts) (provenance.Report, error) {
	ui := newUI(c)
	runs, err := provenance.Runs(path)
	if err != nil || runs == nil {
		if err != nil {
			return provenance.Report{}, err
		}
		return provenance.Verify(c.Context, path, parts, ui)
	}
	all := provenance.Report{Finished: true, Findings: []provenance.Finding{}, Notes: []string{"a comparison: its tables are not recorded, its runs are"}}
	for _, name := range runs {
		r, err := provenance.Verify(c.Context, filepath.Join(path, name), parts, ui)
		if err != nil {
			return all, err
		}
		all.Recorded, all.Finished, all.Checked = true, all.Finished && r.Finished, all.Checked+r.Checked
		for _, f := range r.Findings {
			f.Name = name + ": " + f.Name
			all.Findings = append(all.Findings, f)
		}
		for _, note := range r.Notes {
			all.Notes = append(all.Notes, name+": "+note)
		}
	}
	return all, nil
}

func printVerified(c *cli.Context, v verified) error {
	if c.Bool("json") {
		if err := printJSON(c.App.Writer, v); err != nil {
			return err
		}
	} else {
		for _, note := range v.Notes {
			newUI(c).Note("%s", note)
		}
		for _, f := range v.Findings {
			text := f.Kind + "  " + f.Name
			if f.Path != f.Name {
				text += "  " + f.Path
			}
			if f.Why != "" {
				text += ": " + f.Why
			}
			if _, err := fmt.Fprintln(c.App.Writer, printable(text)); err != nil {
				return err
			}
		}
		if v.OK {
			text := fmt.Sprintf("%s: %d files are as they were recorded", v.Path, v.Checked)
			if !v.Recorded {
				text = v.Path + ": nothing is recorded of it; what can be seen of it is sound"
			}
			if _, err := fmt.Fprintln(c.App.Writer, printable(text)); err != nil {
				return err
			}
		}
	}
	if !v.OK {
		return fmt.Errorf("%s: %d of its files, or of those it was made of, are %w", v.Path, len(v.Findings), errDiffers)
	}
	return nil
}
