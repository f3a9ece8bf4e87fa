package bindings

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"unsafe"

	"gopeft/bindings/csrc"
	"gopeft/bindings/csrc/nvrtc"
)

// compiledKernels are the GPU kernels that NVRTC compiles, those of a kind at a time when they are first needed.
type compiledKernels struct {
	off      bool // see SetCompiled
	cache    nvrtc.Cache
	compiler *nvrtc.Compiler
	missing  error // why there is no compiler
	loaded   map[kernelSet]bool
}

// kernelSet is what is compiled and loaded together.
type kernelSet struct {
	group  nvrtc.Group
	device Device
	dtype  DType
}

// elements are the dtypes that there are kernels for.
var elements = map[DType]nvrtc.Element{Float: nvrtc.Float, BFloat16: nvrtc.BFloat16, Half: nvrtc.Half}

// SetCompiled chooses between the GPU kernels that are compiled when a GPU is there (the default) and those of libtorch's.
// It holds for all scopes until it is set again, and returns what it was.
func (s *Scope) SetCompiled(on bool) (was bool) {
	was, s.buf.kernels.off = !s.buf.kernels.off, !on
	return was
}

// compiled reports whether compiled kernels serve these tensors: they are on one GPU and of one dtype. Where the kernels
// are not there yet, it gets them; what prevents that is logged once, and libtorch's own kernels do the work.
func (s *Scope) compiled(g nvrtc.Group, x Tensor, others ...Tensor) bool {
	if !s.compilable(x.Device()) {
		return false
	}
	device, dtype := x.Device(), x.DType()
	for _, t := range others {
		if t.Device() != device || t.DType() != dtype {
			return false
		}
	}
	return s.compiledOn(device, dtype, g)
}

// compiledOn is compiled for tensors of a dtype on a device.
func (s *Scope) compiledOn(device Device, dtype DType, g nvrtc.Group) bool {
	return s.compilable(device) && s.buf.kernels.get(kernelSet{g, device, dtype})
}

func (s *Scope) compilable(device Device) bool {
	return device.IsCUDA() && !s.buf.composed && !s.buf.kernels.off
}

// get reports whether a set is loaded, after trying to load it if nobody has.
func (k *compiledKernels) get(set kernelSet) bool {
	if ready, tried := k.loaded[set]; tried {
		return ready
	}
	err := k.load(set)
	if err != nil {
		slog.Warn("libtorch's kernels are used in place of compiled ones", "group", set.group, "device", set.device, "dtype", set.dtype, "reason", err)
	}
	if k.loaded == nil {
		k.loaded = map[kernelSet]bool{}
	}
	k.loaded[set] = err == nil
	return err == nil
}

func (k *compiledKernels) load(set kernelSet) error {
	element, ok := elements[set.dtype]
	if !ok {
		return fmt.Errorf("there are none for %s", set.dtype)
	}
	if k.compiler == nil && k.missing == nil {
		k.compiler, k.missing = nvrtc.Find(compilerFolders(LibraryFolder())...)
	}
	if k.missing != nil {
		return k.missing
	}
	major, minor, err := CUDACapability(set.device)
	if err != nil {
		return err
	}
	target, err := k.compiler.TargetFor(major, minor)
	if err != nil {
		return err
	}
	code, warn, err := k.cache.Code(k.compiler, nvrtc.Source(set.group, element), target)
	if warn != nil {
		slog.Warn("compiled kernels are not kept", "reason", warn)
	}
	if err != nil {
		return err
	}
	return loadKernels(set, code)
}

func loadKernels(set kernelSet, code []byte) error {
	message := csrc.KernelsLoad(set.device.index(), int(set.dtype), unsafe.Pointer(unsafe.SliceData(code)))
	runtime.KeepAlive(code)
	if message != "" {
		return fmt.Errorf("load: %s", firstLine(message))
	}
	return nil
}

// compilerFolders are where NVRTC lies beside libtorch in folder: in NVIDIA's Python packages of CUDA 13 and 12, which
// `make setup CUDA=1` fetches too, or in the archive's own.
func compilerFolders(folder string) []string {
	packages := filepath.Join(folder, "..", "..", "nvidia")
	return []string{filepath.Join(packages, "cu13", "lib"), filepath.Join(packages, "cuda_nvrtc", "lib"), folder}
}

// RotateBoth is Rotate of queries and of keys, which may have fewer heads.
func (s *Scope) RotateBoth(q, k, cos, sin Tensor) (Tensor, Tensor) {
	if rotatesOneHead(q, cos, sin) && k.Dim() == 4 && s.compiled(nvrtc.Training, q, k, cos, sin) {
		return s.rotateCompiled(q, k, cos, sin)
	}
	return s.Rotate(q, cos, sin), s.Rotate(k, cos, sin)
}

// rotateCompiled leaves out k where it is none.
func (s *Scope) rotateCompiled(q, k, cos, sin Tensor) (Tensor, Tensor) {
	s.buf.out[0], s.buf.out[1] = nil, nil
	s.check("rotate", csrc.CompiledRotate(&s.buf.out[0], &s.buf.out[1], q.p, k.p, cos.p, sin.p), q, k, cos, sin)
	second := s.buf.out[1]
	first := s.adopt(s.buf.out[0])
	if second == nil {
		return first, Tensor{}
	}
	return first, s.adopt(second)
}

// rotatesOneHead reports whether cos and sin, which take no gradients, are the same for all heads of x.
func rotatesOneHead(x, cos, sin Tensor) bool {
	return !cos.RequiresGrad() && !sin.RequiresGrad() &&
		x.Dim() == 4 && (cos.Dim() < 3 || cos.Size(-3) == 1) && (sin.Dim() < 3 || sin.Size(-3) == 1)
}
