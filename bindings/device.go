package bindings

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"gopeft/bindings/csrc"
	"gopeft/bindings/csrc/nvrtc"
)

// SetThreads sets how many threads one operation uses, at least 1.
func (s *Scope) SetThreads(n int) { s.check("set threads", csrc.SetThreads(n)) }

// Threads is how many threads one operation uses.
func (s *Scope) Threads() int { return csrc.Threads() }

// SetDeterministic makes libtorch choose deterministic algorithms, or fail where there is none.
func (s *Scope) SetDeterministic(on bool) { csrc.SetDeterministic(on) }

// FlushDenormals makes the CPU treat denormal numbers as zero.
func (s *Scope) FlushDenormals(on bool) { csrc.FlushDenormal(on) }

// KeepLargeBlocks chooses what happens to large blocks of host memory when tensors free them: they are kept for later
// tensors (the default), or returned to the kernel. Never more is kept than was in use at one time.
func (s *Scope) KeepLargeBlocks(on bool) { csrc.KeepLargeBlocks(on) }

// AllowTF32 lets GPUs round fp32 matrix products to TF32.
func (s *Scope) AllowTF32(on bool) { csrc.CUDAAllowTF32(on) }

// Version is libtorch's version, e.g. "2.11.0".
func Version() string { return csrc.TorchVersion() }

// CPUCapability is the instruction set libtorch's own kernels use, e.g. "AVX512".
func CPUCapability() string { return csrc.CPUCapability() }

// CPUPath is the instruction set that our own kernels use: "avx512" or "avx2", of which GOPEFT_CPU in the environment
// may name a lesser one than the CPU's best, or "none" where libtorch computes alone.
func CPUPath() string { return csrc.CPUPath() }

// LibraryFolder is the folder libtorch was loaded from.
func LibraryFolder() string { return filepath.Dir(csrc.LibraryPath()) }

// CXX11ABI reports which of GCC's two string types libtorch was built with.
func CXX11ABI() bool { return csrc.IsCXX11ABI() }

// HasDriver reports whether there is an NVIDIA driver: a device of its own, or that of Windows' subsystem for Linux.
func HasDriver() bool {
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	return exists("/dev/nvidiactl") || exists("/dev/dxg") && exists("/usr/lib/wsl/lib/libcuda.so.1")
}

// LoadCUDA makes GPUs usable, before the first tensor is made, by loading libtorch's CUDA part from the
// folder dir ("" searches the rpath). Kernels that are compiled for them are kept in the folder cache ("" keeps none,
// so that each process compiles them). It returns how many GPUs there are; with the libraries present but no
// driver or device that is an error that says so.
func (s *Scope) LoadCUDA(dir, cache string) (int, error) {
	s.buf.kernels.cache = nvrtc.Cache{Folder: cache}
	path := "libtorch_cuda.so"
	if dir != "" {
		path = strings.TrimSuffix(dir, "/") + "/" + path
	}
	if msg := csrc.LoadLibrary(path); msg != "" {
		return 0, fmt.Errorf("load CUDA: %s", firstLine(msg))
	}
	var n int32
	if msg := csrc.CUDACount(&n); msg != "" {
		return 0, fmt.Errorf("count GPUs: %s", firstLine(msg))
	}
	if n > 0 {
		csrc.CUDANoCuDNNAttention()
		return int(n), nil
	}
	// Zero devices has many causes; the first CUDA tensor names the true one.
	err := tryCUDA(s)
	if err == nil {
		err = fmt.Errorf("no device is visible")
	}
	return 0, fmt.Errorf("load CUDA: %w", err)
}

func tryCUDA(s *Scope) (err error) {
	c := s.Child()
	defer c.Close()
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*OpError)
			if !ok {
				panic(r)
			}
			err = e
		}
	}()
	c.Zeros([]int64{1}, Float, CUDA(0))
	return nil
}

// CUDACapability is a GPU's compute capability, 8 and 0 for an A100. LoadCUDA comes first.
func CUDACapability(dev Device) (major, minor int, err error) {
	var a, b int32
	if msg := csrc.CUDACapability(dev.index(), &a, &b); msg != "" {
		return 0, 0, fmt.Errorf("compute capability of %s: %s", dev, firstLine(msg))
	}
	return int(a), int(b), nil
}

// CUDAPeak is the most bytes of a GPU's memory that this process had allocated at a time, -1 where libtorch (before
// 2.9) does not tell.
func CUDAPeak(dev Device) (bytes int64, err error) {
	if msg := csrc.CUDAPeak(dev.index(), &bytes); msg != "" {
		return 0, fmt.Errorf("memory of %s: %s", dev, firstLine(msg))
	}
	return bytes, nil
}

// Synchronize waits for a GPU's queued work; on the CPU there is none.
func (s *Scope) Synchronize(dev Device) {
	if dev.IsCUDA() {
		s.check("synchronize", csrc.CUDASynchronize(dev.index()))
	}
}
