package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopeft/model/modeltest"
)

// cpuOf is how much of the processor a process has taken so far.
func cpuOf(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // behind the name
	fields, sum := strings.Fields(rest), 0
	for _, i := range []int{11, 12} { // its code's, and the system's for it
		if len(fields) <= i {
			return 0
		}
		ticks, _ := strconv.Atoi(fields[i])
		sum += ticks
	}
	return time.Duration(sum) * 10 * time.Millisecond
}

// TestPassesEndWhenAProcessIsLost: where processes that hold the weights together only compute, and one of them dies or hangs
// amid their passes, the others end in time, each with one line that names it, and nothing is left that looks like a result.
func TestPassesEndWhenAProcessIsLost(t *testing.T) {
	t.Parallel()
	_, labelled := tokenRows(t, 60000)
	rows := writeText(t, "labelled.jsonl", strings.ReplaceAll(labelled, "class-", "LABEL_")) // as a model without a run calls them
	texts := writeText(t, "texts.jsonl", strings.Repeat("{\"input_ids\": [1, 5, 9, 12, 20, 31, 7]}\n", 40000))
	encoder, decoder := modeltest.Testdata(t, "distilbert/tiny"), modeltest.Testdata(t, "llama/base")
	for i, c := range []struct {
		args   []string
		victim int
		signal syscall.Signal
		out    string
	}{
		{[]string{"predict", "--model", encoder, "--data", rows, "--out"}, 1, syscall.SIGKILL, "predictions.jsonl"},
		{[]string{"eval", "--model", encoder, "--data", rows, "--per-row"}, 2, syscall.SIGSTOP, "rows.jsonl"},
		{[]string{"embed", "--model", encoder, "--data", rows, "--out"}, 1, syscall.SIGSTOP, "states.npy"},
		{[]string{"eval", "--task", "causal", "--model", decoder, "--data", texts, "--per-row"}, 2, syscall.SIGKILL, "scores.jsonl"},
		{[]string{"embed", "--model", encoder, "--data", rows, "--out"}, 0, syscall.SIGKILL, "states.npy"},
		{[]string{"predict", "--model", encoder, "--data", rows, "--out"}, 0, syscall.SIGSTOP, "predictions.jsonl"},
	} {
		if testing.Short() && i > 1 {
			continue
		}
		t.Run(fmt.Sprintf("%s, %v to rank %d", c.args[0], c.signal, c.victim), func(t *testing.T) {
			out := filepath.Join(t.TempDir(), c.out)
			args := append(c.args[:len(c.args):len(c.args)], out, "--batch-size", "1", "--threads", "1", "--quiet", "--shard-frozen", "--dist-timeout", attackTimeout.String())
			ranks := startRanks(t, 3, args...)
			victim := ranks[c.victim]
			until(t, "passes", func() bool { return cpuOf(victim.cmd.Process.Pid) > 2*time.Second || closed(victim.ended) })
			if closed(victim.ended) {
				t.Fatalf("rank %d had ended: %q", c.victim, victim.stderr.String())
			}
			slowest := attack{victim: c.victim, signal: c.signal}.strike(t, ranks, func() {})
			for rank, p := range ranks {
				if rank == c.victim {
					continue
				}
				code := p.cmd.ProcessState.ExitCode()
				if text, one := oneError(p.stderr.String()); code != exitFailed || !one || !strings.HasPrefix(text, fmt.Sprintf("rank %d ", c.victim)) {
					t.Errorf("rank %d: exit %d, %q", rank, code, p.stderr.String())
				}
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(out), "*")); err != nil || len(left) > 0 && c.victim != 0 {
				t.Errorf("%v is left (%v)", left, err)
			}
			t.Logf("ended after %s", slowest.Round(time.Millisecond))
		})
	}
}
