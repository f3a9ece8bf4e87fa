package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"gopeft/model/modeltest"
	"gopeft/train"
	"gopeft/train/launch"
	"gopeft/train/run"
)

// rank stands for the program where a launcher has started it: with GOPEFT_TEST_PROGRAM=ranks. What it does is the value
// of --model.
func rank(args []string) int {
	w, err := launch.FromEnv(os.Getenv)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 99
	}
	me := fmt.Sprintf("%d/%d", w.Rank, w.Size)
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, syscall.SIGTERM)
	peerLost := func() { // as a rank notices that another is gone
		select {
		case <-stopped:
		case <-time.After(2 * time.Second):
		}
	}
	switch does := argument(args, "model", "settings"); does {
	case "tell":
		fmt.Println("out", me)
		fmt.Fprintln(os.Stderr, "err", me, w.LocalSize, w.Listen > 0, strings.Join(args[1:], " "))
	case "settings": // of a comparison, which sends them
		raw, err := io.ReadAll(os.Stdin)
		if w.Rank == 1 {
			_ = w.Fail(fmt.Sprintf("%s read method %t, %v", me, bytes.Contains(raw, []byte("method: full\n")), err), time.Now())
			return exitFailed
		}
		peerLost()
		return exitFailed
	case "exit-1", "exit-2":
		if w.Rank == 1 {
			code, _ := strconv.Atoi(does[5:])
			return code
		}
		peerLost()
		return exitFailed
	case "die":
		if w.Rank == 1 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		peerLost()
		return exitFailed
	case "third":
		fmt.Fprintln(os.Stderr, "attempt", w.Restarts)
		if w.Restarts < 2 {
			return exitFailed
		}
	case "wait", "hang":
		fmt.Fprintln(os.Stderr, "pid", os.Getpid())
		<-stopped
		if does == "hang" && w.Rank == 1 {
			<-stopped
		}
		return exitInterrupted
	}
	return exitDone
}

func TestLaunch(t *testing.T) {
	t.Setenv("GOPEFT_TEST_PROGRAM", "ranks")
	for name, c := range map[string]struct {
		args   string
		code   int
		stdout string
		stderr []string // in order of the alphabet
	}{
		"train --nproc": {"train --nproc 2 --model tell --threads=1", exitDone, "out 0/2\n",
			[]string{"err 0/2 2 true train --model tell --threads=1", "err 1/2 2 false train --model tell --threads=1"}},
		"launch":            {"launch --nproc=2 -- eval --model tell", exitDone, "out 0/2\n", []string{"err 0/2 2 true eval --model tell", "err 1/2 2 false eval --model tell"}},
		"one ends with 1":   {"train --nproc 2 --model exit-1", exitFailed, "", []string{"gopeft: process 1 of 2 ended with exit code 1"}},
		"one ends with 2":   {"launch --nproc 2 --max-restarts 2 -- train --model exit-2", exitUsage, "", []string{"gopeft: process 1 of 2 ended with exit code 2"}},
		"one is killed":     {"train --nproc 3 --model die", exitFailed, "", []string{"gopeft: process 1 of 3 was killed (signal 9), as the kernel does where memory runs out"}},
		"the third attempt": {"launch --nproc 2 --max-restarts 2 -- train --model third", exitDone, "", []string{"attempt 0", "attempt 0", "attempt 1", "attempt 1", "attempt 2", "attempt 2"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := gopeft(t, "", strings.Fields(c.args)...)
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			slices.Sort(lines)
			lines = slices.DeleteFunc(lines, func(l string) bool {
				return strings.Contains(l, "starting again") || strings.HasPrefix(l, "gopeft:") && len(c.stderr) > 2
			})
			if code != c.code || stdout != c.stdout || !slices.Equal(lines, c.stderr) {
				t.Errorf("exit %d, %q, %q", code, stdout, lines)
			}
		})
	}
}

// pids waits until n ranks have said their process's number.
func pids(t *testing.T, file string, n int) []int {
	t.Helper()
	var found []int
	until(t, "the ranks", func() bool {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found = nil
		for line := range strings.Lines(string(raw)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, "pid "))); err == nil {
				found = append(found, pid)
			}
		}
		return len(found) >= n
	})
	return found
}

// launcher begins a launcher in a process of its own, whose standard error is a file.
func launcher(t *testing.T, args ...string) (cmd *exec.Cmd, stderr string) {
	t.Helper()
	stderr = filepath.Join(t.TempDir(), "stderr")
	file, err := os.Create(stderr)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// Under nohup a process begins with SIGHUP ignored, unless its parent awaits it.
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hup) })
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), "GOPEFT_TEST_PROGRAM=ranks"), file
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, stderr
}

func TestAnInterruptReachesAllProcesses(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		sig  os.Signal
		hung bool
	}{
		"Ctrl-C":                  {[]string{"train", "--nproc", "2", "--model", "wait"}, os.Interrupt, false},
		"SIGTERM":                 {[]string{"launch", "--nproc", "2", "--max-restarts", "1", "--", "train", "--model", "wait"}, syscall.SIGTERM, false},
		"a terminal that is gone": {[]string{"train", "--nproc", "2", "--model", "wait"}, syscall.SIGHUP, false},
		"one hangs":               {[]string{"launch", "--nproc", "2", "--grace", "1s", "--", "train", "--model", "hang"}, os.Interrupt, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, stderr := launcher(t, c.args...)
			pids(t, stderr, 2)
			if err := cmd.Process.Signal(c.sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			said, err := os.ReadFile(stderr)
			hung := strings.Contains(string(said), "gopeft: process 1 of 2 did not stop within 1s and was killed")
			if code := cmd.ProcessState.ExitCode(); code != exitInterrupted || err != nil || hung != c.hung || strings.Contains(string(said), "starting again") {
				t.Errorf("exit %d, %v: %s", code, err, said)
			}
		})
	}
}

func TestNoProcessOutlivesAKilledLauncher(t *testing.T) {
	cmd, stderr := launcher(t, "train", "--nproc", "2", "--model", "hang")
	ranks := pids(t, stderr, 2)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for _, pid := range ranks {
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
		until(t, "the end of a rank", func() bool {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return err != nil || bytes.Contains(stat, []byte(") Z "))
		})
	}
}

func TestCompareTrainsInSeveralProcesses(t *testing.T) {
	t.Setenv("GOPEFT_TEST_PROGRAM", "ranks")
	data, _ := tokenRows(t, 60)
	code, _, stderr := gopeft(t, "", "compare", "--model", modeltest.Testdata(t, "distilbert/tiny"), "--data", data, "--methods", "full", "--nproc", "2",
		"--out", filepath.Join(t.TempDir(), "cmp"), "--quiet")
	if want := "gopeft: full: 1/2 read method true, <nil>\n"; code != exitFailed || stderr != want {
		t.Errorf("exit %d, %q, want %q", code, stderr, want)
	}
}

func TestLaunchRefuses(t *testing.T) {
	const started = "RANK=1 WORLD_SIZE=3 MASTER_ADDR=h MASTER_PORT=4000"
	const torchrun = started + " LOCAL_RANK=1 LOCAL_WORLD_SIZE=3 TORCHELASTIC_RUN_ID=x"
	const step = "SLURM_JOB_ID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_STEP_TASKS_PER_NODE=2"
	for _, c := range []struct{ env, args, want string }{
		{"", "launch", "what is to be run?"},
		{"", "launch --nproc 2 -- merge --model x", "merge does not share its work"},
		{"", "launch --nproc 0 -- train", `--nproc is "0"`},
		{"", "launch --nproc two -- train", `--nproc is "two"`},
		{"", "launch --max-restarts -1 -- train", "--max-restarts is -1"},
		{"", "launch --grace 0s -- train", "--grace is 0s"},
		{"", "launch --nproc 1 --nnodes 2 --node-rank 0 --master-addr h -- train", "--master-port is missing"},
		{"", "launch --nproc 1 --nnodes 2 --node-rank 0 --master-port 4000 -- train", "--master-addr is missing"},
		{"", "launch --nproc 1 --nnodes 2 --master-addr h --master-port 4000 -- train", "--node-rank is missing"},
		{"", "launch --nproc 1 --nnodes 2 --node-rank 2 --master-addr h --master-port 4000 -- train", "--node-rank is 2, but --nnodes is 2"},
		{"", "launch --nproc 1 --nnodes 2 --node-rank 1 --master-addr h --master-port 0 -- train", "--master-port is 0"},
		{"", "launch --nproc 1 --nnodes 0 -- train", "--nnodes is 0"},
		{"", "launch --nproc 2 --master-port 4000 -- train", "--master-port is given without --nnodes above 1"},
		{"", "train --nproc -1", `--nproc is "-1"`},
		{"", "train --dist-timeout 0s", "--dist-timeout is 0s"},
		{"", "train --resume=maybe", "want nothing, or auto"},
		{"", "train --resume=auto --overwrite", "--overwrite and --resume exclude each other"},
		{torchrun, "train --nproc 2", "this is already process 1 of 3, started by torchrun: leave out"},
		{torchrun, "launch --nproc 2 --nnodes 2 --node-rank 0 --master-addr h --master-port 4000 -- train", "started by torchrun"},
		{started, "train --nproc 2", "this is already process 1 of 3 by RANK and WORLD_SIZE: leave out"},
		{step, "launch --nproc 2 -- train", "this is already process 0 of 2, started by Slurm: leave out `gopeft launch` and --nproc, or tell `gopeft launch` by --nnodes"},
		{started, "merge --model x --out y", "merge does not share its work between processes, and this is process 1 of 3 by RANK and WORLD_SIZE: start it once"},
		{step, "compare", "compare does not share its work between processes, and this is process 0 of 2, started by Slurm"},
		{torchrun, "tokenize", "tokenize does not share"},
		{"RANK=3 WORLD_SIZE=3 MASTER_ADDR=h MASTER_PORT=4000", "train", "RANK is 3, but WORLD_SIZE is 3"},
		{"SLURM_JOB_ID=1 SLURM_NTASKS=4", "train", "start it with `srun gopeft …`, or say --nproc 1"},
		{"PET_NPROC_PER_NODE=4 PET_NNODES=2", "train", "run `gopeft launch --nproc 4 -- train …` in each pod"},
		{"PET_NNODES=1:2", "train --nproc 2", "PET_NNODES is \"1:2\""},
	} {
		t.Run(c.args, func(t *testing.T) {
			for _, pair := range strings.Fields(c.env) {
				name, value, _ := strings.Cut(pair, "=")
				t.Setenv(name, value)
			}
			code, stdout, stderr := gopeft(t, "", strings.Fields(c.args)...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%s: exit %d, %q, want %q", c.env, code, stderr, c.want)
			}
		})
	}
}

// Where a job has room for several processes, and one is asked for, that is what there is.
func TestOneProcessOfAJob(t *testing.T) {
	t.Setenv("SLURM_JOB_ID", "1")
	t.Setenv("SLURM_NTASKS", "4")
	for _, args := range []string{"train --nproc 1", "eval"} {
		code, _, stderr := gopeft(t, "", strings.Fields(args)...)
		if code == exitDone || strings.Contains(stderr, "SLURM") {
			t.Errorf("%s: exit %d, %s", args, code, stderr)
		}
	}
}

func TestArguments(t *testing.T) {
	flags := trainCommand().Flags
	for given, want := range map[string]string{
		"train --nproc 2 --model m":                    "train --model m",
		"train --nproc=2 --resume --model m":           "train --resume --model m",
		"train --resume -nproc 2 --json":               "train --resume --json",
		"train --resume=auto --nproc auto":             "train --resume=auto",
		"train --template --nproc --model m --nproc 2": "train --template --nproc --model m",
		"train --model m":                              "train --model m",
	} {
		if got := withoutFlag(strings.Fields(given), flags, "nproc"); strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", given, got, want)
		}
	}
	if got := argument(strings.Fields("train --threads 2 --device=cuda:1 --threads=3"), "threads", "0"); got != "3" {
		t.Errorf("--threads is %s", got)
	}
}

func TestAutoProcesses(t *testing.T) {
	for _, c := range []struct {
		device, threads string
		want            func(n int) bool
	}{
		{"cpu", "0", func(n int) bool { return n == 1 }},
		{"cpu", "1", func(n int) bool { return n >= 1 }},
		{"cpu", "100000", func(n int) bool { return n == 1 }},
		{"cuda:0", "1", func(n int) bool { return n == 1 }},
	} {
		if n, err := processes("auto", c.device, c.threads, train.Quiet{}); err != nil || !c.want(n) {
			t.Errorf("%+v: %d, %v", c, n, err)
		}
	}
}

func TestOutModes(t *testing.T) {
	begun := time.Now().Add(-time.Second) // the times of files are some milliseconds behind the clock
	again := launch.World{Restarts: 1, Begun: begun}
	elsewhere := launch.World{Restarts: 1, Source: launch.SourceTorchrun}
	for name, c := range map[string]struct {
		flags  string
		world  launch.World
		holds  string // files of --out
		before bool   // they were there before the run began
		want   run.OutMode
		refuse bool
	}{
		"nothing said":                         {"", launch.World{}, "config.yaml last", false, run.Refuse, false},
		"--overwrite":                          {"--overwrite", launch.World{}, "config.yaml last", false, run.Overwrite, false},
		"--resume":                             {"--resume", launch.World{}, "", false, run.Resume, false},
		"--resume=true":                        {"--resume=true", launch.World{}, "", false, run.Resume, false},
		"--resume=false":                       {"--resume=false", launch.World{}, "last", false, run.Refuse, false},
		"auto, nothing there":                  {"--resume=auto", launch.World{}, "", false, run.Refuse, false},
		"auto, a checkpoint":                   {"--resume=auto", launch.World{}, "config.yaml last", false, run.Resume, false},
		"auto, begun":                          {"--resume=auto", launch.World{}, "config.yaml metrics.csv", false, run.Overwrite, false},
		"auto, finished without a checkpoint":  {"--resume=auto", launch.World{}, "config.yaml summary.json", false, run.Refuse, false},
		"auto, no run's":                       {"--resume=auto", launch.World{}, "notes.txt", false, run.Refuse, false},
		"again, a checkpoint":                  {"", again, "config.yaml last", false, run.Resume, false},
		"again, begun":                         {"", again, "config.yaml metrics.csv", false, run.Overwrite, false},
		"again, another run's":                 {"", again, "config.yaml last", true, run.Refuse, false},
		"again, to be overwritten":             {"--overwrite", again, "config.yaml last", true, run.Overwrite, false},
		"again, overwritten":                   {"--overwrite", again, "config.yaml last", false, run.Resume, false},
		"again, resumed":                       {"--resume", again, "config.yaml last", true, run.Resume, false},
		"again, killed before its settings":    {"--overwrite", again, "", false, run.Overwrite, false},
		"again by torchrun, before them":       {"", elsewhere, "", false, run.Refuse, false},
		"again by torchrun":                    {"", elsewhere, "config.yaml last", true, run.Resume, false},
		"again by torchrun, to be overwritten": {"--overwrite", elsewhere, "config.yaml last", true, 0, true},
	} {
		out := t.TempDir()
		for _, file := range strings.Fields(c.holds) {
			path := filepath.Join(out, file)
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if when := begun.Add(-time.Minute); c.before {
				if err := os.Chtimes(path, when, when); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, err := modeOf(t, c.world, out, strings.Fields(c.flags)...)
		if got != c.want || (err != nil) != c.refuse {
			t.Errorf("%s: %v, %v; want %v", name, got, err, c.want)
		}
	}
}

// modeOf parses flags of train and returns what outMode makes of them.
func modeOf(t *testing.T, w launch.World, out string, flags ...string) (mode run.OutMode, failed error) {
	t.Helper()
	app := &cli.App{Flags: outFlags()}
	app.Action = func(c *cli.Context) error {
		mode, failed = outMode(c, w, filepath.Join(out, "config.yaml"), func() run.OutMode { return autoMode(out) })
		return nil
	}
	if err := app.RunContext(context.Background(), append([]string{"x"}, flags...)); err != nil {
		t.Fatal(err)
	}
	return mode, failed
}
