package nvrtc

/*
#cgo CFLAGS: -D_GNU_SOURCE
#cgo LDFLAGS: -ldl
#include <stdlib.h>
#include "nvrtc.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"unsafe"
)

// LeastArchitecture is the oldest that the kernels are for: earlier GPUs cannot convert to bf16.
const LeastArchitecture = 80

// Compiler is NVRTC. It stays loaded as long as the process.
type Compiler struct {
	c            *C.compiler
	path         string
	major, minor int
}

// names are those of the library in NVIDIA's packages and in libtorch's archives, of CUDA 13 and 12.
var names = []string{"libnvrtc.so.13", "libnvrtc.so.12"}

// Find is the first NVRTC in the folders, then that of the system's paths.
func Find(folders ...string) (*Compiler, error) {
	for _, folder := range folders {
		for _, name := range names {
			path := filepath.Join(folder, name)
			if _, err := os.Stat(path); err == nil {
				return Open(path)
			}
		}
	}
	var last error
	for _, name := range names {
		c, err := Open(name)
		if err == nil {
			return c, nil
		}
		last = err
	}
	return nil, last
}

// Open loads the library at path.
func Open(path string) (*Compiler, error) {
	c := &Compiler{path: path}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var major, minor C.int
	if err := failure(C.compiler_open(name, &c.c, &major, &minor)); err != nil {
		return nil, err
	}
	c.major, c.minor = int(major), int(minor)
	return c, nil
}

// Version is e.g. "13.0".
func (c *Compiler) Version() string { return fmt.Sprintf("%d.%d", c.major, c.minor) }

// Target is what code is made for.
type Target struct {
	Architecture int  // 80 for compute capability 8.0
	PTX          bool // an assembly that the driver translates, for this architecture and all later ones
}

// String is the compiler's name for it.
func (t Target) String() string {
	if t.PTX {
		return fmt.Sprintf("compute_%d", t.Architecture)
	}
	return fmt.Sprintf("sm_%d", t.Architecture)
}

// TargetFor is what serves a GPU of a compute capability: its own code, or, where it is newer than the compiler, PTX.
func (c *Compiler) TargetFor(major, minor int) (Target, error) {
	a := 10*major + minor
	switch {
	case a < LeastArchitecture:
		return Target{}, fmt.Errorf("kernels for GPUs are for compute capability 8.0 and later, this one has %d.%d", major, minor)
	case C.compiler_supports(c.c, C.int(a)) != 0:
		return Target{Architecture: a}, nil
	}
	return Target{Architecture: LeastArchitecture, PTX: true}, nil
}

// Usage is what a kernel takes: registers, and bytes of memory for what did not fit in them.
type Usage struct {
	Kernel               string
	Registers            int
	Stack, Stores, Loads int // the stack frame, and spills written and read
}

// options are the compiler's. Products and sums are joined only where the kernels say so, so that results are the same
// as elsewhere.
func options(t Target) []string {
	return []string{
		"--gpu-architecture=" + t.String(), "--std=c++17", "--fmad=false", "--device-as-default-execution-space", "--ptxas-options=-v",
	}
}

// Compile makes the code of a source, and tells what its kernels take: nothing where it is PTX.
func (c *Compiler) Compile(source string, t Target) (code []byte, usage []Usage, err error) {
	text := C.CString(source)
	defer C.free(unsafe.Pointer(text))
	var list []*C.char
	for _, o := range options(t) {
		list = append(list, C.CString(o))
	}
	defer func() {
		for _, o := range list {
			C.free(unsafe.Pointer(o))
		}
	}()
	var made unsafe.Pointer
	var bytes C.size_t
	var log *C.char
	ptx := C.int(0)
	if t.PTX {
		ptx = 1
	}
	err = failure(C.compiler_compile(c.c, text, unsafe.SliceData(list), C.int(len(list)), ptx, &made, &bytes, &log))
	defer C.free(unsafe.Pointer(log))
	defer C.free(made)
	if err != nil {
		return nil, nil, fmt.Errorf("%w for %s with NVRTC %s: %s", err, t, c.Version(), C.GoString(log))
	}
	if !t.PTX {
		if usage, err = usages(C.GoString(log)); err != nil {
			return nil, nil, err
		}
	}
	return C.GoBytes(made, C.int(bytes)), usage, nil
}

var report = regexp.MustCompile(`Compiling entry function '(\w+)'[^\n]*\n[^\n]*\n[^\n]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n[^\n]*Used (\d+) registers`)

// usages reads the assembler's report.
func usages(log string) ([]Usage, error) {
	var all []Usage
	for _, m := range report.FindAllStringSubmatch(log, -1) {
		u := Usage{Kernel: m[1]}
		for i, to := range []*int{&u.Stack, &u.Stores, &u.Loads, &u.Registers} {
			n, err := strconv.Atoi(m[2+i])
			if err != nil {
				return nil, fmt.Errorf("kernel %s: %w", u.Kernel, err)
			}
			*to = n
		}
		all = append(all, u)
	}
	return all, nil
}

// failure takes over a C string.
func failure(message *C.char) error {
	if message == nil {
		return nil
	}
	defer C.free(unsafe.Pointer(message))
	return errors.New(C.GoString(message))
}
