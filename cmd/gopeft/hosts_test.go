package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hosts are network namespaces with an address each, that stand for machines: a program in one has a host name and
// numbers of processes of its own.
type hosts struct{ names, addresses []string }

// twoHosts makes them, where this machine lets it.
func twoHosts(t *testing.T) hosts {
	t.Helper()
	base := fmt.Sprintf("gp%d", os.Getpid())
	h := hosts{[]string{base + "a", base + "b"}, []string{"10.213.77.1", "10.213.77.2"}}
	ip := func(args ...string) error {
		out, err := exec.Command("ip", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
		return nil
	}
	t.Cleanup(func() {
		for _, name := range h.names {
			_ = ip("netns", "del", name)
		}
	})
	steps := [][]string{{"netns", "add", h.names[0]}, {"netns", "add", h.names[1]},
		{"link", "add", "eth0", "netns", h.names[0], "type", "veth", "peer", "name", "eth0", "netns", h.names[1]}}
	for i, name := range h.names {
		steps = append(steps, []string{"-n", name, "addr", "add", h.addresses[i] + "/24", "dev", "eth0"},
			[]string{"-n", name, "link", "set", "eth0", "up"}, []string{"-n", name, "link", "set", "lo", "up"})
	}
	for _, s := range steps {
		if err := ip(s...); err != nil {
			t.Skipf("SKIPPED: this machine makes no network namespaces, so a run on several hosts is not tested here: %v", err)
		}
	}
	try := h.inside(0, "true")
	if out, err := exec.Command(try[0], try[1:]...).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: this machine makes no namespaces of processes, so a run on several hosts is not tested here: %v: %s", err, out)
	}
	return h
}

// inside is a command on a host, which is killed with what begins it.
func (h hosts) inside(i int, command ...string) []string {
	return slices.Concat([]string{"ip", "netns", "exec", h.names[i], "unshare", "--uts", "--pid", "--kill-child", "--mount-proc",
		"sh", "-c", `hostname "$0" && exec "$@"`, h.names[i]}, command)
}

// launched is a launcher on a host.
type launched struct {
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
	ended          chan struct{}
}

// launch begins the launcher of a host, which starts so many processes. All hosts meet at address.
func (h hosts) launch(t *testing.T, i, procs int, address string, args ...string) *launched {
	t.Helper()
	command := h.inside(i, slices.Concat([]string{os.Args[0], "launch", "--nproc", fmt.Sprint(procs), "--nnodes", "2", "--node-rank", fmt.Sprint(i),
		"--master-addr", address, "--master-port", "29500", "--"}, args)...)
	l := &launched{cmd: programAt(command), ended: make(chan struct{})}
	l.cmd.Stdout, l.cmd.Stderr = &l.stdout, &l.stderr
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.cmd.Process.Kill(); <-l.ended })
	go func() { _ = l.cmd.Wait(); close(l.ended) }()
	return l
}

// ends waits for a launcher, which has to end within a time with a code and a line that matches; "": with nothing.
func (l *launched) ends(t *testing.T, within time.Duration, code int, want string) {
	t.Helper()
	begun := time.Now()
	select {
	case <-l.ended:
	case <-time.After(within + 20*time.Second): // the last for other load
		t.Fatalf("%v has not ended: %q", l.cmd.Args, l.stderr.String())
	}
	text, _ := oneError(l.stderr.String())
	if got := l.cmd.ProcessState.ExitCode(); got != code || !regexp.MustCompile("^"+want+"$").MatchString(text) || strings.Count(l.stderr.String(), "\n") > 1 {
		t.Errorf("after %s: exit %d, %q, want %d, %q", time.Since(begun), got, l.stderr.String(), code, want)
	}
}

func TestTwoHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: long; run without -short")
	}
	t.Parallel()
	h := twoHosts(t)
	data, _ := tokenRows(t, 60)
	args := append(tinyRun(data), "--model", tinyModel(t), "--dist-timeout", "1m")
	into := func(out string) []string { return append(args[:len(args):len(args)], "--out", out) }

	whole, out := filepath.Join(t.TempDir(), "whole"), filepath.Join(t.TempDir(), "run")
	trainWhole(t, 2, into(whole)...)
	a, b := h.launch(t, 0, 1, h.addresses[0], into(out)...), h.launch(t, 1, 1, h.addresses[0], into(out)...)
	a.ends(t, time.Minute, exitDone, "")
	b.ends(t, time.Minute, exitDone, "")
	sameWeights(t, out, whole, 0)
	if !strings.Contains(a.stdout.String(), "results in "+out) || b.stdout.Len() > 0 {
		t.Errorf("they print %q and %q", a.stdout.String(), b.stdout.String())
	}

	// An address that is one's own everywhere is refused at once.
	const loopback = `MASTER_ADDR 127\.0\.0\.1 is this machine's loopback address, which the run's other machines do not reach: .*`
	out = filepath.Join(t.TempDir(), "run")
	b = h.launch(t, 1, 1, "127.0.0.1", into(out)...)
	b.ends(t, 5*time.Second, exitFailed, loopback)
	a = h.launch(t, 0, 1, "127.0.0.1", into(out)...)
	a.ends(t, 5*time.Second, exitFailed, loopback)
	a = h.launch(t, 0, 1, h.addresses[0], append(into(out), "--dist-timeout", "3s")...)
	a.ends(t, 8*time.Second, exitFailed, `rank 1 has not come within 3s; the store is at 10\.213\.77\.1:29500`)

	// Of a process on another host that is killed nothing is heard but that its connections are closed, unless there is one
	// beside it.
	for _, c := range []struct {
		procs, victim, tells int // processes of each host, the rank, and the host that is asked
		want                 string
	}{
		{1, 0, 1, "rank 0 on " + h.names[0] + ` is gone, with the store at 10\.213\.77\.1:29500`},
		{1, 1, 0, "rank 1 on " + h.names[1] + " does not answer; it was at .*"},
		{2, 3, 0, "rank 3 on " + h.names[1] + ` \(process \d+\) ended without a word; it was at .*`},
	} {
		out = filepath.Join(t.TempDir(), "run")
		endless := append(into(out), "--epochs", "100000")
		all := []*launched{h.launch(t, 0, c.procs, h.addresses[0], endless...), h.launch(t, 1, c.procs, h.addresses[0], endless...)}
		until(t, "a checkpoint", func() bool { return stepOf(out) >= 2 || closed(all[0].ended) || closed(all[1].ended) })
		pid := rankProcess(c.victim, "GOPEFT_LAUNCH_ATTEMPT=", out)
		if pid == 0 {
			t.Fatalf("rank %d is not found: %q, %q", c.victim, all[0].stderr.String(), all[1].stderr.String())
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		all[c.tells].ends(t, 5*time.Second, exitFailed, c.want)
		if other := all[1-c.tells]; c.procs == 1 {
			other.ends(t, 5*time.Second, exitFailed, "process . of 2 was killed .*")
		}
	}
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
