package main

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/train"
	"gopeft/train/dist"
	"gopeft/train/launch"
	"gopeft/train/run"
)

// shared runs fn as one of the processes that share a command's work, or alone with a nil group. c's context is then one
// that ends with another process's failure too.
func shared(c *cli.Context, fn func(group *dist.Group) error) error {
	world, err := worldOf(c)
	if err != nil {
		return err
	}
	if world.Size > 1 && c.String("data") == "-" {
		return train.Usage("--data -: several processes each read the data, which standard input gives once; give a file")
	}
	return together(c, world, func(ctx context.Context, group *dist.Group) error {
		c.Context = ctx
		return fn(group)
	})
}

// firstWrites is the file to write: of several processes the first one's alone.
func firstWrites(group *dist.Group, path string) string {
	if group.First() {
		return path
	}
	return ""
}

// firstPrints is where to print: the first process's standard output.
func firstPrints(c *cli.Context, group *dist.Group) io.Writer {
	if group.First() {
		return c.App.Writer
	}
	return io.Discard
}

// rankKey is where newUI finds a process's rank.
const rankKey = "rank"

// together runs fn as one of the processes of a run, or alone with a nil group. Only the first one's user interface says
// anything, the others' with --debug.
func together(c *cli.Context, world launch.World, fn func(ctx context.Context, group *dist.Group) error) error {
	if d := c.Duration("dist-timeout"); d <= 0 {
		return train.Usage("--dist-timeout is %s, want more than 0s", d)
	}
	o := dist.Options{World: world, Timeout: c.Duration("dist-timeout")}
	if world.Size > 1 {
		o.Build = fmt.Sprintf("gopeft %s (%s) with libtorch %s", version(), buildID(), bindings.Version())
	}
	interrupted := func(err error) bool { return errors.Is(err, run.ErrInterrupted) }
	return dist.Run(c.Context, o, interrupted, func(ctx context.Context, group *dist.Group) error {
		c.App.Metadata[rankKey] = group.Rank()
		if group.Size() > 1 && group.First() {
			newUI(c).Note("%d processes, %d on this machine, started by %s; %s", group.Size(), group.Local(), world.Source, world.Note)
		}
		return fn(ctx, group)
	})
}

// buildID tells this program from others, of other sources or settings of the compiler; "" where the file does not.
func buildID() string {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer f.Close()
	section := f.Section(".note.go.buildid")
	if section == nil {
		return ""
	}
	note, err := section.Data()
	if err != nil || len(note) <= 16 { // the header of an ELF note, with the name "Go"
		return ""
	}
	sum := sha256.Sum256(note[16:])
	return hex.EncodeToString(sum[:6])
}

// rankUI puts a process's rank before what it says.
type rankUI struct {
	train.UI
	rank int
}

// Note implements train.UI.
func (u rankUI) Note(format string, args ...any) {
	u.UI.Note("rank %d: %s", u.rank, fmt.Sprintf(format, args...))
}

// Progress implements train.UI.
func (rankUI) Progress(string, int, int, string) {}

// sharedMode is what the first process makes of the folder, on all: the others may look when it has begun already.
func sharedMode(ctx context.Context, group *dist.Group, mode run.OutMode) (run.OutMode, error) {
	raw, err := group.Share(ctx, "mode", []byte(strconv.Itoa(int(mode))))
	if err != nil {
		return mode, err
	}
	n, err := strconv.Atoi(string(raw))
	return run.OutMode(n), err
}
