package main

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/train"
	"gopeft/train/dist"
	"gopeft/train/launch"
	"gopeft/train/run"
)

// together runs fn as one of the processes of a run, or alone with a nil group. Only the first one's user interface says
// anything, the others' with --debug.
func together(c *cli.Context, world launch.World, fn func(ctx context.Context, group *dist.Group, ui train.UI) error) error {
	o := dist.Options{World: world, Timeout: c.Duration("dist-timeout")}
	if world.Size > 1 {
		o.Build = fmt.Sprintf("gopeft %s (%s) with libtorch %s", version(), buildID(), bindings.Version())
	}
	interrupted := func(err error) bool { return errors.Is(err, run.ErrInterrupted) }
	return dist.Run(c.Context, o, interrupted, func(ctx context.Context, group *dist.Group) error {
		ui := newUI(c)
		switch {
		case group == nil:
		case group.First():
			ui.Note("%d processes, %d on this machine, started by %s; %s", group.Size(), group.Local(), world.Source, world.Note)
		case c.Bool("debug"):
			ui = rankUI{ui, group.Rank()}
		default:
			ui = train.Quiet{}
		}
		return fn(ctx, group, ui)
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
