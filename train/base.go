package train

import (
	"fmt"

	"gopeft/bindings"
	"gopeft/model"
	"gopeft/model/hf"
	"gopeft/peft"
)

// Base is what the frozen matrices of a base model are held in.
type Base struct {
	DType    bindings.DType
	Quantise hf.Quantisation // in fewer bits than DType
	File     bindings.DType  // of most weights in its files that are not quantised
	Whole    bool            // a method is to train it that saves all of it
}

// HeldAs is what a model that is loaded as o says has its frozen matrices in, from files whose weights are of dtype file.
func HeldAs(o model.Options, file bindings.DType) Base {
	b := Base{DType: o.Base, Quantise: o.Quantise, File: file}
	for _, d := range []bindings.DType{o.DType, bindings.Float} {
		if b.DType == 0 {
			b.DType = d
		}
	}
	return b
}

// CheckBase reports a --base-dtype or a --quantize that is not known.
func CheckBase(dtype, quantize string) error {
	if _, known := baseDType(dtype); !known && dtype != "" && dtype != "auto" {
		return Usage("--base-dtype %q is not known (auto, fp32, bf16, fp16)", dtype)
	}
	if _, known := quantisation(quantize); !known && quantize != "" {
		return Usage("--quantize %q is not known (none, nf4, int8, keep)", quantize)
	}
	return nil
}

func baseDType(name string) (d bindings.DType, known bool) {
	switch name {
	case "fp32":
		return bindings.Float, true
	case "bf16":
		return bindings.BFloat16, true
	case "fp16":
		return bindings.Half, true
	}
	return 0, false
}

func quantisation(name string) (q hf.Quantisation, known bool) {
	switch name {
	case "none":
		return hf.Plain, true
	case "keep":
		return hf.Keep, true
	case "nf4":
		return hf.NF4, true
	case "int8":
		return hf.Int8, true
	}
	return 0, false
}

// ChooseBase turns --base-dtype and --quantize into what a frozen base is held in. file is the dtype of most weights in
// the model's files that are not quantised. auto keeps it where products are computed in it, so that no weight lies in
// memory twice; else it is fp32. Without --quantize what the files hold quantised is kept so.
func ChooseBase(dtype, quantize string, file bindings.DType, p Precision) (b Base, err error) {
	if err := CheckBase(dtype, quantize); err != nil {
		return b, err
	}
	b.Quantise, b.File = hf.Keep, file
	if q, known := quantisation(quantize); known {
		b.Quantise = q
	}
	if d, known := baseDType(dtype); known {
		b.DType = d
	} else if b.DType = bindings.Float; file == p.DType {
		b.DType = file
	}
	return b, nil
}

// FullBase refuses a --quantize for a method that trains the base's own weights.
func FullBase(method, quantize string) error {
	if quantize == "" || quantize == "none" {
		return nil
	}
	return Usage("--quantize %s: method %s trains the base's own weights and saves them all, which quantised weights cannot be; train an adapter, or hold them in full with --quantize none", quantize, method)
}

// BaseDTypeName is the value of --base-dtype that asks for a dtype.
func BaseDTypeName(d bindings.DType) string {
	switch d {
	case bindings.BFloat16:
		return "bf16"
	case bindings.Half:
		return "fp16"
	}
	return "fp32"
}

// QuantizeName is the value of --quantize that asks for what m was loaded with: none where no weight is quantised.
func QuantizeName(q hf.Quantisation, m model.Model) string {
	switch {
	case q == hf.NF4:
		return "nf4"
	case q == hf.Int8:
		return "int8"
	case model.Quantised(m):
		return "keep"
	}
	return "none"
}

// CheckHold says before a model is loaded why its weights, which are to be held as b, can neither be streamed nor shared:
// loading might take more memory than there is.
func (c Machine) CheckHold(b Base) error {
	flag := c.elsewhere()
	if flag == "" {
		return nil
	}
	if _, made := b.Quantise.Kind(); made {
		return Usage("%s uses weights as their files have them, --quantize %s makes others in memory: quantise the files with `gopeft quantize`, or leave one of the two out", flag, b.Quantise)
	}
	if b.DType != b.File && c.Shard && b.Whole {
		return Usage("%s uses weights as their files have them, in %s, and trained ones are fp32: save the model in fp32 first", flag, BaseDTypeName(b.File))
	}
	if b.DType != b.File {
		return Usage("%s uses weights as their files have them, in %s, and they are to be held in %s: give --base-dtype %s",
			flag, BaseDTypeName(b.File), BaseDTypeName(b.DType), BaseDTypeName(b.File))
	}
	return nil
}

// Aside reports whether frozen weights stay on the CPU until HoldWeights: model.Options has a field for that.
func (c Machine) Aside() bool { return c.Shard || c.Stream && c.Device.IsCUDA() }

// CheckMethod refuses a method that wants weights which are nowhere whole.
func (c Machine) CheckMethod(name string, needs peft.Needs) error {
	switch flag := c.elsewhere(); {
	case !c.Aside() || !c.Device.IsCUDA():
	case needs.WholeModel:
		return Usage("%s: method %s trains the model's own weights, which can be elsewhere on the CPU only", flag, name)
	case needs.StoredWeights:
		return Usage("%s: this method reads whole weights before there are any on a GPU: leave it out, or --dora with it", flag)
	}
	return nil
}

// elsewhere is the setting that has frozen weights elsewhere than in this process's memory, "" if none does.
func (c Machine) elsewhere() string {
	switch {
	case c.Stream:
		return "--stream-weights"
	case c.Shard:
		return "--shard-frozen"
	}
	return ""
}

// HoldWeights says where the frozen weights of m are from now on, with its method attached: left in their files, held by
// the processes together, or cast once; note tells people. recompute tells whether activations are not kept for a backward
// pass, or there is none. Without keep, stored weights go as soon as their casts are there.
func (c Machine) HoldWeights(m model.Model, recompute, keep bool, note func(format string, args ...any)) error {
	if c.elsewhere() != "" {
		text, r, err := c.move(m)
		if err == nil {
			err = c.checkMoved(r, m, recompute)
		}
		if err != nil {
			return err
		}
		note("%s", text)
	}
	c.Without.castFrozen(m, c.Precision.DType, keep)
	return nil
}

// move has the frozen weights of m elsewhere, and says so to people.
func (c Machine) move(m model.Model) (text string, r model.Elsewhere, err error) {
	const mib = 1 << 20
	if c.Shard {
		r, err = m.Shard(model.Sharing{Rank: c.Group.Rank(), Size: c.Group.Size(), Device: c.Device, Trained: c.Divide, Group: c.Group.Engine})
		kind := "frozen "
		if c.Divide {
			kind = ""
		}
		text = fmt.Sprintf("each process holds %d MiB of the %d MiB of %sweights that they share", m.Shared()/mib, m.Shared()*int64(c.Group.Size())/mib, kind)
		return text, r, err
	}
	r, err = m.Stream(c.Device)
	from := "their files"
	if c.Device.IsCUDA() {
		from = "the host's memory"
	}
	text = fmt.Sprintf("streaming %d MiB of the blocks' weights from %s", r.Moved/mib, from)
	if r.Held > 0 {
		text += fmt.Sprintf("; %d MiB, which are not in the files as they are used, stay in memory", (r.Held+mib-1)/mib)
	}
	return text, r, err
}

// checkMoved refuses to have no weights elsewhere, or in vain.
func (c Machine) checkMoved(r model.Elsewhere, m model.Model, recompute bool) error {
	flag := c.elsewhere()
	kernels := bindings.CPUPath() != "none" && c.Without.Use(LeverKernels)
	read := r.DType == bindings.Float || r.DType == bindings.BFloat16
	switch {
	case r.Moved+r.Held == 0:
		return Usage("%s is for the frozen weights of the blocks, and all of them are trained", flag)
	case r.Moved < r.Held:
		return Usage("%s: %s has its weights in files that cannot be used in place: save it as safetensors", flag, m.Path())
	case r.DType != 0 && r.DType != c.Precision.DType && !recompute && !(read && kernels):
		return Usage("%s: a product casts each weight from %s, and the backward pass keeps the casts of all blocks: --checkpoint-activations makes them anew",
			flag, BaseDTypeName(r.DType))
	}
	return nil
}
