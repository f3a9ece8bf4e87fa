// Command gopeft fine-tunes, compares and runs transformer models with parameter-efficient methods.
//
// Each command has a file of its own, COMMAND_cmd.go, which declares its flags, checks them and prints its result; the
// work is done in train/run, train/infer and below. Results go to standard output, as one JSON object with --json; notes,
// progress and errors go to standard error. A usage error exits with 2, another failure with 1, a fault of gopeft's own
// with 70, an interrupted run with 130.
//
// The package's own words:
//
//   - setting: a field of run.Config, bench.Config or the like, which is a flag and a YAML key of the same name;
//   - group: flags that help shows under one heading;
//   - note: a line on standard error that says what was chosen or found; --quiet leaves it out;
//   - stretch: the rows that are read, tokenized and computed at a time, so that a file may be of any length;
//   - to fold: to compute an adapter into the weights of its base model, as merge does.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/bindings/fault"
	"gopeft/train"
	"gopeft/train/launch"
	"gopeft/train/run"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitFault       = 70 // EX_SOFTWARE of sysexits.h
	exitInterrupted = 130
)

func main() {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	// A second signal ends the process at once. One within a second is the first again, from a launcher and from whatever
	// has stopped that too.
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second, stop) })
	var stdout io.Writer = os.Stdout
	if stdoutClosed() {
		stdout = closedOutput{}
	}
	os.Exit(program(ctx, os.Args, os.Stdin, stdout, os.Stderr))
}

// program runs the command that args name and returns its exit code. Tests call it in place of main.
func program(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	out := newOutput(ctx, stdout)
	app := &cli.App{
		Name: "gopeft", Usage: "parameter-efficient fine-tuning of transformers, without Python", Version: version(),
		Metadata: map[string]any{argsKey: args},
		Reader:   stdin, Writer: out, ErrWriter: stderr, HideHelpCommand: true, DisableSliceFlagSeparator: true,
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(c *cli.Context, err error, _ bool) error { return usageError(c.Command, err) },
		Commands:       commands(),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return noCommand(c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, command := range app.Commands {
		command.OnUsageError = app.OnUsageError
		command.HideHelpCommand = true
		own := command.Name == "train" || command.Name == "compare" // these two read --config themselves
		if !own {
			command.Flags = append(command.Flags, configFlag())
		}
		command.CustomHelpTemplate = helpText(command)
		command.Before = func(c *cli.Context) error {
			if err := refuseArguments(command, c); err != nil {
				return err
			}
			if err := refuseWorld(command.Name); err != nil {
				return err
			}
			if !own {
				if err := flagsFromFile(c); err != nil {
					return err
				}
			}
			if err := checkCounts(c); err != nil {
				return err
			}
			return checkOutputs(c)
		}
	}
	if len(args) > 1 && slices.Contains(streams, args[1]) && debug.SetMemoryLimit(-1) == math.MaxInt64 {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(streamMemory))
	}
	err := fault.Guard(func() error { return app.RunContext(ctx, nameLast(args)) })
	if failed := out.finish(); err == nil && failed != nil {
		err = fmt.Errorf("write results: %w", failed)
	}
	return conclude(err, slices.Contains(args, "--debug"), stderr)
}

// conclude says how the program has ended, with all details if trace is set, and gives its exit code.
func conclude(err error, trace bool, stderr io.Writer) int {
	if told := (*toldError)(nil); errors.As(err, &told) && !trace {
		stderr = io.Discard
	}
	usage, ended, panicked := (*train.UsageError)(nil), (*launch.ExitError)(nil), (*fault.Panic)(nil)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &panicked):
		line, _, _ := strings.Cut(fmt.Sprint(panicked.Value), "\n")
		fail(stderr, shortened(printable(fmt.Sprintf("a fault of gopeft's own: %s (please report it to the makers of gopeft, with what --debug shows)", line))))
		if trace {
			fmt.Fprintf(stderr, "%v\n\n%s\n", panicked.Value, panicked.Stack)
		}
		return exitFault
	case errors.As(err, &ended): // of processes that have said why
		if !ended.Said() {
			fmt.Fprintln(stderr, "gopeft:", oneLine(err))
		}
		return ended.Code
	case errors.Is(err, run.ErrInterrupted):
		fmt.Fprintln(stderr, "gopeft:", oneLine(err))
		return exitInterrupted
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "gopeft: interrupted")
		return exitInterrupted
	case errors.As(err, &usage):
		fail(stderr, oneLine(err))
		return exitUsage
	default:
		fail(stderr, oneLine(err))
		if whole := wholeLine(err); trace && whole != oneLine(err) {
			fmt.Fprintln(stderr, whole)
		}
		if op := (*bindings.OpError)(nil); trace && errors.As(err, &op) {
			fmt.Fprintln(stderr, op.Detail)
		}
		return exitFailed
	}
}

// streams are the commands that hold a few rows at a time, however many there are.
var streams = []string{"predict", "eval", "embed", "generate", "tokenize"}

// streamMemory is from how much on their memory is looked after more often, so that what a long row has left behind is not
// kept beside the next one. GOMEMLIMIT wins.
const streamMemory = 160 << 20

// argsKey is where commands find the program's arguments as they were given.
const argsKey = "arguments"

// fail says why the program fails, to whoever has started it too.
func fail(stderr io.Writer, reason string) {
	fmt.Fprintln(stderr, "gopeft:", reason)
	if err := tellLauncher(reason); err != nil {
		fmt.Fprintln(stderr, "gopeft:", oneLine(err))
	}
}

// commands lists what gopeft does, in the order help shows.
func commands() []*cli.Command {
	return []*cli.Command{
		compareCommand(), trainCommand(), evalCommand(), predictCommand(), generateCommand(), embedCommand(), inspectCommand(),
		verifyCommand(), mergeCommand(), convertCommand(), quantizeCommand(), pullCommand(),
		prepareCommand(), tokenizeCommand(), benchCommand(), launchCommand(), doctorCommand(),
	}
}

// refuseArguments rejects arguments after a command's flags. The flag parser stops at the first argument and would
// silently ignore every flag after it.
func refuseArguments(command *cli.Command, c *cli.Context) error {
	if command.ArgsUsage == "" && c.Args().Present() {
		return &train.UsageError{Err: fmt.Errorf("%s: unexpected argument %q; settings are given as flags, `gopeft %s --help` lists them", command.Name, c.Args().First(), command.Name)}
	}
	return nil
}

// checkCounts refuses numbers that make no sense in any command.
func checkCounts(c *cli.Context) error {
	if err := train.CheckThreads(c.Int("threads")); err != nil {
		return err
	}
	for _, n := range []struct {
		flag  string
		least int
	}{{"batch-size", 1}, {"max-tokens", 0}, {"max-length", 0}, {"limit", 0}, {"sample", 0}} {
		if v := c.Int(n.flag); c.IsSet(n.flag) && v < n.least {
			return &train.UsageError{Err: fmt.Errorf("--%s is %d, want at least %d", n.flag, v, n.least)}
		}
	}
	return nil
}
