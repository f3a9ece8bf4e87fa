package bindings_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"gopeft/bindings"
)

// rank is a process of a group that a test has started, as it sees itself.
type rank struct {
	Rank, Size, Port int
	Case             string

	store *bindings.Store
	group *bindings.Group
}

// options are those of the store that rank 0 keeps on a socket which it has inherited.
func (r *rank) options(prefix string) bindings.StoreOptions {
	o := bindings.StoreOptions{Host: "127.0.0.1", Port: r.Port, Prefix: prefix, Timeout: time.Minute}
	if r.Rank == 0 {
		o.Serve, o.Listen = true, 3 // the first of ExtraFiles
	}
	return o
}

// asRank joins a group, runs the cases of a test, and says which of them failed.
func asRank(plan string) (code int) {
	r := &rank{}
	if err := json.Unmarshal([]byte(plan), r); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	err := func() (err error) {
		if r.store, err = bindings.OpenStore(r.options("test/")); err != nil {
			return err
		}
		if r.group, err = bindings.JoinGroup(r.store, bindings.GroupOptions{Rank: r.Rank, Size: r.Size, Address: "127.0.0.1", Timeout: time.Minute}); err != nil {
			return err
		}
		cases := groupCases
		if r.Case != "" {
			cases = []groupCase{lonelyCase}
		}
		var failed []error
		for _, c := range cases {
			base := bindings.Live()
			if err := bindings.Do(context.Background(), func(s *Scope) error { return c.run(s, r) }); err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", c.name, err))
			}
			if n := bindings.Live() - base; n != 0 {
				failed = append(failed, fmt.Errorf("%s left %d tensors alive", c.name, n))
			}
		}
		return errors.Join(append(failed, r.group.Leave())...)
	}()
	if err != nil {
		fmt.Fprintf(os.Stderr, "rank %d: %v\n", r.Rank, err)
		return 1
	}
	r.meetAgain("gone", r.Rank != 0) // whoever keeps the store is the last to go
	r.store.Close()
	return 0
}

// meetAgain tells the others that this rank is here, and waits for them unless it goes on.
func (r *rank) meetAgain(key string, goesOn bool) {
	_ = r.store.Set(fmt.Sprint(key, r.Rank), nil)
	for other := 0; other < r.Size && !goesOn; other++ {
		for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(time.Millisecond) {
			if _, ok, err := r.store.Get(fmt.Sprint(key, other)); ok || err != nil {
				break
			}
		}
	}
}

// inRanks runs the cases in size processes, which have to succeed and to say nothing.
func inRanks(t *testing.T, size int, what string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := listener.(*net.TCPListener).File()
	if err := errors.Join(err, listener.Close()); err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	said := make([]bytes.Buffer, size)
	var wait sync.WaitGroup
	for i := range size {
		plan, err := json.Marshal(rank{Rank: i, Size: size, Port: listener.Addr().(*net.TCPAddr).Port, Case: what})
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), "GOPEFT_TEST_RANK="+string(plan), "OMP_NUM_THREADS=1")
		cmd.Stdout, cmd.Stderr = &said[i], &said[i]
		if i == 0 {
			cmd.ExtraFiles = []*os.File{socket}
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			if err := cmd.Wait(); err != nil || said[i].Len() > 0 {
				t.Errorf("rank %d of %d: %v, %s", i, size, err, said[i].String())
			}
		})
	}
	_ = socket.Close() // rank 0's alone from here on
	wait.Wait()
}

func TestGroups(t *testing.T) {
	for _, size := range []int{2, 3} {
		t.Run(fmt.Sprint(size), func(t *testing.T) { t.Parallel(); inRanks(t, size, "") })
	}
}

// An operation in which the others never take part ends with its context, and the process can go on without the group.
func TestAnOperationEndsWithItsContext(t *testing.T) { inRanks(t, 2, lonelyCase.name) }

var errEnough = errors.New("enough")

var lonelyCase = groupCase{"lonely", func(s *Scope, r *rank) error {
	defer r.meetAgain("enough", r.Rank == 0) // the others' end would end it too
	if r.Rank != 0 {
		return nil
	}
	ctx, stop := context.WithCancelCause(context.Background())
	defer time.AfterFunc(50*time.Millisecond, func() { stop(errEnough) }).Stop()
	begun := time.Now()
	if err := r.group.Sum(ctx, s.Scalar(1, Float, CPU)); !errors.Is(err, errEnough) || time.Since(begun) > 20*time.Second {
		return fmt.Errorf("it ended with %w after %s", err, time.Since(begun))
	}
	return nil
}}

func TestStoresThatCannotBeOpened(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	taken := bindings.StoreOptions{Host: "127.0.0.1", Port: port, Serve: true, Timeout: time.Second}
	if _, err := bindings.OpenStore(taken); err == nil || !strings.Contains(err.Error(), "EADDRINUSE") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a port that is taken: %v", err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	nobody := bindings.StoreOptions{Host: "127.0.0.1", Port: port, Timeout: time.Second}
	if _, err := bindings.OpenStore(nobody); err == nil || strings.Contains(err.Error(), "\n") || time.Since(begun) > 20*time.Second {
		t.Errorf("nobody keeps it: %v after %s", err, time.Since(begun))
	}
}

func TestStore(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	socket, err := listener.(*net.TCPListener).File()
	if err := errors.Join(err, listener.Close()); err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	o := bindings.StoreOptions{Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, Prefix: "a", Timeout: 10 * time.Second, Serve: true, Listen: int(socket.Fd())}
	server, err := bindings.OpenStore(o)
	if err != nil {
		t.Fatal(err)
	}
	o.Serve = false
	client, err := bindings.OpenStore(o)
	if err != nil {
		t.Fatal(err)
	}
	o.Prefix = "b"
	other, err := bindings.OpenStore(o)
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string][]byte{"word": []byte("value"), "empty": {}, "none": nil, "bytes": {0, 255, 10, 0}, "long": bytes.Repeat([]byte("x"), 1<<20), "a key/with marks": []byte("ü")} {
		if err := client.Set(key, []byte("before")); err != nil {
			t.Error(err)
		}
		if err := client.Set(key, value); err != nil {
			t.Error(err)
		}
		for _, s := range []*bindings.Store{client, server} { // once the first has its answer, the value has arrived
			if got, ok, err := s.Get(key); err != nil || !ok || !bytes.Equal(got, value) {
				t.Errorf("%s: %.20q, %t, %v", key, got, ok, err)
			}
		}
		if got, ok, err := other.Get(key); err != nil || ok || got != nil {
			t.Errorf("%s, under another prefix: %q, %t, %v", key, got, ok, err)
		}
	}
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for n := range 50 {
				key, value := fmt.Sprint("many/", i), fmt.Sprint(n)
				if err := client.Set(key, []byte(value)); err != nil {
					t.Error(err)
				}
				if got, ok, err := client.Get(key); err != nil || !ok || string(got) != value {
					t.Errorf("%q, %t, %v", got, ok, err)
				}
			}
		})
	}
	wait.Wait()
	other.Close()
	other.Close()
	_, _, err = other.Get("word")
	for what, err := range map[string]error{"Get": err, "Set": other.Set("word", nil)} {
		if !errors.Is(err, bindings.ErrStoreClosed) {
			t.Errorf("%s of a closed store: %v", what, err)
		}
	}
	if _, err := bindings.JoinGroup(other, bindings.GroupOptions{Size: 1}); !errors.Is(err, bindings.ErrStoreClosed) {
		t.Errorf("a group at a closed store: %v", err)
	}
	server.Close()
	if _, _, err := client.Get("word"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("the store is gone: %v", err)
	}
	client.Close()
}
