package bindings

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"gopeft/bindings/csrc"
	"gopeft/bindings/csrc/nvrtc"
)

// Where there is a GPU, compiled kernels serve every dtype that they are for: what falls back would go unnoticed.
func TestCompiledKernelsServeOnAGPU(t *testing.T) {
	if !HasDriver() {
		t.Skip("there is no NVIDIA driver: what runs on a GPU is not tested here")
	}
	err := Do(context.Background(), func(s *Scope) error {
		if major, _, err := CUDACapability(CUDA(0)); err != nil || 10*major < nvrtc.LeastArchitecture {
			t.Skip("the GPU is older than those that kernels are compiled for", err)
		}
		for _, d := range []DType{Float, BFloat16, Half} {
			for _, g := range nvrtc.Groups() {
				if err := s.buf.kernels.load(kernelSet{g, CUDA(0), d}); err != nil {
					t.Errorf("%s for %s: %v", g, d, err)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What prevents compiled kernels is said once, and they are not tried again.
func TestMissingKernelsAreLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	var k compiledKernels
	for range 3 {
		if k.get(kernelSet{nvrtc.Training, CUDA(0), Double}) {
			t.Fatal("there are kernels for fp64")
		}
	}
	if n := strings.Count(log.String(), "reason="); n != 1 {
		t.Errorf("it is logged %d times: %s", n, log.String())
	}
}

func TestCompiledKernelsAreForGPUs(t *testing.T) {
	err := Do(context.Background(), func(s *Scope) error {
		x, w := s.Full([]int64{2, 8}, 1, Float, CPU), s.Full([]int64{8}, 1, Float, CPU)
		if s.compiled(nvrtc.Training, x, w) {
			t.Error("they serve on the CPU")
		}
		for name, message := range map[string]string{
			"rms norm": csrc.CompiledRMSNorm(s.slot(), x.p, w.p, 1e-5),
			"swiglu":   csrc.CompiledSwiGLU(s.slot(), x.p, x.p, false),
		} {
			if !strings.Contains(message, "GPU kernels are for tensors on a GPU") {
				t.Errorf("%s: %q", name, message)
			}
		}
		if !HasDriver() {
			if err := loadKernels(kernelSet{nvrtc.Training, CUDA(0), Float}, []byte{0}); err == nil || !strings.Contains(err.Error(), "NVIDIA's driver") {
				t.Errorf("kernels without a driver: %v", err)
			}
		}
		was := s.SetCompiled(false)
		if again := s.SetCompiled(was); !was || again {
			t.Errorf("SetCompiled says %t, then %t", was, again)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
