package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopeft/model/hf/files"
	"gopeft/model/modeltest"
)

// tinySteps are those of tinyRun with 60 rows.
const tinySteps = 32

// tinyRun are the settings of a run of a second or two that saves a checkpoint at each step.
func tinyRun(data string) []string {
	return []string{"train", "--method", "lora", "--data", data, "--epochs", "4", "--batch-size", "6", "--dropout", "0", "--checkpoint-every", "1",
		"--amp", "none", "--threads", "1", "--no-train-eval", "--quiet"}
}

func tinyModel(t *testing.T) string { return modeltest.Testdata(t, "distilbert/tiny") }

// programAt is the program in a process of its own, with what is set beside the environment that names no launcher.
func programAt(command []string, set ...string) *exec.Cmd {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}, name)
	})
	cmd.Env = append(append(cmd.Env, "GOPEFT_TEST_PROGRAM=1"), set...)
	return cmd
}

// trainer is a process of a run that no launcher watches.
type trainer struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{} // closed once it has
}

// freeSocket listens on a port of its own.
func freeSocket(t *testing.T) *os.File {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := listener.(*net.TCPListener).File()
	if err := errors.Join(err, listener.Close()); err != nil {
		t.Fatal(err)
	}
	return socket
}

func portOf(socket *os.File) int {
	listener, err := net.FileListener(socket)
	if err != nil {
		return 0
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// startRanks begins the n processes of a run as a launcher does, which is then left out of what happens to them.
func startRanks(t *testing.T, n int, args ...string) []*trainer {
	t.Helper()
	socket := freeSocket(t)
	defer socket.Close()
	port := strconv.Itoa(portOf(socket))
	ranks := make([]*trainer, n)
	for i := range ranks {
		rank, size := strconv.Itoa(i), strconv.Itoa(n)
		p := &trainer{ended: make(chan struct{})}
		p.cmd = programAt(append([]string{os.Args[0]}, args...), "GOPEFT_LAUNCH_ATTEMPT=0", "RANK="+rank, "LOCAL_RANK="+rank, "WORLD_SIZE="+size, "LOCAL_WORLD_SIZE="+size,
			"MASTER_ADDR=127.0.0.1", "MASTER_PORT="+port)
		if p.cmd.Stderr = &p.stderr; i == 0 {
			p.cmd.ExtraFiles, p.cmd.Env = []*os.File{socket}, append(p.cmd.Env, "GOPEFT_LAUNCH_SOCKET=3") // the first of them
		}
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.ended })
		go func() { _ = p.cmd.Wait(); close(p.ended) }()
		ranks[i] = p
	}
	return ranks
}

// trainWhole trains to the end in n processes.
func trainWhole(t *testing.T, n int, args ...string) {
	t.Helper()
	for rank, p := range startRanks(t, n, append(args, "--dist-timeout", "1m")...) {
		select {
		case <-p.ended:
		case <-time.After(3 * time.Minute):
			t.Fatalf("rank %d of %d has not ended", rank, n)
		}
		if code := p.cmd.ProcessState.ExitCode(); code != exitDone || p.stderr.Len() > 0 {
			t.Fatalf("rank %d of %d: exit %d, %s", rank, n, code, p.stderr.String())
		}
	}
}

// weightsOf reads what a run has trained, as it was saved for going on.
func weightsOf(t *testing.T, run string) map[string][]byte {
	t.Helper()
	a, err := files.Open(filepath.Join(run, "last", "state", "state.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	found := map[string][]byte{}
	for _, e := range a.Entries() {
		if strings.HasPrefix(e.Name, "param/") {
			found[e.Name] = slices.Clone(e.Data)
		}
	}
	return found
}

// sameWeights compares two runs' trained weights: bit by bit with a tolerance of 0.
func sameWeights(t *testing.T, got, want string, tol float64) {
	t.Helper()
	x, y := weightsOf(t, got), weightsOf(t, want)
	if len(x) != len(y) || len(x) == 0 {
		t.Fatalf("%d trained tensors, want %d", len(x), len(y))
	}
	worst, where := 0.0, ""
	for name := range y {
		if len(x[name]) != len(y[name]) {
			t.Fatalf("%s has %d bytes, want %d", name, len(x[name]), len(y[name]))
		}
		for i := 0; i < len(y[name]); i += 4 {
			a, b := math.Float32frombits(binary.LittleEndian.Uint32(x[name][i:])), math.Float32frombits(binary.LittleEndian.Uint32(y[name][i:]))
			if d := math.Abs(float64(a - b)); !(d <= worst) {
				worst, where = d, name
			}
		}
	}
	if !(worst <= tol) {
		t.Errorf("%s differs by %.3g, at most %.3g was expected", where, worst, tol)
	}
}

// oneError is what a process says that fails: one line, the program's.
func oneError(stderr string) (text string, ok bool) {
	text, ok = strings.CutPrefix(stderr, "gopeft: ")
	return strings.TrimSuffix(text, "\n"), ok && strings.Count(stderr, "\n") == 1
}

// rankProcess finds the process of a rank among those whose environment and arguments hold all of marks.
func rankProcess(rank int, marks ...string) (pid int) {
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		env, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(env, fmt.Appendf(nil, "\x00RANK=%d\x00", rank)) {
			continue
		}
		args, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		all := append(env, args...)
		if !slices.ContainsFunc(marks, func(m string) bool { return !bytes.Contains(all, []byte(m)) }) {
			pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return pid
		}
	}
	return 0
}
