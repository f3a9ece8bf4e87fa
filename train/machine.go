package train

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/fsutil"
	"gopeft/train/dist"
)

// Machine is what a run computes on, in what precision, and with which means of speed.
type Machine struct {
	Device    bindings.Device
	Precision Precision
	Note      string // why a GPU is not used, or what else is not as it was asked for; "" if nothing is to be said
	Without   Levers
	Stream    bool        // frozen weights are left in their files: see HoldWeights
	Shard     bool        // processes hold them together: every pass is made by all of them
	Divide    bool        // and what is trained of them, with its gradients and the optimizer's state
	Group     *dist.Group // the processes that share the work; nil: this one alone
}

// Begin readies libtorch for training: device, precision, threads, determinism and seed.
func (c MachineSettings) Begin(s *bindings.Scope) (Machine, error) {
	return c.begin(s, ChoosePrecision)
}

// BeginInference is Begin where nothing is trained: a precision that is left open is fp32.
func (c MachineSettings) BeginInference(s *bindings.Scope) (Machine, error) {
	return c.begin(s, InferencePrecision)
}

func (c MachineSettings) begin(s *bindings.Scope, choose func(amp string, dev bindings.Device) (Precision, error)) (Machine, error) {
	m, err := c.open(s, choose)
	if err != nil {
		return m, err
	}
	c.Without.apply(s)
	s.SetDeterministic(c.Deterministic)
	s.AllowTF32(c.TF32)
	s.FlushDenormals(true)
	s.Seed(c.Seed)
	return m, nil
}

// OpenInference is BeginInference that readies nothing but the device and its threads: what is random, and what else is set
// for the whole process, stay as they are.
func (c MachineSettings) OpenInference(s *bindings.Scope) (Machine, error) {
	return c.open(s, InferencePrecision)
}

func (c MachineSettings) open(s *bindings.Scope, choose func(amp string, dev bindings.Device) (Precision, error)) (Machine, error) {
	dev, note, err := OpenDevice(s, c.Device, c.Group.LocalRank())
	if err != nil {
		return Machine{}, err
	}
	precision, err := choose(c.AMP, dev)
	if err != nil {
		return Machine{}, err
	}
	s.SetThreads(c.Cores())
	if c.Shard && c.Group == nil {
		note = joined(note, "--shard-frozen: there are no other processes to hold a part of the frozen weights")
	}
	return Machine{Device: dev, Precision: precision, Note: note, Without: c.Without, Stream: c.Stream, Shard: c.Shard && c.Group != nil, Group: c.Group}, nil
}

// OpenDevice reads --device, loading CUDA's libraries when a GPU is asked for. Of several processes on this machine each
// has a GPU of its own, by its number among them. note says why auto leaves a GPU unused whose driver is there, "" if it
// does not.
func OpenDevice(s *bindings.Scope, name string, process int) (dev bindings.Device, note string, err error) {
	if name != "auto" {
		dev, err = namedDevice(s, name, process)
		return dev, "", err
	}
	return autoDevice(bindings.HasDriver(), process, func() (int, error) { return s.LoadCUDA("", kernelCache()) })
}

// autoDevice is the process's GPU where there is a driver and load succeeds, else the CPU.
func autoDevice(driver bool, process int, load func() (int, error)) (dev bindings.Device, note string, err error) {
	if !driver {
		return bindings.CPU, "", nil // not even tried
	}
	count, err := load()
	if err != nil {
		return bindings.CPU, fmt.Sprintf("on the CPU: there is an NVIDIA driver, but no GPU can be used: %v (`gopeft doctor` tells more)", err), nil
	}
	if process >= count {
		return 0, "", tooFewGPUs(process, count)
	}
	return bindings.CUDA(process), "", nil
}

func tooFewGPUs(process, count int) error {
	return fmt.Errorf("process %d of this machine, counted from 0, finds %d GPUs: each takes one of its own (--device cpu uses none)", process, count)
}

func namedDevice(s *bindings.Scope, name string, process int) (bindings.Device, error) {
	switch {
	case name == "cpu":
		return bindings.CPU, nil
	case name == "cuda" || strings.HasPrefix(name, "cuda:"):
		n := process
		if index, ok := strings.CutPrefix(name, "cuda:"); ok {
			var err error
			if n, err = strconv.Atoi(index); err != nil || n < 0 {
				return 0, Usage("--device %q: want cuda:N with a device number", name)
			}
		}
		count, err := s.LoadCUDA("", kernelCache())
		if err != nil {
			return 0, fmt.Errorf("--device %s: %w (`gopeft doctor` tells more)", name, err)
		}
		switch {
		case n >= count && name == "cuda":
			return 0, tooFewGPUs(process, count)
		case n >= count:
			return 0, fmt.Errorf("--device %s: there are %d GPUs", name, count)
		}
		return bindings.CUDA(n), nil
	}
	return 0, Usage("--device %q is not known (auto, cpu, cuda, cuda:N)", name)
}

// kernelCache is the folder of compiled GPU kernels, "" where there is no folder for what gopeft caches.
func kernelCache() string {
	home, err := fsutil.Home()
	if err != nil {
		return ""
	}
	return filepath.Join(home, "gpu-kernels")
}

// Threads is how many CPU threads a setting asks for: 0 stands for all cores.
func Threads(n int) int {
	if n == 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}

// Cores is how many CPU threads a process uses: those asked for, or its share of the machine's.
func (c MachineSettings) Cores() int {
	if c.Threads == 0 {
		return max(1, Threads(0)/c.Group.Local())
	}
	return c.Threads
}

// joined are two remarks of which each may be "".
func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// Join makes the group of the processes, each of which has m with its weights where they are to be.
func (c Machine) Join(ctx context.Context, s *bindings.Scope, m model.Model) error {
	kind := "CPU"
	if c.Device.IsCUDA() {
		kind = "GPU"
	}
	if err := c.Group.Agree(ctx, "kind of device", kind+", "+c.Precision.DType.String()); err != nil {
		return err
	}
	share := "all of them"
	if n := m.Shared(); n > 0 {
		share = fmt.Sprintf("%d bytes", n)
	}
	if err := c.Group.Agree(ctx, "share of the frozen weights", share); err != nil {
		return err
	}
	return c.Group.Join(ctx, s, c.Device)
}
