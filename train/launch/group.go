package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// group is the processes of one attempt.
type group struct {
	procs []*process
	ends  chan *process
	said  *lines
	order []*process // as they have ended
}

type process struct {
	World
	cmd    *exec.Cmd
	ended  bool
	told   bool   // to stop, or killed, before it ended
	err    error  // of waiting for it
	reason string // what it says of its failure
}

// start begins the process that w tells of. socket is the store's listening socket, which it inherits, or nil.
func (g *group) start(l Launcher, w World, socket *os.File) error {
	reason, to, err := os.Pipe()
	if err != nil {
		return err
	}
	defer to.Close()
	cmd := exec.Command(l.Command[0], l.Command[1:]...)
	cmd.ExtraFiles, w.ErrorFile = []*os.File{to}, "/dev/fd/3" // the first of ExtraFiles
	if socket != nil {
		cmd.ExtraFiles, w.Listen = append(cmd.ExtraFiles, socket), 4
	}
	cmd.Env = l.environ(w)
	if l.Stdin != nil {
		cmd.Stdin = bytes.NewReader(l.Stdin)
	}
	if w.Rank == 0 {
		cmd.Stdout = l.Stdout
	}
	stderr := &lineWriter{to: g.said, rank: w.Rank}
	cmd.Stderr = stderr
	// In a group of its own a process gets the launcher's signal, and not the terminal's Ctrl-C too: a second one would end
	// it at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second // for what it has started itself and left behind with its standard error
	if err := cmd.Start(); err != nil {
		return errors.Join(err, reason.Close())
	}
	p := &process{World: w, cmd: cmd}
	g.procs = append(g.procs, p)
	go func() {
		p.err = cmd.Wait()
		stderr.flush()
		p.reason = readReason(reason)
		g.ends <- p
	}()
	return nil
}

// readReason reads what a process that has ended left in its pipe. What it has started may still hold the other end.
func readReason(pipe *os.File) string {
	defer pipe.Close()
	_ = pipe.SetReadDeadline(time.Now().Add(time.Second))
	raw, _ := io.ReadAll(io.LimitReader(pipe, 64<<10)) // a deadline leaves what was read
	return reasonOf(raw)
}

// signal tells the processes that still run.
func (g *group) signal(sig syscall.Signal) {
	for _, p := range g.procs {
		if !p.ended {
			p.told = true
			_ = p.cmd.Process.Signal(sig) // it may have ended just now
		}
	}
}

// kill ends the processes that still run, and what they have started.
func (g *group) kill() {
	for _, p := range g.procs {
		if !p.ended {
			p.told = true
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		}
	}
}

// watch waits until all have ended. After a failure the others have some time to notice, then they are told to stop, and
// then killed.
func (g *group) watch(ctx context.Context, l Launcher) error {
	var next <-chan time.Time
	wait, told := time.Duration(0), false
	interrupt := ctx.Done()
	for len(g.order) < len(g.procs) {
		select {
		case p := <-g.ends:
			p.ended = true
			g.order = append(g.order, p)
			if end := p.end(); end != nil && next == nil && !told {
				wait = l.Notice
				if end.Code == exitInterrupted { // stopped by someone else, and so all of them: they write a checkpoint
					wait = l.Grace
				}
				next = time.After(wait)
			}
		case <-interrupt:
			interrupt = nil
			if !told { // a second signal would end a process that writes its checkpoint
				g.signal(syscall.SIGTERM)
			}
			told, wait = true, l.Grace
			next = time.After(wait)
		case <-next:
			next = nil
			if !told {
				g.signal(syscall.SIGTERM)
				told, wait = true, min(l.Grace, patience)
				next = time.After(wait)
				continue
			}
			for _, p := range g.procs {
				if !p.ended {
					g.said.say(fmt.Sprintf("process %d of %d did not stop within %s and was killed", p.Rank, p.Size, wait))
				}
			}
			g.kill()
		}
	}
	return g.outcome(ctx)
}

// outcome is why the run ended: nil if it has succeeded, else the end of the process that made it end.
func (g *group) outcome(ctx context.Context) error {
	var cause *ExitError
	for _, p := range g.order {
		end := p.end()
		if end == nil {
			continue
		}
		// The others fail because of what has failed first. A process that was killed may take a while to be gone, so that
		// they are seen to fail before it.
		killed := end.Signal != 0 && !p.told && cause != nil && cause.Signal == 0
		if cause == nil || end.Code == exitUsage && cause.Code != exitUsage || killed && cause.Code == exitFailed {
			cause = end
		}
	}
	if cause == nil {
		return nil
	}
	if ctx.Err() != nil {
		cause.Code = exitInterrupted
	}
	return cause
}

// end is how a process that has ended failed, nil if it did not.
func (p *process) end() *ExitError {
	e := &ExitError{Rank: p.Rank, Size: p.Size, Code: p.cmd.ProcessState.ExitCode(), Reason: p.reason}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e.Code, e.Signal = exitFailed, status.Signal()
	}
	if e.Code == 0 {
		if p.err == nil || errors.Is(p.err, exec.ErrWaitDelay) {
			return nil
		}
		e.Code, e.err = exitFailed, p.err // of passing on what it has printed
	}
	return e
}

// ExitError is the end of a process that failed.
type ExitError struct {
	Rank, Size int
	Code       int            // the exit code for the launcher: the process's own, or 1 where a signal has ended it
	Signal     syscall.Signal // what has ended it, 0 if it ended by itself
	Reason     string         // what it gave as the reason of its failure
	err        error
}

func (e *ExitError) Error() string {
	switch {
	case e.Signal == syscall.SIGKILL:
		return fmt.Sprintf("process %d of %d was killed (signal %d), as the kernel does where memory runs out", e.Rank, e.Size, int(e.Signal))
	case e.Signal != 0:
		return fmt.Sprintf("process %d of %d was killed (signal %d)", e.Rank, e.Size, int(e.Signal))
	case e.Reason != "":
		return e.Reason
	case e.err != nil:
		return fmt.Sprintf("process %d of %d: %v", e.Rank, e.Size, e.err)
	}
	return fmt.Sprintf("process %d of %d ended with exit code %d", e.Rank, e.Size, e.Code)
}

// Said reports whether the process has told the reason itself, on standard error, or there is none to tell.
func (e *ExitError) Said() bool {
	return e.Code == exitInterrupted || e.Signal == 0 && e.Reason != ""
}

// Unwrap returns the error of passing on what the process has printed, if that failed.
func (e *ExitError) Unwrap() error { return e.err }
