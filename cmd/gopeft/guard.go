package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/launch"
)

// named is a path and the flag that gave it.
type named struct{ flag, path string }

// outFile is the file that a command's flags name to be written, if they do. Runs and folders of models are looked after
// where they are made.
func outFile(c *cli.Context) (file named, ok bool) {
	switch c.Command.Name {
	case "predict", "generate", "embed":
		file = named{"out", c.String("out")}
	case "eval":
		file = named{"per-row", c.String("per-row")}
	}
	return file, file.path != ""
}

// inputs are what a command's flags name to be read.
func inputs(c *cli.Context) (in []named) {
	for _, flag := range []string{"data", "prompts", "config", "model"} {
		if path := c.String(flag); path != "" {
			in = append(in, named{flag, path})
		}
	}
	for _, a := range adaptersOf(c) {
		if _, path, isNamed := strings.Cut(a, "="); isNamed && !exists(a) {
			a = path
		}
		in = append(in, named{"adapter", a})
	}
	return in
}

// checkOutputs refuses, before any work, to write over what is read, into folders and where nothing can be written.
func checkOutputs(c *cli.Context) error {
	in := inputs(c)
	if c.Command.Name == "prepare" && c.String("out") != "" {
		for _, name := range []string{"train.csv", "val.csv", "test.csv"} {
			if err := apart(c, named{"out", filepath.Join(c.String("out"), name)}, in); err != nil {
				return err
			}
		}
	}
	if out, ok := outFile(c); ok {
		if err := apart(c, out, in); err != nil {
			return err
		}
		if w, err := launch.FromEnv(os.Getenv); err != nil || w.Rank == 0 { // which alone writes it
			if err := fsutil.CheckFile(out.path); err != nil {
				return err
			}
		}
	}
	return checkStdout(c, in)
}

// apart is an error where writing out would change an input.
func apart(c *cli.Context, out named, in []named) error {
	for _, from := range in {
		path, said := from.path, "--"+from.flag+" "+from.path
		if path == "-" {
			f, ok := c.App.Reader.(*os.File)
			if !ok {
				continue
			}
			path, said = f.Name(), "standard input"
		}
		if fsutil.Overlap(out.path, path) {
			return train.Usage("--%s %s would replace %s, which is read: give another --%s", out.flag, out.path, said, out.flag)
		}
	}
	return nil
}

// checkStdout refuses to append results to the rows they are made of, which would never end.
func checkStdout(c *cli.Context, in []named) error {
	w, ok := c.App.Writer.(*output)
	if !ok || w.file == nil {
		return nil
	}
	to, err := w.file.Stat()
	if err != nil || !to.Mode().IsRegular() {
		return nil
	}
	for _, from := range in {
		path := from.path
		if path == "-" {
			path = os.Stdin.Name()
		}
		if info, err := os.Stat(path); err == nil && fsutil.SameFile(to, info) {
			return train.Usage("standard output is --%s %s, which is read: send it elsewhere", from.flag, from.path)
		}
	}
	return nil
}

// keepInputs refuses to write over the model and adapters that the flags have turned out to name.
func keepInputs(c *cli.Context, paths ...string) error {
	var in []named
	for _, path := range paths {
		if path != "" {
			in = append(in, named{"model", path})
		}
	}
	if out, ok := outFile(c); ok {
		return apart(c, out, in)
	}
	return nil
}
