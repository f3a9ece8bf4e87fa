package dist

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"gopeft/bindings"
	"gopeft/train/launch"
)

func TestProcessesEndWithoutErrors(t *testing.T) {
	t.Parallel()
	many := make([]int, 25)
	type run struct {
		act   string
		size  int
		ports []int
	}
	some(t, []run{{"share", 3, nil}, {"together", 3, nil}, {"leave", 2, many}, {"leave", 3, many}}, func(c run) string { return fmt.Sprint(c.act, " ", c.size) }, func(t *testing.T, c run) {
		procs := begin(t, c.size, plan{Act: c.act, Timeout: time.Minute, Ports: c.ports, Culprit: -1}, func(rank int, p *plan) { p.Value = fmt.Sprintf("rank %d's", rank) })
		for _, p := range procs {
			ends(t, p, time.Now(), time.Minute, 0, "")
		}
	})
}

// served is a store that the test keeps, as torchrun does.
func served(t *testing.T) launch.World {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	store, err := bindings.OpenStore(bindings.StoreOptions{Host: "127.0.0.1", Port: port, Serve: true, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return launch.World{Served: true, Port: port}
}

// With a store of the launcher's, attempts share it, and rank 0 is one of many.
func TestALaunchersStore(t *testing.T) {
	t.Parallel()
	w := served(t)
	for attempt := range 2 {
		w.Attempt = fmt.Sprint(attempt)
		for _, p := range begin(t, 3, plan{World: w, Act: "together", Timeout: time.Minute}, nil) {
			ends(t, p, time.Now(), time.Minute, 0, "")
		}
	}
	w.Attempt = "killed"
	procs := begin(t, 3, plan{World: w, Act: "summing", Timeout: time.Minute}, nil)
	until(t, "there", procs[0])
	begun := time.Now()
	procs[0].kill(syscall.SIGKILL)
	for _, p := range procs[1:] {
		ends(t, p, begun, 5*time.Second, 1, "rank 0 on "+hostname()+" (process *) ended without a word; it was at *")
	}
}

func TestWhatHasToBeTheSame(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(rank int, p *plan)
		want   string
	}{
		"another value": {func(rank int, p *plan) { p.Value = []string{"red", "red", "blue"}[rank] }, "rank 2 on %[1]s has other colour than rank 0 on %[1]s: blue, not red"},
		"rank 0's":      {func(rank int, p *plan) { p.Value = []string{"red", "blue", "blue"}[rank] }, "rank 1 on %[1]s has other colour than rank 0 on %[1]s: blue, not red"},
		"a long value": {func(rank int, p *plan) { p.Value = strings.Repeat("x\n", 500*rank) + "y" },
			"rank 1 on %[1]s has other colour than rank 0 on %[1]s: " + strings.Repeat("x ", 150) + " …, not y"},
		"another build": {func(rank int, p *plan) { p.Build = []string{"v1", "v2", "v1"}[rank] }, "rank 1 on %[1]s runs v2, rank 0 on %[1]s v1: all must be the same"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			procs := begin(t, 3, plan{Act: "agree", Timeout: time.Minute}, c.change)
			for _, p := range procs {
				ends(t, p, time.Now(), 5*time.Second, 1, fmt.Sprintf(c.want, hostname()))
			}
		})
	}
}

func TestOwnAddress(t *testing.T) {
	t.Setenv("GLOO_SOCKET_IFNAME", "")
	os.Unsetenv("GLOO_SOCKET_IFNAME")
	for _, c := range []struct {
		world      launch.World
		ifname     string
		want, fail string
	}{
		{launch.World{Size: 2, LocalSize: 2, Host: "no.such.host.invalid", Port: 1}, "", "127.0.0.1", ""},
		{launch.World{Size: 4, LocalSize: 2, Host: "127.0.0.1", Port: 1}, "", "", "MASTER_ADDR 127.0.0.1 is this machine's loopback address"},
		{launch.World{Size: 4, LocalSize: 2, Host: "localhost", Port: 1}, "", "", "MASTER_ADDR localhost is this machine's loopback address"},
		{launch.World{Size: 4, LocalSize: 2, Host: "localhost", Port: 1}, "lo", "", ""},
		{launch.World{Size: 4, LocalSize: 2, Host: "no.such.host.invalid", Port: 1}, "", "", "MASTER_ADDR: "},
	} {
		t.Setenv("GLOO_SOCKET_IFNAME", c.ifname)
		got, err := ownAddress(c.world)
		if got != c.want || (err != nil) != (c.fail != "") || err != nil && !strings.HasPrefix(err.Error(), c.fail) {
			t.Errorf("%+v: %q, %v", c.world, got, err)
		}
	}
}

func TestStartOf(t *testing.T) {
	if me := startOf(os.Getpid()); me == "" || me != startOf(os.Getpid()) {
		t.Errorf("this process has begun at %q", me)
	}
	if got := startOf(1 << 30); got != "" {
		t.Errorf("one that is not there has begun at %q", got)
	}
	if name := machine(); name == "" || name != machine() {
		t.Errorf("the machine is %q", name)
	}
}
