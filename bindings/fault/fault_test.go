package fault_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gopeft/bindings/fault"
)

func ExampleGuard() {
	done := make(chan error)
	go func() { done <- fault.Guard(func() error { panic("no such case") }) }()
	fmt.Println(<-done)
	// Output: panic: no such case
}

func TestGuard(t *testing.T) {
	own := errors.New("own")
	if err := fault.Guard(func() error { return own }); err != own {
		t.Errorf("got %v", err)
	}
	if err := fault.Guard(func() error { return nil }); err != nil {
		t.Errorf("got %v", err)
	}
	var inner error
	err := fault.Guard(func() error {
		inner = fault.Guard(func() error { var list []int; _ = list[len(os.Args)]; return nil })
		panic(inner)
	})
	if p := (*fault.Panic)(nil); !errors.As(err, &p) || err != inner || !strings.Contains(string(p.Stack), "TestGuard") {
		t.Errorf("got %#v, inside %#v", err, inner)
	}
	var none *int
	if err := fault.Guard(func() error { *none = 1; return nil }); errors.Is(err, fault.ErrMapping) || !errors.As(err, new(*fault.Panic)) {
		t.Errorf("a nil pointer: %v", err)
	}
}

func TestGuardOfMappedMemory(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 16); err != nil {
		t.Fatal(err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, 1<<16, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(data) }()
	if err := f.Truncate(10); err != nil {
		t.Fatal(err)
	}
	sum := byte(0)
	if err := fault.Guard(func() error { sum += data[1<<15]; return nil }); !errors.Is(err, fault.ErrMapping) {
		t.Errorf("got %v", err)
	}
}
