package main

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"gopeft/train"
	"gopeft/train/launch"
)

func launchCommand() *cli.Command {
	return &cli.Command{
		Name: "launch", Usage: "run a command in several processes that share its work", ArgsUsage: "-- train …",
		Flags: slices.Concat(
			inGroup(groupProcesses, nprocFlag("auto"),
				&cli.IntFlag{Name: "max-restarts", Usage: "how often all begin again after a failure, from the last checkpoint"},
				&cli.DurationFlag{Name: "grace", Value: launch.DefaultGrace, Usage: "how long interrupted processes may take for a checkpoint"}),
			inGroup(groupMachines,
				&cli.IntFlag{Name: "nnodes", Value: 1, Usage: "how many machines, each with a `gopeft launch` of its own, the same but for --node-rank"},
				&cli.IntFlag{Name: "node-rank", Usage: "which of them this is, from 0"},
				&cli.StringFlag{Name: "master-addr", Usage: "the address of machine 0, where the processes meet"},
				&cli.IntFlag{Name: "master-port", Usage: "a port of it that is free"}),
			[]cli.Flag{&cli.BoolFlag{Name: "quiet", Usage: "say nothing but errors"}}),
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			if len(args) == 0 {
				return train.Usage("launch: what is to be run? `gopeft launch --nproc 2 -- train …`")
			}
			if !sharesWork(args[0]) {
				return train.Usage("launch: %s does not share its work between processes: %s do", args[0], listOf(sharing))
			}
			if n := c.Int("max-restarts"); n < 0 {
				return train.Usage("--max-restarts is %d, want at least 0", n)
			}
			if d := c.Duration("grace"); d <= 0 {
				return train.Usage("--grace is %s, want more than 0s", d)
			}
			nodes, err := nodesOf(c)
			if err != nil {
				return err
			}
			if err := readAgain(argument(args, "config", ""), true); err != nil {
				return err
			}
			wanted := c.String("nproc")
			if v := os.Getenv("PET_NPROC_PER_NODE"); v != "" && !c.IsSet("nproc") && !slices.Contains([]string{"gpu", "cpu"}, v) {
				wanted = v
			}
			device, threads := argument(args, "device", "auto"), argument(args, "threads", "0")
			procs, err := processes(wanted, device, threads, newUI(c))
			if err != nil {
				return err
			}
			l := launch.Launcher{Procs: procs, Nodes: nodes, MaxRestarts: c.Int("max-restarts"), Grace: c.Duration("grace")}
			return startProcesses(c, l, args)
		},
	}
}

// nprocFlag is --nproc of the commands that start several processes.
func nprocFlag(otherwise string) cli.Flag {
	return &cli.StringFlag{Name: "nproc", Value: otherwise, DefaultText: otherwise,
		Usage: "how many processes of this machine share the work: a number, or auto for one a GPU (without: one per --threads cores)"}
}

// processFlags are those of commands that start several processes of themselves.
func processFlags() []cli.Flag {
	return slices.Concat(inGroup(groupMachine, nprocFlag("")), distTimeoutFlag())
}

// distTimeoutFlag is for commands that processes share.
func distTimeoutFlag() []cli.Flag {
	return inGroup(groupMachine,
		&cli.DurationFlag{Name: "dist-timeout", Value: 10 * time.Minute, Usage: "of several processes: how long to wait for the others before that is a failure"})
}

// nodesOf is which of several machines this is, by flags or by what Kubernetes says. It refuses to start processes where
// someone has done that already.
func nodesOf(c *cli.Context) (launch.Nodes, error) {
	w, err := launch.FromEnv(os.Getenv)
	taken := train.Usage("this is already %s: leave out `gopeft launch` and --nproc", w)
	if w.Size > 1 && (w.Source == launch.SourceLaunch || w.Source == launch.SourceTorchrun) {
		return launch.Nodes{}, taken
	}
	for _, name := range []string{"node-rank", "master-addr", "master-port"} {
		if several := c.Int("nnodes") > 1; c.IsSet(name) != several {
			return launch.Nodes{}, train.Usage("--nnodes, --node-rank, --master-addr and --master-port go together: --%s is %s", name, given(c.IsSet(name)))
		}
	}
	if c.IsSet("nnodes") {
		n := launch.Nodes{Count: c.Int("nnodes"), Rank: c.Int("node-rank"), Host: c.String("master-addr"), Port: c.Int("master-port")}
		switch {
		case n.Count < 1:
			return n, train.Usage("--nnodes is %d, want at least 1", n.Count)
		case n.Rank < 0 || n.Rank >= n.Count:
			return n, train.Usage("--node-rank is %d, but --nnodes is %d: they count from 0", n.Rank, n.Count)
		case n.Count > 1 && (n.Port < 1 || n.Port > 65535):
			return n, train.Usage("--master-port is %d, want a port, 1 to 65535", n.Port)
		}
		return n, nil
	}
	n, podErr := launch.NodesFromEnv(os.Getenv)
	switch {
	case podErr != nil:
		return n, &train.UsageError{Err: podErr}
	case n.Count > 0:
		return n, nil
	case w.Size > 1:
		return n, fmt.Errorf("%w, or tell `gopeft launch` by --nnodes that each machine starts several", taken)
	case err != nil && !notStarted(err):
		return n, &train.UsageError{Err: err}
	}
	return n, nil
}

func given(set bool) string {
	if set {
		return "given without --nnodes above 1"
	}
	return "missing"
}
