package train

import (
	"errors"
	"strings"
	"testing"

	"gopeft/bindings"
)

func TestPrecisionByHardware(t *testing.T) {
	for _, c := range []struct {
		amp       string
		gpu, bf16 bool
		want      bindings.DType
	}{
		{"auto", true, true, bindings.BFloat16}, {"auto", true, false, bindings.Half},
		{"auto", false, true, bindings.BFloat16}, {"auto", false, false, bindings.Float},
		{"bf16", true, false, bindings.BFloat16}, {"bf16", false, false, bindings.BFloat16},
		{"fp16", true, true, bindings.Half}, {"none", true, true, bindings.Float},
	} {
		if got, err := choosePrecision(c.amp, c.gpu, c.bf16); err != nil || got.DType != c.want {
			t.Errorf("%s, GPU %t, bf16 %t: %v, %v; want %v", c.amp, c.gpu, c.bf16, got, err, c.want)
		}
	}
	for _, amp := range []string{"fp16", "int4"} {
		_, err := choosePrecision(amp, false, true)
		if wrong := (*UsageError)(nil); !errors.As(err, &wrong) {
			t.Errorf("%s on the CPU: %v, want a usage error", amp, err)
		}
	}
}

func TestAutoSaysWhyAGPUIsNotUsed(t *testing.T) {
	broken := func() (int, error) { return 0, errors.New("load CUDA: no library") }
	if dev, note, err := autoDevice(false, 0, broken); dev != bindings.CPU || note != "" || err != nil {
		t.Errorf("without a driver: %v, %q, %v", dev, note, err)
	}
	if dev, note, err := autoDevice(true, 0, broken); dev != bindings.CPU || !strings.Contains(note, "no library") || err != nil {
		t.Errorf("CUDA does not load: %v, %q, %v", dev, note, err)
	}
	if dev, note, err := autoDevice(true, 0, func() (int, error) { return 1, nil }); dev != bindings.CUDA(0) || note != "" || err != nil {
		t.Errorf("CUDA loads: %v, %q, %v", dev, note, err)
	}
}

func TestHighWater(t *testing.T) {
	for text, want := range map[string]float64{
		"Name:\tgopeft\nVmPeak:\t  900 kB\nVmHWM:\t  123456 kB\nVmRSS:\t 5 kB\n": 123456, "Name:\tgopeft\n": 0, "VmHWM:\tmuch kB\n": 0,
	} {
		if kb, ok := figureKB([]byte(text), "VmHWM:"); ok != (want > 0) || ok && kb != want {
			t.Errorf("%q: %v, %t", text, kb, ok)
		}
	}
	if mb := PeakRSSMB(); mb < 1 || mb > 1<<20 {
		t.Errorf("this process took %v MiB", mb)
	}
}
