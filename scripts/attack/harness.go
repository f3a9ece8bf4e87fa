package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// harness is what all cases share: the program, what undamaged inputs there are, and folders to work in.
type harness struct {
	ctx      context.Context
	binary   string
	version  string
	keep     string
	seed     uint64
	root     string // of everything it makes
	fixtures string
	prepared time.Duration
	kills    []killed
	flips    *flipBase
	misuse   []misuse
	least    int // kB of address space that the program starts in
	loads    []load
	scale    float64 // of loads
}

// skip is the error of a kind that cannot be made here.
type skip struct{ why string }

func (s *skip) Error() string { return s.why }

func asSkip(err error, to **skip) bool { return errors.As(err, to) }

func newHarness(ctx context.Context, binary, keep string, seed uint64) (*harness, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	keep, err = filepath.Abs(keep)
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w (make build)", binary, err)
	}
	root, err := os.MkdirTemp("", "gopeft-attack-")
	if err != nil {
		return nil, err
	}
	h := &harness{ctx: ctx, binary: binary, version: strings.TrimSpace(string(out)), keep: keep, seed: seed, root: root, fixtures: filepath.Join(root, "fixtures")}
	if err := h.makeFixtures(); err != nil {
		return nil, errors.Join(fmt.Errorf("make the inputs: %w", err), h.close())
	}
	return h, nil
}

func (h *harness) close() error { return os.RemoveAll(h.root) }

// attempt is a case that is being made.
type attempt struct {
	*harness
	*rand.Rand
	kind     string
	n        int
	dir      string // where it works, and which is removed
	about    string // what is attacked, in a few words
	script   []string
	findings []string
	waits    bool // the command waits for the other end of a pipe
	stderr   []string
	tally    *tally
	noting   sync.Mutex // of what a command adds to this, where several run at once
}

// makeCase makes one case, and keeps it if it has found something.
func (h *harness) makeCase(t *tally, n int) error {
	h1 := uint64(0)
	for _, b := range []byte(t.name) {
		h1 = h1*131 + uint64(b)
	}
	c := &attempt{harness: h, Rand: rand.New(rand.NewPCG(h.seed, h1<<32+uint64(n))), kind: t.name, n: n, dir: filepath.Join(h.root, "case"), tally: t}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	for _, sub := range []string{"home", "tmp"} {
		if err := os.MkdirAll(filepath.Join(c.dir, sub), 0o777); err != nil {
			return err
		}
	}
	begun := time.Now()
	err := t.run(c)
	t.spent += time.Since(begun)
	if h.ctx.Err() != nil {
		return nil // what was running has been ended with it
	}
	if err != nil {
		return err
	}
	if left, err := os.ReadDir(filepath.Join(c.dir, "tmp")); err != nil || len(left) > 0 {
		c.find("temporary files are left: %v %v", left, err)
	}
	if len(c.findings) > 0 {
		t.findings++
		return c.store()
	}
	return nil
}

func (t *tally) made() int { return max(0, t.next) }

// find notes what is wrong.
func (c *attempt) find(format string, args ...any) {
	c.findings = append(c.findings, fmt.Sprintf(format, args...))
}

// store keeps a case that has found something.
func (c *attempt) store() error {
	dir := filepath.Join(c.keep, fmt.Sprintf("%s-%d-%d", c.kind, c.seed, c.n))
	fmt.Printf("FOUND %s %d (%s): %s\n", c.kind, c.n, c.about, strings.Join(c.findings, "; "))
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	// FIFOs and devices cannot be copied as files: the shell's cp can.
	if out, err := exec.Command("cp", "-a", c.dir, filepath.Join(dir, "case")).CombinedOutput(); err != nil {
		return fmt.Errorf("keep %s: %w: %s", c.dir, err, out)
	}
	head := fmt.Sprintf("#!/usr/bin/env bash\n# %s: %s\n# go run ./scripts/attack --seed %d --kinds %s --case %d\n", c.about, strings.Join(c.findings, "; "), c.seed, c.kind, c.n)
	text := strings.ReplaceAll(head+strings.Join(c.script, "\n")+"\n", c.dir, filepath.Join(dir, "case"))
	return errors.Join(os.WriteFile(filepath.Join(dir, "again.sh"), []byte(text), 0o755),
		os.WriteFile(filepath.Join(dir, "said"), []byte(strings.Join(c.stderr, "\n---\n")), 0o666))
}

// limits bound one command.
type limits struct {
	time   time.Duration
	memory int64 // kB; 0: none
	space  int   // kB of address space; 0: none
}

var usual = limits{time: 20 * time.Second, memory: 700 << 10}

// result is how a command ended.
type result struct {
	args   []string
	code   int    // -1: by a signal
	signal string // that ended it
	stdout string
	stderr string
	took   time.Duration
	memory int64 // kB
	late   bool
}

// environment is what commands run in: nothing of the user's.
func (c *attempt) environment() []string {
	home := filepath.Join(c.dir, "home")
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "GOPEFT_HOME=" + filepath.Join(home, "gopeft"), "HF_HOME=" + filepath.Join(home, "hf"), "HF_HUB_OFFLINE=1",
		"TMPDIR=" + filepath.Join(c.dir, "tmp"), "OMP_NUM_THREADS=1", "LD_LIBRARY_PATH=" + os.Getenv("LD_LIBRARY_PATH")}
}

// start begins a command. within is done while it runs, with its process; nil: nothing is.
func (c *attempt) start(l limits, within func(p *os.Process, ended <-chan struct{}), args ...string) result {
	command := append([]string{c.binary}, args...)
	if l.space > 0 {
		command = append([]string{"sh", "-c", `ulimit -v "$0" && exec "$@"`, strconv.Itoa(l.space)}, command...)
	}
	c.noting.Lock()
	c.script = append(c.script, quoted(append([]string{"env", "-i"}, append(c.environment(), command...)...)))
	c.noting.Unlock()
	ctx, cancel := context.WithTimeout(c.ctx, l.time)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env, cmd.Dir = c.environment(), c.dir
	stdout, stderr := &bounded{}, &bounded{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = 5 * time.Second
	// In a group of its own, what it has started can be ended with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	r := result{args: args}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		c.find("it cannot be started: %v", err)
		return r
	}
	ended, seen := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(seen)
		if within != nil {
			within(cmd.Process, ended)
		}
	}()
	_ = cmd.Wait() // how it ended is in its state
	close(ended)
	<-seen
	r.took, r.stdout, r.stderr, r.late = time.Since(begun), stdout.String(), stderr.String(), ctx.Err() != nil && c.ctx.Err() == nil
	r.code = cmd.ProcessState.ExitCode()
	if w, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		r.signal = w.Signal().String()
	}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.memory = u.Maxrss
	}
	c.noting.Lock()
	defer c.noting.Unlock()
	c.stderr = append(c.stderr, fmt.Sprintf("gopeft %s: exit %d %s\n%s", strings.Join(args, " "), r.code, r.signal, r.stderr))
	c.tally.commands++
	key := strconv.Itoa(r.code)
	if r.signal != "" {
		key = r.signal
	}
	c.tally.codes[key]++
	c.tally.slowest, c.tally.largest = max(c.tally.slowest, r.took), max(c.tally.largest, r.memory)
	return r
}

// gopeft runs a command to its end and judges it.
func (c *attempt) gopeft(args ...string) result {
	r := c.start(usual, nil, args...)
	c.judge(r, usual)
	return r
}

// bounded keeps the first megabyte of what is written to it.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := 1<<20 - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// quoted is a command as a shell takes it.
func quoted(command []string) string {
	words := make([]string, len(command))
	for i, w := range command {
		words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	return strings.Join(words, " ")
}
