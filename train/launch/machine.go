package launch

import (
	"io/fs"
	"regexp"
	"runtime"
	"strings"
)

// Machine is what the number of processes is chosen by.
type Machine struct {
	GPUs  int // of NVIDIA that processes may use
	Cores int // without the second threads of a core
}

// ThisMachine counts without asking a driver, which would take memory on each GPU. root is the machine's root folder.
func ThisMachine(root fs.FS, lookup func(string) (string, bool)) (Machine, error) {
	gpus, err := gpus(root, lookup)
	if err != nil {
		return Machine{}, err
	}
	cores, err := cores(root)
	return Machine{GPUs: gpus, Cores: cores}, err
}

// gpus counts the driver's devices, or those of them that CUDA_VISIBLE_DEVICES names.
func gpus(root fs.FS, lookup func(string) (string, bool)) (int, error) {
	names, err := fs.Glob(root, "dev/nvidia[0-9]*")
	if err != nil || len(names) == 0 {
		return 0, err
	}
	chosen, set := lookup("CUDA_VISIBLE_DEVICES")
	if !set { // an empty one hides them all
		return len(names), nil
	}
	n := 0
	for name := range strings.SplitSeq(chosen, ",") {
		if !visible.MatchString(strings.TrimSpace(name)) { // CUDA stops there too
			break
		}
		n++
	}
	return n, nil
}

// visible is a device as CUDA_VISIBLE_DEVICES names it: a number, or an identifier.
var visible = regexp.MustCompile(`^(\d+|GPU-.*|MIG-.*)$`)

// cores counts the physical cores, at most as many as this process may use at a time.
func cores(root fs.FS) (int, error) {
	lists, err := fs.Glob(root, "sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list")
	if err != nil {
		return 0, err
	}
	physical := map[string]bool{}
	for _, list := range lists {
		raw, err := fs.ReadFile(root, list)
		if err != nil {
			return 0, err
		}
		physical[strings.TrimSpace(string(raw))] = true
	}
	n := runtime.GOMAXPROCS(0)
	if len(physical) > 0 {
		n = min(n, len(physical))
	}
	return n, nil
}
