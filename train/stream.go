package train

import (
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
)

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
