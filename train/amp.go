package train

import (
	"fmt"

	"golang.org/x/sys/cpu"

	"gopeft/bindings"
)

// Precision is what matrix products are computed in.
type Precision struct {
	DType bindings.DType // Float: mixed precision is off
	Why   string         // how it was chosen, for people
}

// ChoosePrecision turns --amp into a dtype for a device. auto takes bf16 where the hardware has it, else
// fp16 on CUDA, else none; fp16 on the CPU is refused.
func ChoosePrecision(amp string, dev bindings.Device) (Precision, error) {
	bf16 := cpu.X86.HasAVX512BF16 || cpu.X86.HasAMXBF16
	if dev.IsCUDA() && (amp == "auto" || amp == "") {
		major, _, err := bindings.CUDACapability(dev)
		if err != nil {
			return Precision{}, fmt.Errorf("--amp auto: %w; choose bf16, fp16 or none", err)
		}
		bf16 = major >= 8 // Ampere; before it bf16 is emulated, slower than fp32
	}
	return choosePrecision(amp, dev.IsCUDA(), bf16)
}

// choosePrecision is ChoosePrecision for a GPU or the CPU that computes bf16 or does not.
func choosePrecision(amp string, gpu, bf16 bool) (Precision, error) {
	switch amp {
	case "none":
		return Precision{bindings.Float, "none"}, nil
	case "bf16":
		return Precision{bindings.BFloat16, "bf16"}, nil
	case "fp16":
		if !gpu {
			return Precision{}, Usage("--amp fp16 needs a GPU: on the CPU use bf16 or none")
		}
		return Precision{bindings.Half, "fp16 with a loss scaler"}, nil
	case "auto", "":
		switch {
		case gpu && bf16:
			return Precision{bindings.BFloat16, "bf16 (auto: this GPU computes it)"}, nil
		case gpu:
			return Precision{bindings.Half, "fp16 with a loss scaler (auto: this GPU has no bf16 arithmetic)"}, nil
		case bf16:
			return Precision{bindings.BFloat16, "bf16 (auto: this CPU computes it)"}, nil
		}
		return Precision{bindings.Float, "none (auto: this CPU has no bf16 arithmetic)"}, nil
	}
	return Precision{}, Usage("--amp %q is not known (auto, none, bf16, fp16)", amp)
}

// AMPName is the value of --amp that asks for a dtype.
func AMPName(d bindings.DType) string {
	switch d {
	case bindings.BFloat16:
		return "bf16"
	case bindings.Half:
		return "fp16"
	}
	return "none"
}

// Scaler multiplies the loss so that fp16 gradients do not vanish, and skips steps in which they overflow
// (Micikevicius et al. 2018; constants of PyTorch's GradScaler).
type Scaler struct {
	scope                     *bindings.Scope
	scale, tracker, found     bindings.Tensor
	growth, backoff, interval float64
}

// NewScaler makes a scaler for a device. Close frees it.
func NewScaler(s *bindings.Scope, dev bindings.Device) *Scaler {
	sc := s.NewScope()
	return &Scaler{
		scope: sc, scale: sc.Scalar(65536, bindings.Float, dev), tracker: sc.Scalar(0, bindings.Int, dev),
		found: sc.Scalar(0, bindings.Float, dev), growth: 2, backoff: 0.5, interval: 2000,
	}
}

// Scale multiplies a loss; a nil Scaler returns it as it is.
func (c *Scaler) Scale(s *bindings.Scope, loss bindings.Tensor) bindings.Tensor {
	if c == nil {
		return loss
	}
	return s.Mul(loss, c.scale)
}

// Unscale divides the gradients and reports whether all are finite; the step must be skipped otherwise.
func (c *Scaler) Unscale(s *bindings.Scope, grads []bindings.Tensor) bool {
	if c == nil {
		return true
	}
	s.Fill(c.found, 0)
	s.Unscale(grads, c.found, s.Reciprocal(c.scale))
	return c.found.Item() == 0
}

// Update grows or shrinks the scale after a step.
func (c *Scaler) Update(s *bindings.Scope) {
	if c != nil {
		s.UpdateScale(c.scale, c.tracker, c.found, c.growth, c.backoff, int64(c.interval))
	}
}

// Close frees the scaler's tensors.
func (c *Scaler) Close() {
	if c != nil {
		c.scope.Close()
	}
}

// InferencePrecision is ChoosePrecision where nothing is trained: what is left open is full precision.
func InferencePrecision(amp string, dev bindings.Device) (Precision, error) {
	if amp == "" || amp == "auto" {
		amp = "none"
	}
	return ChoosePrecision(amp, dev)
}
