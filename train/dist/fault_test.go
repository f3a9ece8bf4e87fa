package dist

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// testCase is an act, and the rank that something happens to.
type testCase struct {
	act     string
	culprit int
}

func (c testCase) String() string { return fmt.Sprint(c.act, " ", c.culprit) }

// everywhere is each rank in each place.
func everywhere() []testCase {
	var cases []testCase
	for _, act := range []string{"computing", "joining", "summing", "finished"} {
		for culprit := range 3 {
			cases = append(cases, testCase{act, culprit})
		}
	}
	return cases
}

// A process that is killed anywhere ends the others within seconds, with one line that names it.
func TestAKilledProcess(t *testing.T) {
	t.Parallel()
	some(t, everywhere(), testCase.String, func(t *testing.T, c testCase) {
		procs := begin(t, 3, plan{Act: c.act, Culprit: c.culprit, Timeout: 2 * time.Minute}, nil)
		until(t, "there", procs[c.culprit])
		begun := time.Now()
		procs[c.culprit].kill(syscall.SIGKILL)
		want := fmt.Sprintf("rank %d on %s (process %d) ended without a word; it was at *", c.culprit, hostname(), procs[c.culprit].cmd.Process.Pid)
		if c.culprit == 0 { // the store is gone with it
			want = fmt.Sprintf("rank 0 on %s is gone, with the store at 127.0.0.1:*", hostname())
		}
		for rank, p := range procs {
			if rank != c.culprit {
				ends(t, p, begun, 5*time.Second, 1, want)
			}
		}
	})
}

// A process that is stopped is named by the others, and itself learns why it is alone when it goes on.
func TestAStoppedProcess(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second
	cases := []testCase{{"summing", 0}, {"summing", 1}, {"summing", 2}, {"computing", 1}, {"joining", 2}}
	some(t, cases, testCase.String, func(t *testing.T, c testCase) {
		procs := begin(t, 3, plan{Act: c.act, Culprit: c.culprit, Timeout: timeout}, nil)
		until(t, "there", procs[c.culprit])
		begun := time.Now()
		procs[c.culprit].kill(syscall.SIGSTOP)
		want := fmt.Sprintf("rank %d on %s has not been heard of for *s; it was at *", c.culprit, hostname())
		if c.culprit == 0 {
			want = fmt.Sprintf("rank 0 on %s does not answer, nor does the store at 127.0.0.1:*", hostname())
		}
		for rank, p := range procs {
			if rank != c.culprit {
				ends(t, p, begun, timeout+5*time.Second, 1, want)
			}
		}
	})
}

// Processes that are stopped all together, as by Ctrl-Z, go on together however long that took.
func TestAllAreStopped(t *testing.T) {
	t.Parallel()
	const timeout = 6 * time.Second
	procs := begin(t, 2, plan{Act: "interrupted", Timeout: timeout}, nil)
	until(t, "there", procs...)
	for _, p := range procs {
		p.kill(syscall.SIGSTOP)
	}
	time.Sleep(timeout) // longer than their patience
	for _, p := range procs {
		p.kill(syscall.SIGCONT)
	}
	time.Sleep(2 * every) // for beats, which would find fault
	procs[1].kill(syscall.SIGTERM)
	for _, p := range procs {
		ends(t, p, time.Now(), 5*time.Second, 130, "")
	}
}

// A process that fails tells the others why.
func TestAProcessThatFails(t *testing.T) {
	t.Parallel()
	some(t, everywhere(), testCase.String, func(t *testing.T, c testCase) {
		procs := begin(t, 3, plan{Act: c.act, Culprit: c.culprit, Timeout: 2 * time.Minute, Value: "no such file"}, nil)
		until(t, "there", procs[c.culprit])
		begun := time.Now()
		for rank, p := range procs {
			want := "no such file"
			if rank != c.culprit {
				want = fmt.Sprintf("rank %d on %s failed: no such file", c.culprit, hostname())
			}
			ends(t, p, begun, 5*time.Second, 1, want)
		}
	})
}

// One that lives and does not come is waited for as long as the timeout, and then told so itself.
func TestAProcessThatComputesForEver(t *testing.T) {
	t.Parallel()
	const timeout = 5 * time.Second
	some(t, []int{0, 2}, func(culprit int) string { return fmt.Sprint(culprit) }, func(t *testing.T, culprit int) {
		procs := begin(t, 3, plan{Act: "behind", Culprit: culprit, Timeout: timeout}, nil)
		for _, p := range procs {
			ends(t, p, time.Now(), timeout+5*time.Second, 1, fmt.Sprintf("rank %d on %s has not come to where the others are within 5s; it is at work without an end", culprit, hostname()))
		}
	})
}

// One that never comes is named when the timeout is over, also where it is killed meanwhile; rank 0 by its address.
func TestAProcessThatNeverComes(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second
	some(t, []int{0, 1, 2, -1, -2}, func(culprit int) string { return fmt.Sprint(culprit) }, func(t *testing.T, culprit int) {
		killed := culprit < 0 // rank 0 or 1 is
		if killed {
			culprit = -culprit - 1
		}
		procs := begin(t, 3, plan{Act: "before", Culprit: culprit, Timeout: timeout}, nil)
		until(t, "before", procs...)
		begun := time.Now()
		if killed {
			procs[culprit].kill(syscall.SIGKILL)
		}
		want := fmt.Sprintf("rank %d has not come within 4s; the store is at 127.0.0.1:*", culprit)
		if culprit == 0 {
			want = "rank 0 has not come within 4s: it does not keep the store at 127.0.0.1:* (a test): *"
		}
		for rank, p := range procs {
			if rank != culprit {
				ends(t, p, begun, timeout+5*time.Second, 1, want)
			}
		}
	})
}

// An interruption of one process is that of all, and no failure.
func TestAnInterruptionIsSharedByAll(t *testing.T) {
	t.Parallel()
	for culprit := range 3 {
		procs := begin(t, 3, plan{Act: "interrupted", Timeout: time.Minute}, nil)
		until(t, "there", procs...)
		begun := time.Now()
		procs[culprit].kill(syscall.SIGTERM)
		for _, p := range procs {
			ends(t, p, begun, 5*time.Second, 130, "")
		}
	}
}

func TestAPanicIsAFault(t *testing.T) {
	t.Parallel()
	procs := begin(t, 3, plan{Act: "panics", Culprit: 1, Timeout: time.Minute}, nil)
	begun := time.Now()
	for rank, p := range procs {
		if rank != 1 {
			ends(t, p, begun, 10*time.Second, 1, "rank 1 on "+hostname()+" failed: a fault of its own")
		}
	}
}
