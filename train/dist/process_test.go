package dist

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gopeft/train/launch"
)

// plan is what a process of a test is to do.
type plan struct {
	World   launch.World
	Timeout time.Duration
	Build   string
	Act     string // of acts
	Culprit int    // the rank that does something else than the others
	Value   string // of this rank
	Ports   []int  // of acts that meet several times
}

const planKey = "GOPEFT_TEST_PLAN"

// TestMain lets a test start processes of a run.
func TestMain(m *testing.M) {
	text := os.Getenv(planKey)
	if text == "" {
		os.Exit(m.Run())
	}
	var p plan
	err := json.Unmarshal([]byte(text), &p)
	if err == nil {
		say("up")
		_, _ = io.Copy(io.Discard, os.Stdin) // until all are
		err = acts[p.Act](p)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// say tells the test where this process is.
func say(place string) { fmt.Println(place) }

// buffer may be read while a process writes to it.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// process is one that a test has started.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr buffer
	ended          chan struct{}
}

func (p *process) kill(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// sockets are listening sockets for the stores of rank 0, and their ports.
func sockets(t *testing.T, n int) (files []*os.File, ports []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err := errors.Join(err, l.Close()); err != nil {
			t.Fatal(err)
		}
		files, ports = append(files, f), append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return files, ports
}

// begin starts the processes of a run at the same time. They meet at a store of rank 0's unless p says who keeps it.
// change makes a rank's plan another.
func begin(t *testing.T, size int, p plan, change func(rank int, p *plan)) []*process {
	t.Helper()
	var files []*os.File
	if !p.World.Served {
		stores := max(1, len(p.Ports))
		files, p.Ports = sockets(t, stores)
		p.World.Port = p.Ports[0]
	}
	var procs []*process
	var held []io.Closer
	for rank := range size {
		mine := p
		w := &mine.World
		w.Rank, w.Size, w.LocalRank, w.LocalSize, w.Host, w.Source = rank, size, rank, size, "127.0.0.1", "a test"
		if w.Attempt == "" {
			w.Attempt = "0"
		}
		if rank == 0 && !w.Served {
			w.Listen = 3 // the first of ExtraFiles
		}
		if change != nil {
			change(rank, &mine)
		}
		text, err := json.Marshal(mine)
		if err != nil {
			t.Fatal(err)
		}
		q := &process{cmd: exec.Command(os.Args[0]), ended: make(chan struct{})}
		q.cmd.Env, q.cmd.Stdout, q.cmd.Stderr = append(os.Environ(), planKey+"="+string(text), "OMP_NUM_THREADS=1"), &q.stdout, &q.stderr
		if rank == 0 {
			q.cmd.ExtraFiles = files
		}
		stdin, err := q.cmd.StdinPipe()
		if err == nil {
			err = q.cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, stdin)
		t.Cleanup(func() { q.kill(syscall.SIGKILL); <-q.ended })
		go func() { _ = q.cmd.Wait(); close(q.ended) }()
		procs = append(procs, q)
	}
	for _, f := range files {
		_ = f.Close() // rank 0's alone from here on
	}
	until(t, "up", procs...) // on a busy machine one may take seconds longer to start than another
	for _, h := range held {
		_ = h.Close()
	}
	return procs
}

// until waits for processes to say that they are somewhere.
func until(t *testing.T, place string, procs ...*process) {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		missing := ""
		for rank, p := range procs {
			if !strings.Contains(p.stdout.String(), place+"\n") {
				missing = fmt.Sprintf("process %d: %s%s", rank, p.stdout.String(), p.stderr.String())
			}
		}
		if missing == "" {
			return
		}
		if time.Since(begun) > time.Minute {
			t.Fatalf("waited in vain for %q of %s", place, missing)
		}
	}
}

// slack is what a busy machine may take beyond the time in which processes have to end.
const slack = 10 * time.Second

// ends sees that a process ends within a time, with a code, and says what is expected and nothing else.
func ends(t *testing.T, p *process, begun time.Time, within time.Duration, code int, want string) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(time.Until(begun.Add(within + slack))):
		t.Errorf("it has not ended within %s; it said %q, %q", within, p.stdout.String(), p.stderr.String())
		p.kill(syscall.SIGKILL)
		return
	}
	if took := time.Since(begun); took > within {
		t.Logf("it took %s to end, on a machine without load %s", took.Round(time.Millisecond), within)
	}
	said := strings.TrimSuffix(p.stderr.String(), "\n")
	if got := p.cmd.ProcessState.ExitCode(); got != code || strings.Contains(said, "\n") || !matches(said, want) {
		t.Errorf("exit %d, %q, want exit %d, %q", got, said, code, want)
	}
}

// matches tells whether a line is what is wanted, in which each * stands for anything.
func matches(line, want string) bool {
	parts := strings.Split(want, "*")
	if len(parts) == 1 || !strings.HasPrefix(line, parts[0]) {
		return line == want
	}
	for _, part := range parts[:len(parts)-1] {
		i := strings.Index(line, part)
		if i < 0 {
			return false
		}
		line = line[i+len(part):]
	}
	return strings.HasSuffix(line, parts[len(parts)-1])
}

// some runs cases beside each other: they wait most of the time.
func some[C any](t *testing.T, cases []C, name func(C) string, run func(t *testing.T, c C)) {
	var wait sync.WaitGroup
	slots := make(chan struct{}, 5)
	for _, c := range cases {
		slots <- struct{}{}
		wait.Go(func() {
			defer func() { <-slots }()
			t.Run(name(c), func(t *testing.T) { run(t, c) })
		})
	}
	wait.Wait()
}

func hostname() string {
	host, err := os.Hostname()
	if err != nil {
		return "an unnamed host"
	}
	return host
}

// run is Run with a process's plan.
func (p plan) run(fn func(ctx context.Context, g *Group) error) error {
	return Run(context.Background(), Options{World: p.World, Timeout: p.Timeout, Build: p.Build}, func(err error) bool { return errors.Is(err, errTogether) }, fn)
}

// errTogether is an error with which all ranks end at the same place.
var errTogether = errors.New("stopped together")
