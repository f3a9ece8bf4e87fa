package launch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Exit codes of a command that mean the same everywhere: wrong usage is not tried again, nor is what a user has stopped.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// How long a Launcher waits, unless it says otherwise.
const (
	DefaultGrace  = 2 * time.Minute  // for processes that were told to stop: they write a checkpoint
	DefaultNotice = 10 * time.Second // for processes whose peer has failed: they notice, and say so
	patience      = 30 * time.Second // for processes that did not notice, and were told to stop
)

// Nodes are the machines of a run, each with a Launcher of its own. The zero value is this machine alone.
type Nodes struct {
	Count, Rank int
	Host        string // the address of node 0, where its first process keeps the store
	Port        int
}

// Launcher starts the processes of a run that are this machine's, and sees them through.
type Launcher struct {
	Command        []string // the program and its arguments
	Env            []string // what the processes' environment holds beside what says who they are
	Procs          int      // how many processes each node has
	Nodes          Nodes
	Stdin          []byte    // what each process reads from its standard input
	Stdout, Stderr io.Writer // the first gets what rank 0 prints, the second what all say, in whole lines
	MaxRestarts    int       // how often all begin again after a failure
	Grace, Notice  time.Duration
}

// Run starts the processes and waits until all have ended. It returns nil when all have succeeded, an *ExitError of the
// process that ended the run otherwise, and another error where they cannot be started. When ctx ends the processes are
// told to stop, and the error has exit code 130.
func (l Launcher) Run(ctx context.Context) error {
	if l.Grace == 0 {
		l.Grace = DefaultGrace
	}
	if l.Notice == 0 {
		l.Notice = DefaultNotice
	}
	if err := l.check(); err != nil {
		return err
	}
	// The processes are killed with this one. Linux does that when the thread ends that started them, so it is kept.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	id, begun := rand.Text(), time.Now()
	said := &lines{to: l.Stderr}
	for restarts := 0; ; restarts++ {
		err := l.attempt(ctx, World{Attempt: fmt.Sprintf("%s.%d", id, restarts), Restarts: restarts, Begun: begun}, said)
		ended := (*ExitError)(nil)
		if !errors.As(err, &ended) || ended.Code == exitUsage || ended.Code == exitInterrupted || ctx.Err() != nil || restarts >= l.MaxRestarts {
			return err
		}
		if !ended.Said() {
			said.say(ended.Error())
		}
		said.say(fmt.Sprintf("starting again (%d of %d)", restarts+1, l.MaxRestarts))
	}
}

// check refuses what cannot be started.
func (l Launcher) check() error {
	n := l.Nodes
	switch {
	case len(l.Command) == 0:
		return errors.New("no command to start")
	case l.Procs < 1:
		return fmt.Errorf("%d processes, want at least 1", l.Procs)
	case n.Count > 1 && (n.Rank < 0 || n.Rank >= n.Count):
		return fmt.Errorf("node %d of %d: they count from 0", n.Rank, n.Count)
	case n.Count > 1 && (n.Host == "" || n.Port < 1 || n.Port > 65535):
		return fmt.Errorf("%d nodes have to know the address of node 0 and a port", n.Count)
	}
	return nil
}

// attempt starts the processes once. The world says which attempt it is.
func (l Launcher) attempt(ctx context.Context, w World, said *lines) error {
	nodes, first := max(l.Nodes.Count, 1), 0
	w.Size, w.LocalSize = nodes*l.Procs, l.Procs
	listen := "127.0.0.1:0" // the processes are told which port that is
	if nodes > 1 {
		first = l.Nodes.Rank * l.Procs
		w.Host, w.Port = l.Nodes.Host, l.Nodes.Port
		// The launchers do not agree on how often each has started again. Rank 0 makes a store each time, so that its
		// keys need not differ.
		w.Attempt = address(w.Host, w.Port)
		// All addresses: that of the host's name may be the loopback's here, or one that the network translates.
		listen = fmt.Sprintf(":%d", w.Port)
	}
	var socket *os.File
	if first == 0 && w.Size > 1 {
		listener, err := net.Listen("tcp", listen)
		if err != nil {
			return fmt.Errorf("open the port where the processes meet: %w", err)
		}
		if nodes == 1 {
			w.Host, w.Port = "127.0.0.1", listener.Addr().(*net.TCPAddr).Port
		}
		socket, err = listener.(*net.TCPListener).File()
		if err = errors.Join(err, listener.Close()); err != nil {
			return err
		}
	}
	said.begin()
	g := &group{said: said, ends: make(chan *process, l.Procs)}
	var err error
	for local := range l.Procs {
		w.Rank, w.LocalRank = first+local, local
		if err = g.start(l, w, socket); err != nil {
			break
		}
		if socket != nil { // rank 0 alone inherits it
			err, socket = socket.Close(), nil
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		g.kill()
		for range g.procs {
			<-g.ends
		}
		if socket != nil {
			_ = socket.Close()
		}
		return fmt.Errorf("start process %d of %d: %w", w.Rank, w.Size, err)
	}
	return g.watch(ctx, l)
}

// environ is a process's environment: what this one has, less what other launchers say, and what w says.
func (l Launcher) environ(w World) []string {
	env := slices.DeleteFunc(slices.Clone(l.Env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT":
			return true
		}
		for _, prefix := range []string{"GOPEFT_LAUNCH_", "TORCHELASTIC_", "PET_"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return false
	})
	return append(env, w.environ()...)
}
