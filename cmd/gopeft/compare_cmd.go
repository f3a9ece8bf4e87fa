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
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"gopkg.in/yaml.v3"

	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/model/hub"
	"gopeft/train"
	"gopeft/train/launch"
	"gopeft/train/report"
	"gopeft/train/run"
)

func compareCommand() *cli.Command {
	return &cli.Command{
		Name: "compare", Usage: "train a model with several methods and put the results side by side",
		Flags: slices.Concat(
			inGroup(groupModel, &cli.StringFlag{Name: "methods", Usage: "all, or a comma-separated list of: " + strings.Join(run.CompareMethods(), ", "), DefaultText: "all"}),
			configFlags("method", "classifier"), processFlags(), outFlags(), uiFlags()),
		Action: func(c *cli.Context) error {
			cmp, err := readComparison(c)
			if err != nil {
				return err
			}
			settings := filepath.Join(cmp.Base.Output.Out, "compare.yaml")
			mode, err := outMode(c, launch.World{}, settings, func() run.OutMode {
				if fsutil.Exists(settings) {
					return run.Resume
				}
				return run.Refuse
			})
			if err != nil {
				return err
			}
			procs := 1
			if c.IsSet("nproc") {
				if procs, err = processes(c.String("nproc"), cmp.Base.Machine.Device, strconv.Itoa(cmp.Base.Machine.Threads), newUI(c)); err != nil {
					return err
				}
			}
			results, err := run.Compare(c.Context, cmp, mode, newUI(c), trainElsewhere(c, procs))
			if len(results) > 0 {
				err = errors.Join(printCompare(c, results), err)
			}
			return err
		},
	}
}

func printCompare(c *cli.Context, results []report.Result) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, struct {
			Results []report.Result `json:"results"`
		}{results})
	}
	return report.WriteTable(c.App.Writer, results)
}

func readComparison(c *cli.Context) (run.Comparison, error) {
	var cmp run.Comparison
	cfg, err := run.Defaults(), error(nil)
	if path := c.String("config"); path != "" {
		cmp, err = awaitSettings(c, func() (run.Comparison, error) { return run.ReadComparison(path, run.Defaults()) })
		if err != nil {
			return cmp, err
		}
		cfg = cmp.Base
	}
	if cmp.Base, err = flagsOver(c, cfg); err != nil {
		return cmp, err
	}
	if cmp.Base.Output.Out == "" {
		cmp.Base.Output.Out = filepath.Join("runs", "compare")
	}
	for method, settings := range cmp.Settings { // flags win over the file's settings of a method too
		run.RemoveKeys(&settings, c.FlagNames()...)
		cmp.Settings[method] = settings
	}
	switch text := c.String("methods"); {
	case text == "all" || (text == "" && len(cmp.Methods) == 0):
		writes, err := writesTexts(c, cmp.Base.Model.Path)
		if err != nil {
			return cmp, err
		}
		var note string
		if cmp.Methods, note = run.AllMethods(cmp.Base.Model.Task, writes); note != "" {
			newUI(c).Note("%s", note)
		}
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

// writesTexts reports whether a model, which is fetched where it is the hub's, is a language model.
func writesTexts(c *cli.Context, path string) (bool, error) {
	if path == "" {
		return false, nil // a mistake that is told of later
	}
	folder, err := hub.Find(c.Context, path, newUI(c))
	if err != nil {
		return false, err
	}
	facts, err := model.ReadFacts(folder)
	return facts.Writes, err
}

// trainElsewhere runs one configuration as `gopeft train` in a process of its own, or in several, so that the peak of
// memory is that of one method, and a crash does not end the comparison.
func trainElsewhere(c *cli.Context, procs int) func(context.Context, run.Config, run.OutMode) (report.Summary, error) {
	return func(ctx context.Context, cfg run.Config, mode run.OutMode) (report.Summary, error) {
		var sum report.Summary
		self, err := os.Executable()
		if err != nil {
			return sum, err
		}
		settings, err := yaml.Marshal(cfg)
		if err != nil {
			return sum, err
		}
		// The run reads its settings from standard input and sends the reason of a failure through a pipe. With files in
		// place of the two, a process that is killed would leave them behind.
		why, to, err := os.Pipe()
		if err != nil {
			return sum, err
		}
		defer why.Close()
		args := []string{"train", "--config", "/dev/stdin", "--error-file", "/dev/fd/3", "--json"} // 3 is the first of ExtraFiles
		switch mode {
		case run.Overwrite:
			args = append(args, "--overwrite")
		case run.Resume:
			args = append(args, "--resume")
		}
		if procs > 1 && cfg.Model.Method != train.Features { // a classifier on features is fitted by one process
			args = append(args, "--nproc", strconv.Itoa(procs), "--dist-timeout", c.Duration("dist-timeout").String())
		}
		for _, flag := range []string{"quiet", "debug"} {
			if c.Bool(flag) {
				args = append(args, "--"+flag)
			}
		}
		var out bytes.Buffer
		cmd := exec.CommandContext(ctx, self, args...)
		cmd.Stdin, cmd.ExtraFiles = bytes.NewReader(settings), []*os.File{to}
		cmd.Stdout, cmd.Stderr = &out, c.App.ErrWriter // on a terminal the run shows its progress bar
		// On an interrupt the run writes a checkpoint and ends by itself.
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
		// A second interrupt would end the run at once. In a process group of its own it gets the one from cmd.Cancel, and
		// not the terminal's Ctrl-C too. It is also told to stop when this process is killed: Linux sends Pdeathsig when
		// the thread that started it ends, so that thread is kept.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
		cmd.WaitDelay = launch.DefaultGrace + 10*time.Second // a launcher gives its processes that grace, and tells of one that hangs
		err = cmd.Start()
		if closed := to.Close(); err != nil || closed != nil {
			return sum, errors.Join(err, closed)
		}
		line, readErr := io.ReadAll(why) // ends with the run, which holds the other end
		if err := cmd.Wait(); err != nil {
			return sum, childError(err, line)
		}
		return sum, errors.Join(readErr, json.Unmarshal(out.Bytes(), &sum))
	}
}

// childError is why a run in a process of its own failed: the line it has sent, or how it ended.
func childError(err error, line []byte) error {
	if len(line) == 0 {
		return fmt.Errorf("its run failed (%w)", err)
	}
	failed := errors.New(string(line))
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == exitUsage {
		return &train.UsageError{Err: failed}
	}
	return failed
}
