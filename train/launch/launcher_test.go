package launch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// script makes a launcher of processes that run a shell script. Its waits are short.
func script(procs int, text string) (l Launcher, stdout, stderr *buffer) {
	stdout, stderr = &buffer{}, &buffer{}
	return Launcher{Command: []string{"/bin/sh", "-c", text}, Env: os.Environ(), Procs: procs, Stdout: stdout, Stderr: stderr,
		Grace: 5 * time.Second, Notice: 300 * time.Millisecond}, stdout, stderr
}

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

// lines are what was said, in order of the alphabet.
func (b *buffer) lines() []string {
	l := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	slices.Sort(l)
	return l
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestProcessesKnowWhoTheyAre(t *testing.T) {
	l, stdout, stderr := script(3, `echo out $RANK
echo "$RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR $GOPEFT_LAUNCH_RESTARTS socket $GOPEFT_LAUNCH_SOCKET $PET_NNODES $(cat)" >&2
[ $GOPEFT_LAUNCH_SOCKET = 0 ] || readlink /proc/self/fd/$GOPEFT_LAUNCH_SOCKET | cut -d: -f1 >&2`)
	l.Env = append(l.Env, "RANK=9", "PET_NNODES=4", "TORCHELASTIC_RUN_ID=x")
	l.Stdin = []byte("in")
	if err := l.Run(bounded(t)); err != nil {
		t.Fatal(err)
	}
	want := []string{"0/3 0/3 127.0.0.1 0 socket 4  in", "1/3 1/3 127.0.0.1 0 socket 0  in", "2/3 2/3 127.0.0.1 0 socket 0  in", "socket"}
	if got := stderr.lines(); !slices.Equal(got, want) || stdout.String() != "out 0\n" {
		t.Errorf("they say %q, and print %q", got, stdout)
	}
}

func TestNodesShareTheRanks(t *testing.T) {
	free, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	taken, _, _ := script(2, "exit 0")
	taken.Nodes = Nodes{Count: 2, Host: "127.0.0.1", Port: port}
	if err := taken.Run(bounded(t)); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that is taken: %v", err)
	}
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	for rank, want := range map[int]string{0: "0/4 0/2 127.0.0.1:%d 4", 1: "2/4 0/2 127.0.0.1:%d 0"} {
		want = fmt.Sprintf(want, port)
		l, stdout, stderr := script(2, `echo $RANK/$WORLD_SIZE $LOCAL_RANK/$LOCAL_WORLD_SIZE $MASTER_ADDR:$MASTER_PORT $GOPEFT_LAUNCH_SOCKET >&2`)
		l.Nodes = Nodes{Count: 2, Rank: rank, Host: "127.0.0.1", Port: port}
		if err := l.Run(bounded(t)); err != nil {
			t.Fatal(err)
		}
		if got := stderr.lines(); len(got) != 2 || got[0] != want || stdout.String() != "" {
			t.Errorf("node %d: %q, want %q first", rank, got, want)
		}
	}
}

func TestFailures(t *testing.T) {
	const fail = `{"message":{"message":"no such file"}}`
	for name, c := range map[string]struct {
		script string
		code   int
		text   string
		said   bool
	}{
		"one ends with 1":       {`[ $RANK = 1 ] && exit 1; exec sleep 60`, 1, "process 1 of 3 ended with exit code 1", false},
		"one ends with 3":       {`[ $RANK = 2 ] && exit 3; exec sleep 60`, 3, "process 2 of 3 ended with exit code 3", false},
		"one is killed":         {`[ $RANK = 1 ] && kill -9 $$; exec sleep 60`, 1, "process 1 of 3 was killed (signal 9), as the kernel does where memory runs out", false},
		"one aborts":            {`[ $RANK = 0 ] && kill -ABRT $$; exec sleep 60`, 1, "process 0 of 3 was killed (signal 6)", false},
		"one says why":          {`[ $RANK = 1 ] && { echo '` + fail + `' > $GOPEFT_LAUNCH_ERRORS; exit 1; }; exec sleep 60`, 1, "no such file", true},
		"the killed is late":    {`[ $RANK = 1 ] && { sleep 0.1; kill -9 $$; }; exit 1`, 1, "process 1 of 3 was killed (signal 9), as the kernel does where memory runs out", false},
		"wrong usage":           {`[ $RANK = 1 ] && exit 2; exec sleep 60`, 2, "process 1 of 3 ended with exit code 2", false},
		"wrong usage, later":    {`[ $RANK = 1 ] && { sleep 0.1; exit 2; }; exit 1`, 2, "process 1 of 3 ended with exit code 2", false},
		"stopped from outside":  {`exit 130`, 130, "", true},
		"deaf to being stopped": {`[ $RANK = 1 ] && exit 1; trap "" TERM; sleep 60 & wait; wait`, 1, "process 1 of 3 ended with exit code 1", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, _, stderr := script(3, c.script)
			l.Grace, l.Stdin = time.Second, []byte{}
			begun := time.Now()
			err := l.Run(bounded(t))
			end := (*ExitError)(nil)
			if !errors.As(err, &end) || end.Code != c.code || end.Said() != c.said || c.text != "" && end.Error() != c.text {
				t.Errorf("%v (%+v), want %q, exit code %d", err, end, c.text, c.code)
			}
			if took := time.Since(begun); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			if killed := strings.Contains(stderr.String(), "did not stop within 1s and was killed"); killed != (name == "deaf to being stopped") {
				t.Errorf("it said %q", stderr)
			}
		})
	}
}

func TestOthersAreToldAfterAFailure(t *testing.T) {
	l, _, stderr := script(2, `[ $RANK = 1 ] && exit 1; trap 'echo told >&2; kill $!; exit 1' TERM; sleep 60 & wait`)
	if err := l.Run(bounded(t)); err == nil || !strings.Contains(err.Error(), "process 1 of 2") || stderr.String() != "told\n" {
		t.Errorf("%v, %q", err, stderr)
	}
}

func TestRestarts(t *testing.T) {
	for name, c := range map[string]struct {
		script   string
		attempts int
		ok       bool
	}{
		"succeeds at the third": {`echo $RANK >> $0.$GOPEFT_LAUNCH_RESTARTS; [ $GOPEFT_LAUNCH_RESTARTS = 2 ] || exit 1`, 3, true},
		"never succeeds":        {`echo $RANK >> $0.$GOPEFT_LAUNCH_RESTARTS; exit 1`, 4, false},
		"wrong usage":           {`echo $RANK >> $0.$GOPEFT_LAUNCH_RESTARTS; exit 2`, 1, false},
		"interrupted":           {`echo $RANK >> $0.$GOPEFT_LAUNCH_RESTARTS; exit 130`, 1, false},
	} {
		mark := filepath.Join(t.TempDir(), "mark")
		l, _, stderr := script(2, c.script)
		l.Command, l.MaxRestarts = append(l.Command, mark), 3
		err := l.Run(bounded(t))
		attempts, _ := filepath.Glob(mark + ".*")
		if (err == nil) != c.ok || len(attempts) != c.attempts || strings.Count(stderr.String(), "starting again") != c.attempts-1 {
			t.Errorf("%s: %v after %d attempts, %q", name, err, len(attempts), stderr)
		}
		for i := range c.attempts {
			if raw, err := os.ReadFile(fmt.Sprintf("%s.%d", mark, i)); err != nil || len(raw) != 4 {
				t.Errorf("%s: attempt %d has the ranks %q, %v", name, i, raw, err)
			}
		}
	}
}

func TestInterrupt(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		code   int
		says   string
	}{
		"they write a checkpoint": {`trap 'echo saved >&2; kill $!; exit 130' TERM; sleep 60 & echo ready >&2; wait`, 130, "ready,ready,saved,saved"},
		"they are ended by it":    {`echo ready >&2; exec sleep 60`, 130, "ready,ready"},
		"they have just finished": {`trap 'kill $!; exit 0' TERM; sleep 60 & echo ready >&2; wait`, 0, "ready,ready"},
		"one hangs":               {`trap "" TERM; [ $RANK = 1 ] || trap 'kill $!; exit 130' TERM; sleep 60 & echo ready >&2; wait; wait`, 130, "gopeft: process 1 of 2 did not stop within 2s and was killed,ready,ready"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, _, stderr := script(2, c.script)
			l.Grace, l.MaxRestarts = time.Minute, 1
			if name == "one hangs" {
				l.Grace = 2 * time.Second
			}
			ctx, cancel := context.WithCancel(bounded(t))
			go func() {
				for ctx.Err() == nil && strings.Count(stderr.String(), "ready\n") < 2 {
					time.Sleep(5 * time.Millisecond)
				}
				cancel()
			}()
			err := l.Run(ctx)
			end := (*ExitError)(nil)
			if errors.As(err, &end) != (c.code != 0) || end != nil && (end.Code != c.code || !end.Said()) {
				t.Errorf("%v (%+v), want exit code %d", err, end, c.code)
			}
			if got := strings.Join(stderr.lines(), ","); got != c.says {
				t.Errorf("they said %q", got)
			}
		})
	}
}

func TestLinesStayWhole(t *testing.T) {
	l, _, stderr := script(4, `i=0; while [ $i -lt 100 ]; do printf "rank $RANK " >&2; printf "says $i\n" >&2; i=$((i+1)); done; printf "last of $RANK" >&2
echo "gopeft: all find this" >&2; echo "gopeft: $RANK finds this" >&2`)
	if err := l.Run(bounded(t)); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, line := range stderr.lines() {
		count[line]++
	}
	for rank := range 4 {
		for i := range 100 {
			if line := fmt.Sprintf("rank %d says %d", rank, i); count[line] != 1 {
				t.Fatalf("%q is there %d times", line, count[line])
			}
		}
		if n := count[fmt.Sprintf("gopeft: %d finds this", rank)]; n != 1 {
			t.Errorf("the error of %d is there %d times", rank, n)
		}
	}
	long := &lineWriter{to: &lines{to: stderr}}
	_, _ = long.Write(bytes.Repeat([]byte("x"), maxLine+1))
	if len(long.part) != 0 {
		t.Errorf("a line without an end takes %d bytes", len(long.part))
	}
}

func TestErrorsAreSaidOnce(t *testing.T) {
	var out bytes.Buffer
	said := &lines{to: &out}
	said.begin()
	for rank := range 3 {
		w := &lineWriter{to: said, rank: rank}
		fmt.Fprintf(w, "gopeft: no such file\nstep\ngopeft: %d\n", rank)
	}
	if want := "gopeft: no such file\nstep\ngopeft: 0\nstep\ngopeft: 1\nstep\ngopeft: 2\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestWhatCannotBeStarted(t *testing.T) {
	for name, change := range map[string]func(*Launcher){
		"no command":   func(l *Launcher) { l.Command = nil },
		"no program":   func(l *Launcher) { l.Command = []string{"/no/such/program"} },
		"no processes": func(l *Launcher) { l.Procs = 0 },
		"a node's number": func(l *Launcher) {
			l.Nodes = Nodes{Count: 2, Rank: 2, Host: "h", Port: 1}
		},
		"no port": func(l *Launcher) { l.Nodes = Nodes{Count: 2, Host: "h"} },
	} {
		l, _, _ := script(2, "exit 0")
		change(&l)
		end := (*ExitError)(nil)
		if err := l.Run(bounded(t)); err == nil || errors.As(err, &end) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReasons(t *testing.T) {
	path := filepath.Join(t.TempDir(), "error.json")
	w := World{ErrorFile: path, Source: SourceTorchrun}
	if err := w.Fail("rows.csv: line 3", time.Unix(1800000000, 0)); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	// torch/distributed/elastic/multiprocessing/errors reads these keys.
	if want := `{"message":{"message":"rows.csv: line 3","extraInfo":{"timestamp":"1800000000"}}}`; err != nil || string(raw) != want {
		t.Errorf("%s, %v", raw, err)
	}
	if err := (World{}).Fail("nobody asks", time.Now()); err != nil {
		t.Error(err)
	}
	w.ErrorFile = filepath.Join(path, "below-a-file")
	if err := w.Fail("x", time.Now()); err == nil || !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("%v", err)
	}
}
