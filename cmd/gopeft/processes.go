package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"gopeft/bindings"
	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/launch"
)

// sharing are the commands whose processes share the work of one run. All others are one process.
var sharing = [...]string{"train", "eval", "predict", "embed", "bench", "doctor"}

func sharesWork(command string) bool { return slices.Contains(sharing[:], command) }

func listOf(names [len(sharing)]string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// refuseWorld refuses to do several times, as one of several processes, what is to be done once.
func refuseWorld(command string) error {
	w, err := launch.FromEnv(os.Getenv)
	if err != nil || w.Size == 1 || sharesWork(command) || command == "launch" { // launch has words of its own
		return nil
	}
	return train.Usage("%s does not share its work between processes, and this is %s: start it once (%s share)", command, w, listOf(sharing))
}

// worldOf says which of the processes of a run this one is.
func worldOf(c *cli.Context) (launch.World, error) {
	w, err := launch.FromEnv(os.Getenv)
	if notStarted(err) && (c.Command.Name != "train" || c.String("nproc") == "1") {
		return launch.World{Size: 1, LocalSize: 1}, nil // as it was asked for
	}
	if err != nil {
		return w, &train.UsageError{Err: err}
	}
	return w, nil
}

func notStarted(err error) bool {
	not := (*launch.NotStartedError)(nil)
	return errors.As(err, &not)
}

// tellLauncher gives whoever has started this process the reason of its failure.
func tellLauncher(reason string) error {
	w, err := launch.FromEnv(os.Getenv)
	if err != nil {
		return nil // that is the reason, or this is no process of a run
	}
	return w.Fail(reason, time.Now())
}

// processes reads --nproc: a number, or auto for one a GPU. On CPUs that is one for each so many cores as a process is to
// have threads, and one where that is not said.
func processes(nproc, device, threads string, ui train.UI) (int, error) {
	if nproc != "auto" {
		n, err := strconv.Atoi(nproc)
		if err != nil || n < 1 {
			return 0, train.Usage("--nproc is %q, want a number of processes, or auto", nproc)
		}
		return n, nil
	}
	m, err := launch.ThisMachine(os.DirFS("/"), os.LookupEnv)
	if err != nil {
		return 0, err
	}
	if device == "auto" && !exists(filepath.Join(bindings.LibraryFolder(), "libtorch_cuda.so")) {
		m.GPUs = 0 // none that this libtorch can use
	}
	n, err := strconv.Atoi(threads)
	switch {
	case strings.HasPrefix(device, "cuda:"):
		ui.Note("1 process, on %s", device)
		return 1, nil
	case device != "cpu" && m.GPUs > 0:
		ui.Note("%d processes, one a GPU", m.GPUs)
		return m.GPUs, nil
	case err == nil && n > 0:
		procs := max(1, m.Cores/n)
		ui.Note("%d processes of %d threads on %d cores", procs, n, m.Cores)
		return procs, nil
	}
	ui.Note("1 process: there are no GPUs to count, and no --threads to divide the cores by")
	return 1, nil
}

// inProcesses makes this process, where --nproc says so, the launcher of copies of itself, the same but for --nproc. It
// reports whether it did: for one process there is nothing to launch.
func inProcesses(c *cli.Context, device string, threads int) (launched bool, err error) {
	if !c.IsSet("nproc") {
		return false, nil
	}
	nodes, err := nodesOf(c)
	if err != nil {
		return false, err
	}
	procs, err := processes(c.String("nproc"), device, strconv.Itoa(threads), newUI(c))
	if err != nil || procs == 1 && nodes.Count <= 1 {
		return false, err
	}
	args, ok := c.App.Metadata[argsKey].([]string)
	if !ok {
		return false, errors.New("the program's arguments are not known")
	}
	if err := readAgain(c.String("config"), c.Command.Name == "train"); err != nil { // the others have read it
		return false, err
	}
	args = withoutFlag(withoutFlag(args[1:], c.Command.Flags, "nproc"), c.Command.Flags, "error-file")
	return true, startProcesses(c, launch.Launcher{Procs: procs, Nodes: nodes}, args)
}

// startProcesses runs the program with args in several processes, and passes on how that ends.
func startProcesses(c *cli.Context, l launch.Launcher, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	l.Command, l.Env = append([]string{self}, args...), os.Environ()
	l.Stdout, l.Stderr = c.App.Writer, c.App.ErrWriter
	if out, ok := c.App.Writer.(*output); ok && out.file != nil {
		l.Stdout = out.file // is rank 0's own, so that nothing is copied
	}
	if slices.ContainsFunc(args, func(a string) bool { return strings.HasSuffix(a, stdinFile) }) {
		var all []byte // each gets all of it
		err := fsutil.Await(c.Context, func() (err error) {
			all, err = io.ReadAll(c.App.Reader)
			return err
		})
		if err != nil {
			return err
		}
		l.Stdin = all
	}
	return l.Run(c.Context)
}

const stdinFile = "/dev/stdin"

// readAgain refuses a --config that can be read once only, where several processes are to read it. Standard input can be
// passed on to them as long as it is unread.
func readAgain(config string, unread bool) error {
	info, err := os.Stat(config)
	if err != nil || info.Mode()&(fs.ModeNamedPipe|fs.ModeSocket) == 0 || unread && config == stdinFile {
		return nil // of one that is missing or a folder those tell who read it
	}
	return train.Usage("--config %s can be read once, and several processes each read it: give a file", config)
}

// argument is the value of a flag among arguments that another process will parse.
func argument(args []string, name, otherwise string) string {
	value := otherwise
	for i, a := range args {
		flag, v, joined := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if !strings.HasPrefix(a, "-") || flag != name {
			continue
		}
		if joined {
			value = v
		} else if i+1 < len(args) {
			value = args[i+1]
		}
	}
	return value
}

// withoutFlag leaves a flag that takes a value, and its value, out of a command's arguments.
func withoutFlag(args []string, flags []cli.Flag, name string) []string {
	var kept []string
	for i := 0; i < len(args); i++ {
		flag, _, joined := strings.Cut(strings.TrimLeft(args[i], "-"), "=")
		part := args[i : i+1]
		if strings.HasPrefix(args[i], "-") && !joined && i+1 < len(args) && takesValue(flags, flag) {
			part = args[i : i+2] // the next is its value, whatever it looks like
			i++
		}
		if !strings.HasPrefix(part[0], "-") || flag != name {
			kept = append(kept, part...)
		}
	}
	return kept
}

func takesValue(flags []cli.Flag, name string) bool {
	for _, f := range flags {
		if doc, ok := f.(cli.DocGenerationFlag); ok && slices.Contains(f.Names(), name) {
			return doc.TakesValue() && !standsAlone(f)
		}
	}
	return false
}
