package train

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"gopeft/bindings"
	"gopeft/model/fsutil"
)

// Machine is what a run computes on, in what precision, and with which means of speed.
type Machine struct {
	Device    bindings.Device
	Precision Precision
	Note      string // why a GPU is not used, "" if nothing is to be said
	Without   Levers
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
	dev, note, err := OpenDevice(s, c.Device)
	if err != nil {
		return Machine{}, err
	}
	precision, err := choose(c.AMP, dev)
	if err != nil {
		return Machine{}, err
	}
	c.Without.apply(s)
	s.SetThreads(Threads(c.Threads))
	s.SetDeterministic(c.Deterministic)
	s.AllowTF32(c.TF32)
	s.FlushDenormals(true)
	s.Seed(c.Seed)
	return Machine{dev, precision, note, c.Without}, nil
}

// OpenDevice reads --device, loading CUDA's libraries when a GPU is asked for. note says why auto leaves a GPU unused
// whose driver is there, "" if it does not.
func OpenDevice(s *bindings.Scope, name string) (dev bindings.Device, note string, err error) {
	if name != "auto" {
		dev, err = namedDevice(s, name)
		return dev, "", err
	}
	return autoDevice(bindings.HasDriver(), func() error {
		_, err := s.LoadCUDA("", kernelCache())
		return err
	})
}

// autoDevice is the first GPU where there is a driver and load succeeds, else the CPU.
func autoDevice(driver bool, load func() error) (dev bindings.Device, note string, err error) {
	if !driver {
		return bindings.CPU, "", nil // not even tried
	}
	if err := load(); err != nil {
		return bindings.CPU, fmt.Sprintf("on the CPU: there is an NVIDIA driver, but no GPU can be used: %v (`gopeft doctor` tells more)", err), nil
	}
	return bindings.CUDA(0), "", nil
}

func namedDevice(s *bindings.Scope, name string) (bindings.Device, error) {
	switch {
	case name == "cpu":
		return bindings.CPU, nil
	case name == "cuda" || strings.HasPrefix(name, "cuda:"):
		n := 0
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
		if n >= count {
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
