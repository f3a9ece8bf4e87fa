package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"gopeft/train"
	"gopeft/train/report"
)

func compareCommand() *cli.Command {
	return &cli.Command{
		Name: "compare", Usage: "train a model with several methods and put the results side by side",
		Flags: slices.Concat([]cli.Flag{&cli.StringFlag{Name: "methods", Usage: "all, or a comma-separated list of: " + strings.Join(train.CompareMethods(), ", ")}},
			configFlags("method", "classifier"), outFlags(), uiFlags()),
		Action: func(c *cli.Context) error {
			cmp, err := readComparison(c)
			if err != nil {
				return err
			}
			mode, err := outMode(c)
			if err != nil {
				return err
			}
			results, err := train.Compare(c.Context, cmp, mode, newUI(c), trainElsewhere(c))
			if len(results) > 0 {
				err = errors.Join(printCompare(c, results), err)
			}
			return err
		},
	}
}

func printCompare(c *cli.Context, results []report.Result) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, results)
	}
	return report.WriteTable(c.App.Writer, results)
}

func readComparison(c *cli.Context) (train.Comparison, error) {
	var cmp train.Comparison
	cfg, err := train.Defaults(), error(nil)
	if path := c.String("config"); path != "" {
		if cmp, err = train.ReadComparison(path, cfg); err != nil {
			return cmp, &train.UsageError{Err: err}
		}
		cfg = cmp.Base
	}
	if cmp.Base, err = flagsOver(c, cfg); err != nil {
		return cmp, err
	}
	if cmp.Base.Out == "" {
		cmp.Base.Out = filepath.Join("runs", "compare")
	}
	for method, settings := range cmp.Settings { // flags win over the file's settings of a method too
		train.RemoveKeys(&settings, c.FlagNames()...)
		cmp.Settings[method] = settings
	}
	switch text := c.String("methods"); {
	case text == "all" || (text == "" && len(cmp.Methods) == 0):
		cmp.Methods = train.CompareMethods()
	case text != "":
		cmp.Methods = nil
		for _, m := range strings.Split(text, ",") {
			if m = strings.TrimSpace(m); m != "" {
				cmp.Methods = append(cmp.Methods, m)
			}
		}
	}
	return cmp, nil
}

// trainElsewhere runs one configuration as `gopeft train` in a process of its own, so that its peak memory
// is its own and a crash ends nothing else.
func trainElsewhere(c *cli.Context) func(context.Context, train.Config, train.OutMode) (report.Summary, error) {
	return func(ctx context.Context, cfg train.Config, mode train.OutMode) (report.Summary, error) {
		var sum report.Summary
		self, err := os.Executable()
		if err != nil {
			return sum, err
		}
		file, err := os.CreateTemp("", "gopeft-*.yaml")
		if err != nil {
			return sum, err
		}
		defer os.Remove(file.Name())
		if err := errors.Join(file.Close(), train.WriteConfig(file.Name(), cfg)); err != nil {
			return sum, err
		}
		args := []string{"train", "--config", file.Name(), "--json"}
		switch mode {
		case train.Overwrite:
			args = append(args, "--overwrite")
		case train.Resume:
			args = append(args, "--resume")
		}
		if c.Bool("quiet") {
			args = append(args, "--quiet")
		}
		var out bytes.Buffer
		var tail lastLine
		cmd := exec.CommandContext(ctx, self, args...)
		cmd.Stdout = &out
		if f, ok := c.App.ErrWriter.(*os.File); ok {
			cmd.Stderr = f // a terminal stays one, for the progress bar
		} else {
			cmd.Stderr = io.MultiWriter(&tail, c.App.ErrWriter)
		}
		// Told to stop, it writes its checkpoint and ends by itself.
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		// In a group of its own a terminal's Ctrl-C does not reach it a second time, which would end it at once.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.WaitDelay = 2 * time.Minute
		if err := cmd.Run(); err != nil {
			if tail.text != "" {
				return sum, errors.New(tail.text)
			}
			return sum, fmt.Errorf("its run failed (%w)", err)
		}
		return sum, json.Unmarshal(out.Bytes(), &sum)
	}
}

// lastLine keeps the last line written to it.
type lastLine struct{ text string }

func (l *lastLine) Write(p []byte) (int, error) {
	if lines := strings.Split(strings.TrimSpace(string(p)), "\n"); lines[len(lines)-1] != "" {
		l.text = strings.TrimPrefix(lines[len(lines)-1], "gopeft: ")
	}
	return len(p), nil
}
