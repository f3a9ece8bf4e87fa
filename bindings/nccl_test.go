package bindings_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gopeft/bindings"
)

// noGPU is one GPU that is not there: enough of CUDA's runtime for what comes before a GPU is touched.
const noGPU = `
int cudaGetDeviceCount(int* n) { *n = 1; return 0; }
int cudaGetDevice(int* device) { *device = 0; return 0; }
int cudaSetDevice(int device) { return device; }
`

// TestNCCLGroup makes and leaves NCCL's group where libtorch's CUDA libraries are, with or without a GPU: its classes are
// reached by the names of their constructors alone. GOPEFT_TEST_CUDA is the folder of libtorch_cuda.so.
func TestNCCLGroup(t *testing.T) {
	dir := os.Getenv("GOPEFT_TEST_CUDA")
	if dir == "" {
		t.Skip("GOPEFT_TEST_CUDA does not name a folder with libtorch_cuda.so: NCCL's group is not made here")
	}
	if os.Getenv("GOPEFT_TEST_NCCL") != "" {
		if err := bindings.Do(context.Background(), func(s *bindings.Scope) error { return ncclAlone(s, dir) }); err != nil {
			t.Fatal(err)
		}
		return
	}
	folder := t.TempDir()
	source, library := filepath.Join(folder, "nogpu.c"), filepath.Join(folder, "nogpu.so")
	if err := os.WriteFile(source, []byte(noGPU), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", library, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestNCCLGroup$", "-test.v")
	cmd.Env = append(os.Environ(), "GOPEFT_TEST_NCCL=1", "LD_PRELOAD="+library)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNCCLGroup") {
		t.Fatalf("%v: %s", err, out)
	}
}

// ncclAlone joins a group of one, twice, and leaves it.
func ncclAlone(s *bindings.Scope, dir string) error {
	if _, err := s.LoadCUDA(dir, ""); err != nil {
		return err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return err
	}
	for _, prefix := range []string{"first", "second"} {
		store, err := bindings.OpenStore(bindings.StoreOptions{Host: "127.0.0.1", Port: port, Serve: true, Prefix: prefix, Timeout: 10 * time.Second})
		if err != nil {
			return err
		}
		o := bindings.GroupOptions{Size: 1, Address: "127.0.0.1", Timeout: 10 * time.Second}
		group, err := bindings.JoinGroup(store, o)
		if err != nil {
			return err
		}
		if err := s.JoinNCCL(group, store, o); err != nil {
			return err
		}
		t := s.Full([]int64{3}, 2, bindings.Float, bindings.CPU) // what is on the CPU goes through Gloo as before
		if err := group.Sum(context.Background(), t); err != nil {
			return err
		}
		if err := group.Leave(); err != nil {
			return err
		}
		store.Close()
	}
	return nil
}
