package train

import (
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
	Note      string // why a GPU is not used, "" if nothing is to be said
	Without   Levers
	Stream    bool        // frozen weights are left in their files: see StreamWeights
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
	dev, note, err := OpenDevice(s, c.Device, c.Group.LocalRank())
	if err != nil {
		return Machine{}, err
	}
	if err := CheckStreamDevice(c.Stream, dev); err != nil {
		return Machine{}, err
	}
	precision, err := choose(c.AMP, dev)
	if err != nil {
		return Machine{}, err
	}
	c.Without.apply(s)
	s.SetThreads(c.Cores())
	s.SetDeterministic(c.Deterministic)
	s.AllowTF32(c.TF32)
	s.FlushDenormals(true)
	s.Seed(c.Seed)
	return Machine{dev, precision, note, c.Without, c.Stream, c.Group}, nil
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

// CheckStreamDevice refuses to stream where weights are copied to a GPU.
func CheckStreamDevice(stream bool, dev bindings.Device) error {
	if stream && dev.IsCUDA() {
		return Usage("--stream-weights streams on the CPU: give --device cpu, or leave it out")
	}
	return nil
}

// CheckStream says before the model in folder is loaded why its weights, which are to be held as b, cannot be streamed:
// loading might take more memory than there is.
func (c Machine) CheckStream(b Base, folder string) error {
	if !c.Stream {
		return nil
	}
	file, err := model.FileDType(folder)
	if err != nil {
		return err
	}
	if _, made := b.Quantise.Kind(); made {
		return Usage("--stream-weights uses weights as their files have them, --quantize %s makes others in memory: quantise the files with `gopeft quantize`, or leave one of the two out", b.Quantise)
	}
	if b.DType != file {
		return Usage("--stream-weights uses weights as their files have them, in %s, and they are to be held in %s: --base-dtype %s streams them",
			BaseDTypeName(file), BaseDTypeName(b.DType), BaseDTypeName(file))
	}
	return nil
}

// StreamWeights streams the frozen weights of m, to which its method is attached, if that is asked for; what it says is
// for people. recompute tells whether activations are not kept for a backward pass, or there is none.
func (c Machine) StreamWeights(m model.Model, recompute bool) (note string, err error) {
	if !c.Stream {
		return "", nil
	}
	r, err := m.Stream()
	if err != nil {
		return "", err
	}
	const mib = 1 << 20
	kernels := bindings.CPUPath() != "none" && c.Without.Use(LeverKernels)
	read := r.DType == bindings.Float || r.DType == bindings.BFloat16
	switch {
	case r.Streamed+r.Held == 0:
		return "", Usage("--stream-weights streams the frozen weights of the blocks, and all of them are trained")
	case r.Streamed < r.Held:
		return "", Usage("--stream-weights: %s has its weights in files that cannot be used in place: save it as safetensors", m.Path())
	case r.DType != 0 && r.DType != c.Precision.DType && !recompute && !(read && kernels):
		return "", Usage("--stream-weights: a product casts each weight from %s, and the backward pass keeps the casts of all blocks: --checkpoint-activations makes them anew",
			BaseDTypeName(r.DType))
	}
	note = fmt.Sprintf("streaming %d MiB of the blocks' weights from their files", r.Streamed/mib)
	if r.Held > 0 {
		note += fmt.Sprintf("; %d MiB, which are not in the files as they are used, stay in memory", (r.Held+mib-1)/mib)
	}
	return note, nil
}
