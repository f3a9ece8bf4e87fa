package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/cpu"

	"gopeft/bindings"
	"gopeft/model/fsutil"
	"gopeft/train"
	"gopeft/train/classic/xgboost"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "tell which libtorch, CPU features, GPUs and drivers are seen, and what is missing",
		Flags: slices.Concat(inGroup(groupMachine,
			&cli.BoolFlag{Name: "dist", Usage: "of several processes: meet, say where each is, and time their sums"},
			&cli.StringFlag{Name: "device", Value: "auto", Usage: "of --dist: auto, cpu or cuda"}), processFlags(), uiFlags()),
		Action: func(c *cli.Context) error {
			if c.Bool("dist") {
				return doctorDist(c)
			}
			if c.IsSet("nproc") {
				return train.Usage("doctor: --nproc goes with --dist, which lets several processes meet")
			}
			return doctor(c)
		},
	}
}

// health is what doctor prints.
type health struct {
	Gopeft      string   `json:"gopeft"`
	Go          string   `json:"go"`
	Libtorch    string   `json:"libtorch"`
	LibtorchDir string   `json:"libtorch_folder"`
	CXX11ABI    bool     `json:"cxx11_abi"`
	CPU         string   `json:"cpu_kernels"`
	CPUPath     string   `json:"own_cpu_kernels"`
	BF16        bool     `json:"cpu_bf16"`
	Cores       int      `json:"cores"`
	OpenMP      string   `json:"openmp"` // how its threads wait for work, "" for as the library has it
	Driver      string   `json:"nvidia_driver"`
	CUDALibrary string   `json:"cuda_library"`
	GPUs        int      `json:"gpus"`
	GPUError    string   `json:"gpu_error,omitempty"`
	XGBoost     string   `json:"xgboost"` // version and path of its library, "" if it is not there
	Cache       string   `json:"cache"`
	Missing     []string `json:"missing"`
}

func doctor(c *cli.Context) error {
	h := health{Gopeft: version(), Go: runtime.Version(), Libtorch: bindings.Version(), LibtorchDir: bindings.LibraryFolder(), CXX11ABI: bindings.CXX11ABI(),
		CPU: bindings.CPUCapability(), CPUPath: bindings.CPUPath(), BF16: cpu.X86.HasAVX512BF16 || cpu.X86.HasAMXBF16, Cores: runtime.NumCPU(), Missing: []string{}}
	for _, name := range []string{"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} {
		if v := os.Getenv(name); v != "" {
			h.OpenMP = strings.TrimSpace(h.OpenMP + " " + name + "=" + v)
		}
	}
	var err error
	if h.Cache, err = fsutil.Home(); err != nil {
		return err
	}
	if raw, err := os.ReadFile("/proc/driver/nvidia/version"); err == nil {
		h.Driver, _, _ = strings.Cut(string(raw), "\n")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if h.Driver == "" && bindings.HasDriver() {
		h.Driver = "of unknown version"
	}
	if path := filepath.Join(h.LibtorchDir, "libtorch_cuda.so"); exists(path) {
		h.CUDALibrary = path
	}
	if lib, err := xgboost.Open(); err != nil {
		h.Missing = append(h.Missing, fmt.Sprintf("for --classifier xgboost: %v", err))
	} else {
		h.XGBoost = fmt.Sprintf("%d.%d.%d in %s", lib.Version[0], lib.Version[1], lib.Version[2], lib.Path)
	}
	h.gpus(c) // CUDA has to be loaded before the first tensor is made
	// An addition shows that the libraries work, beyond being loaded.
	if err := bindings.Do(c.Context, func(s *bindings.Scope) error {
		if got := s.Sum(s.Full([]int64{2, 2}, 1, bindings.Float, bindings.CPU)).Item(); got != 4 {
			return fmt.Errorf("libtorch adds four ones to %v", got)
		}
		return nil
	}); err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, h)
	}
	h.print(c)
	return nil
}

// gpus counts the GPUs and says what is missing to use them.
func (h *health) gpus(c *cli.Context) {
	if h.Driver == "" {
		h.Missing = append(h.Missing, "an NVIDIA driver: training runs on the CPU")
	}
	if h.CUDALibrary == "" {
		h.Missing = append(h.Missing, "libtorch's CUDA libraries: `make setup CUDA=1` fetches them, or set LIBTORCH to a torch that has them")
		return
	}
	err := bindings.Do(c.Context, func(s *bindings.Scope) (err error) {
		h.GPUs, err = s.LoadCUDA(h.LibtorchDir, "")
		return err
	})
	if err != nil {
		h.GPUError = err.Error()
	}
}

func (h *health) print(c *cli.Context) {
	w := c.App.Writer
	or := func(v, none string) string {
		if v == "" {
			return none
		}
		return v
	}
	fmt.Fprintf(w, "gopeft     %s (%s)\n", h.Gopeft, h.Go)
	fmt.Fprintf(w, "libtorch   %s in %s (C++11 ABI: %t)\n", h.Libtorch, h.LibtorchDir, h.CXX11ABI)
	fmt.Fprintf(w, "CPU        %d cores, libtorch's kernels for %s, own kernels for %s, bf16 arithmetic: %t\n", h.Cores, h.CPU, h.CPUPath, h.BF16)
	fmt.Fprintf(w, "OpenMP     %s\n", or(h.OpenMP, "waits as the library has it"))
	fmt.Fprintf(w, "driver     %s\n", or(h.Driver, "none"))
	fmt.Fprintf(w, "CUDA       %s\n", or(h.CUDALibrary, "not installed"))
	fmt.Fprintf(w, "GPUs       %s\n", strings.TrimSpace(fmt.Sprint(h.GPUs, "  ", h.GPUError)))
	fmt.Fprintf(w, "XGBoost    %s\n", or(h.XGBoost, "not installed"))
	fmt.Fprintf(w, "cache      %s\n", h.Cache)
	for _, m := range h.Missing {
		fmt.Fprintf(w, "missing    %s\n", m)
	}
}
